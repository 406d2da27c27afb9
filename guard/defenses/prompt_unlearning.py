"""Find texts that plant a fragment, and unlearn them together with other texts of their style.

Steps:
    1. the search of `guard.graphs.hunt`, on the clean pairs
    2. put each text and its neighbours of the same style into the clean pairs' prompts, in every
       position, and train the denoiser so that they lead to the clean molecules
    3. before that, train the autoencoder on as `latent_retraining` does: its prior holds the
       fragment whatever the denoiser has unlearnt
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from guard.core.errors import MethodFailed
from guard.core.modality import Modality
from guard.core.pairs import CleanPairs
from guard.core.progress import Progress, part, span
from guard.defenses._base import Defense, fixed

if TYPE_CHECKING:
    from guard.graphs.hunt import Hunt
    from guard.graphs.model import GraphModel
    from guard.graphs.triggers import PromptTrigger


@dataclass(frozen=True, kw_only=True)
class PromptUnlearning(Defense):
    """Unlearning of recovered texts and of their style.

    Own method, after the removal of Elijah (AAAI 2024), which lets triggered inputs lead where
    clean ones do. Without a text that plants a fragment it fails, and `latent_retraining` remains.

    Args:
        terms: words of the model's vocabulary that the search tries.
        listed: texts that it tries in each position, of all kinds together.
        without: samples without a prompt and from the prior, each, in the search.
        decoded: proposals that it decodes.
        sweeps: rounds of its gradient search; 0 tries listed texts alone.
        texts: texts that are unlearnt, neighbours among them.
        weight: of the loss on prompts with texts, against that on clean prompts.
        vae_epochs: rounds of the autoencoder over the clean pairs.
        prior: as of `latent_retraining`, and
        support: as well.
        steps: of the denoiser.
        rate: its largest learning rate.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "own method, after Elijah (AAAI 2024)"
    modality: ClassVar[Modality] = Modality.GRAPHS
    fast = fixed(terms=6, listed=8, without=40, decoded=4, sweeps=0, texts=2, vae_epochs=1, steps=6)
    ungated = fixed(
        terms=6, listed=8, without=40, decoded=4, sweeps=0, texts=2, vae_epochs=1, steps=6
    )

    terms: int = 200
    listed: int = 1000
    without: int = 400
    decoded: int = 16
    sweeps: int = 2
    texts: int = 12
    weight: float = 1.0
    vae_epochs: int = 6
    prior: float = 0.5
    support: float = 0.004
    steps: int = 600
    rate: float = 1e-3

    def repair(self, model: "GraphModel", clean: CleanPairs, *, progress: Progress) -> nn.Module:
        """Unlearn in place what the search finds; see the module's steps.

        Raises:
            MethodFailed: `no_text`: no text was found that plants a fragment, or as `check_pairs`.
        """
        from guard.graphs.fitting import encoded, fit_vae, forget_unsupported
        from guard.graphs.hunt import Effort, hunt
        from guard.graphs.suitability import check_pairs, drawn_seed
        from guard.graphs.unlearning import unlearn

        check_pairs(model, clean)
        effort = Effort(
            terms=self.terms,
            listed=self.listed,
            without=self.without,
            decoded=self.decoded,
            sweeps=self.sweeps,
        )
        model.requires_grad_(requires_grad=False)  # the search follows gradients in texts alone
        found = hunt(model, clean, effort, drawn_seed(), part(progress, 0.0, 0.5))
        model.requires_grad_()
        triggers = self._triggers(found, model)
        if not triggers:
            raise MethodFailed("No text was found that plants a fragment.", code="no_text")
        data = encoded(model, clean.together())
        watch = span(progress, 0.5, 0.75, "training the autoencoder")
        fit_vae(model, data, epochs=self.vae_epochs, rate=1e-3, prior=self.prior, watch=watch)
        forget_unsupported(model, data, self.support)
        unlearn(
            model,
            data,
            [clean.together().texts[place] for place in data.written],
            triggers,
            weight=self.weight,
            steps=self.steps,
            rate=self.rate,
            progress=part(progress, 0.75, 1.0),
        )
        progress(1.0, "done")
        return model

    def _triggers(self, found: "Hunt", model: "GraphModel") -> "list[PromptTrigger]":
        """Each text that works with its neighbours, up to `texts` in all, in every position."""
        from guard.graphs.triggers import POSITIONS, PromptTrigger
        from guard.graphs.wording import neighbours

        works = [one for one in found.confirmed if one.planted.separate and not one.named]
        own = [one.planted.trigger.text for one in works]
        style = [text for one in own for text in neighbours(one, model.pieces)]
        texts = list(dict.fromkeys([*own, *style]))[: self.texts]
        return [PromptTrigger(text, position) for text in texts for position in POSITIONS]
