"""Sifting measured: cells of data, poison and model, evaluated against the truth."""
