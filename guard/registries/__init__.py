"""Model registries of others, which are told what may be served."""
