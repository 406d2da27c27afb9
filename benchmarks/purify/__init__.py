"""The parts of `python -m benchmarks.bench_purify`: runs, numbers, plots, report."""
