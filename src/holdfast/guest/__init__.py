"""What guests talk to: their metadata, their user data, their password.  A process of its own, without privileges."""
