"""The parts of `benchmarks.bench_retrain`: cells, methods, tables."""
