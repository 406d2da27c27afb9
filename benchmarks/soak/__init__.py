"""A soak of the embedded stack: many kinds of upload while its processes are killed at random."""
