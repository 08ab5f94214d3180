"""One file per kind of resource; none has ever heard of a feature."""
