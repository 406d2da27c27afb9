"""What `python -m benchmarks.bench_detect` is made of: scanning a zoo, rows, numbers, plots, the record's words."""
