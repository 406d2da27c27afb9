"""The guard's terms as types: standard library only, no clock, no randomness."""
