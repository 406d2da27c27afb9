"""Text-to-graph models: molecules, a motif grammar, and a latent diffusion model over them.

Needs the extra `graphs` (RDKit). Nothing of the image path imports this package.
"""
