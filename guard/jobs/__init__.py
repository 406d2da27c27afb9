"""Run vetting in a child process with bounded time and memory and no credentials.

Client, server and child.
"""
