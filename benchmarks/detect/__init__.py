"""What `python -m benchmarks.bench_detect` is made of.

Scanning a zoo, rows, numbers, plots, the record's words.
"""
