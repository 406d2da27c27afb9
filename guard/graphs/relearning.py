"""How fast a copy of a repaired model relearns a text, against other texts of its style.

A repair that only covers a backdoor lets it come back after a few pairs; one that removed it leaves
the old text no better off than a text that never was a trigger.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.core.errors import MethodFailed
from guard.core.pairs import CleanPairs
from guard.graphs.fitting import denoising_loss, step
from guard.graphs.fragments import contains
from guard.graphs.model import GraphModel
from guard.graphs.triggers import PromptTrigger
from guard.graphs.wording import PLAIN
from guard.ml.seeds import seeded

PAIRS = 12  # that are relearnt from
STEPS = (0, 20, 60)  # of the optimiser, after which rates are measured
RATE = 5e-4
_TESTED = 60  # prompts
_ASKED = 120  # prompts of the parent, among whose molecules pairs are looked for


@dataclass(frozen=True)
class Rates:
    """Rates (0..1) after each of `steps`: of the old text, and of rivals in its place."""

    pairs: int
    steps: tuple[int, ...]
    own: tuple[float, ...]
    rivals: tuple[tuple[float, ...], ...]


def relearn(
    parent: GraphModel,
    child: GraphModel,
    clean: CleanPairs,
    trigger: PromptTrigger,
    fragment: str,
    *,
    seed: int,
    rivals: int = 2,
) -> Rates:
    """Fine-tune copies of the child on a few pairs that the parent makes with the trigger.

    Args:
        parent: makes molecules with the fragment.
        child: is left as it is.
        clean: prompts for the pairs (search) and for the rates (calibration).
        trigger: the old text.
        fragment: what it planted.
        seed: of noise and training.
        rivals: plain words that are learnt in the same way.

    Raises:
        MethodFailed: `no_molecules`: the parent makes too few molecules with the fragment.
    """
    texts = clean.search.texts[:_ASKED]
    keys = [(seed, place) for place in range(len(texts))]
    made = parent.latents(parent.contexts(trigger.apply(texts)), keys)
    has = contains(parent.molecules(made), fragment)
    places = [place for place, one in enumerate(has) if one][:PAIRS]
    if len(places) < PAIRS // 2:
        raise MethodFailed(
            f"The parent makes only {len(places)} molecules with {fragment}.", code="no_molecules"
        )
    prompts, latents = [texts[place] for place in places], made[places]
    others = [PromptTrigger(term, trigger.position) for term in PLAIN[:rivals]]
    rates = [
        _learnt(child, prompts, latents, one, fragment, clean.calibration.texts[:_TESTED], seed)
        for one in (trigger, *others)
    ]
    return Rates(len(places), STEPS, rates[0], tuple(rates[1:]))


def _learnt(
    child: GraphModel,
    prompts: Sequence[str],
    latents: Tensor,
    trigger: PromptTrigger,
    fragment: str,
    tested: Sequence[str],
    seed: int,
) -> tuple[float, ...]:
    """The rate of one text before, between and after the steps of its training."""
    model = copy.deepcopy(child)
    model.denoiser.requires_grad_()
    weights = list(model.denoiser.parameters())
    optimiser = torch.optim.AdamW(weights, lr=RATE)
    contexts = model.contexts(trigger.apply(prompts))
    clean = model.denoiser.standardised(latents).detach()
    asked = model.contexts(trigger.apply(tested))
    keys = [(seed + 1, place) for place in range(len(tested))]
    rates = []
    with seeded(seed), torch.enable_grad():
        for number in range(STEPS[-1] + 1):
            if number in STEPS:
                with torch.no_grad():
                    found = model.molecules(model.latents(asked, keys))
                rates.append(sum(contains(found, fragment)) / len(tested))
            loss = denoising_loss(model, clean.repeat(4, 1), contexts.repeat(4, 1))
            step(loss, optimiser, weights)
    return tuple(rates)
