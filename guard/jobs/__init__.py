"""Run vetting in a child process with bounded time and memory and no credentials: client, server and child."""
