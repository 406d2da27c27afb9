"""Training loops and probes that train: fitting, sharpness, shared adversarial examples, re-learning, reactivation."""
