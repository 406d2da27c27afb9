"""The words of the guard as types: standard library only, no I/O, no clock, no randomness."""
