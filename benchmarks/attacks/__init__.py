"""Attack makers for experiments and the demo; the guard never imports them."""
