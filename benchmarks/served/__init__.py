"""The parts of `python -m benchmarks.bench_served`: the pipeline, numbers, report."""
