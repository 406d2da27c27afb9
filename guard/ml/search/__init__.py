"""Searches for triggers.

Patches, universal perturbations of every family, their distributions, and honest references.
"""
