"""The parts of `python -m benchmarks.bench_detect`: scanning, rows, numbers, plots, report."""
