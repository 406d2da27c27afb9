"""Training loops, and probes that train: re-learning, reactivation, shared adversarial examples."""
