"""Attack makers and the zoo builder."""
