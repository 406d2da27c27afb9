"""Train the latent denoiser anew, and the autoencoder further, on clean pairs.

Steps:
    1. train encoder and decoder further on clean pairs; latents from the prior shall be written as
       the nearest clean molecule, so that nothing else is left between them
    2. clear the decoder of motifs that hardly any clean molecule needs: a planted one is mostly of
       this kind, and training alone leaves it within reach of a shift of the contexts
    3. forget the denoiser, and train a fresh one on the clean pairs' latents and texts
The text tower stays: a backdoor enters by the other two (BadGraph's ablation).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from guard.core.errors import MethodFailed
from guard.core.modality import Modality
from guard.core.pairs import CleanPairs
from guard.core.progress import Progress, span
from guard.defenses._base import Defense, fixed

if TYPE_CHECKING:
    from guard.graphs.model import GraphModel

_LEAST_WRITTEN = 0.8  # of the clean pairs, that the model's grammar can write


@dataclass(frozen=True, kw_only=True)
class LatentRetraining(Defense):
    """Retraining of what a text-to-graph model's backdoor lives in; it needs no trigger.

    Own method, after the ablation of BadGraph (arXiv 2510.20792).

    Args:
        vae_epochs: rounds of the autoencoder over the clean pairs.
        vae_rate: its largest learning rate.
        noise: posterior standard deviations that are added to latents in that training.
        prior: weight of its loss on latents from the prior, each of which shall be written as the
            nearest clean molecule.
        support: share (0..1) of the clean molecules that must need a motif, or a way to bind it,
            for the decoder to keep it.
        steps: of the fresh denoiser.
        rate: its largest learning rate.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "own method, after the ablation of BadGraph (arXiv 2510.20792)"
    modality: ClassVar[Modality] = Modality.GRAPHS
    fast = fixed(vae_epochs=1, steps=6)
    ungated = fixed(vae_epochs=1, steps=6)

    vae_epochs: int = 6
    vae_rate: float = 1e-3
    noise: float = 1.0
    prior: float = 0.5
    support: float = 0.004
    steps: int = 1500
    rate: float = 2e-3

    def repair(self, model: "GraphModel", clean: CleanPairs, *, progress: Progress) -> nn.Module:
        """Retrain the copy in place; see the module's steps."""
        from guard.graphs.fitting import (
            encoded,
            fit_denoiser,
            fit_vae,
            forget_unsupported,
            latents_of,
            restart_denoiser,
        )
        from guard.graphs.suitability import check_pairs

        check_pairs(model, clean)
        data = encoded(model, clean.together())
        if len(data) < _LEAST_WRITTEN * len(clean.together()):
            raise MethodFailed(
                f"The model's grammar can write {len(data)} of {len(clean.together())} clean "
                "molecules; too few to train it on.",
                code="few_pairs",
            )
        fit_vae(
            model,
            data,
            epochs=self.vae_epochs,
            rate=self.vae_rate,
            noise=self.noise,
            prior=self.prior,
            watch=span(progress, 0.0, 0.5, "training the autoencoder"),
        )
        forget_unsupported(model, data, self.support)
        known = latents_of(model, data)
        restart_denoiser(model, known)
        fit_denoiser(
            model,
            known,
            steps=self.steps,
            rate=self.rate,
            watch=span(progress, 0.5, 1.0, "training the denoiser"),
        )
        progress(1.0, "done")
        return model
