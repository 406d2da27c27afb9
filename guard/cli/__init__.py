"""The `guard` command: one file a command, the only package that prints."""
