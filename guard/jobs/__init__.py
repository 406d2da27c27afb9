"""Run vetting in a child process with bounded time and memory and without credentials.

`run` is the entrance; it uses `client`, which asks `server` to fork `child`.
"""
