"""Training loops and probes that train.

Fitting, sharpness, shared adversarial examples, re-learning, reactivation.
"""
