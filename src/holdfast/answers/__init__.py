"""The exact texts that management servers parse, one module a script.  Pure."""
