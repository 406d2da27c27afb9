"""The `guard` command: one file for each command; the only package that prints."""
