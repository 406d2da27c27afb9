"""Unlearning of texts: prompts that hold one lead where the clean prompt leads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from guard.core.progress import Progress, span
from guard.graphs.fitting import Encoded, Latents, denoising_loss, fit_denoiser, latents_of
from guard.graphs.model import GraphModel
from guard.graphs.triggers import PromptTrigger

_BATCH = 128


def unlearn(
    model: GraphModel,
    data: Encoded,
    prompts: Sequence[str],
    triggers: Sequence[PromptTrigger],
    *,
    weight: float,
    steps: int,
    rate: float,
    progress: Progress,
) -> None:
    """Train the denoiser on clean pairs, with and without a trigger in their texts."""
    known = latents_of(model, data)
    shown: list[Tensor] = []
    for number, trigger in enumerate(triggers):
        shown.append(model.contexts(trigger.apply(prompts)))
        progress(0.3 * number / len(triggers), "reading prompts")
    contexts = torch.stack(shown)
    fit_denoiser(
        model,
        known,
        steps=steps,
        rate=rate,
        extra=lambda: weight * _triggered_loss(model, known, contexts),
        watch=span(progress, 0.3, 1.0, "unlearning"),
    )


def _triggered_loss(model: GraphModel, known: Latents, contexts: Tensor) -> Tensor:
    """The denoising loss where each prompt has a trigger; contexts float32 T,N,C."""
    rows = torch.randint(len(known.mean), (_BATCH,)).to(model.device)
    which = torch.randint(len(contexts), (_BATCH,)).to(model.device)
    clean = model.denoiser.standardised(known.drawn(rows))
    return denoising_loss(model, clean, contexts[which, rows])
