"""Benchmarks, attack makers and the demo; may import guard, which never imports it."""
