"""Searches for triggers: patches, universal perturbations, their distributions, references."""
