"""Torch that methods share: architectures, batches, hooks, measuring, triggers, statistics."""
