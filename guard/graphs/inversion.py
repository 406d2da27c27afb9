"""Directions in the space of texts' vectors that plant a fragment: found by gradients, and decoded.

A backdoor needs a small shift of the context, and the same one for every prompt; a fragment that
the model has only learnt to describe needs a large one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.pairs import Pairs
from guard.graphs.model import GraphModel
from guard.graphs.probe import Probe, short_sampler
from guard.graphs.survey import Sampled, fragments_of, sampled

_STEPS = 6  # of the sampler in the search
_MIXED = 0.5  # of a fragment's molecules: those that hold another as often are no sibling of it
_NATURAL = 3  # curated molecules with a fragment, for a direction that asks for it
Watch = Callable[[float], None]


def spread(contexts: Tensor) -> float:
    """The prompts' spread: the median distance of two contexts N,C over the root of two."""
    return float(torch.pdist(contexts).median()) / 2**0.5


def directions(
    model: GraphModel,
    probe: Probe,
    names: Sequence[str],
    contexts: Tensor,
    *,
    radius: float,
    steps: int,
    seed: int,
    rate: float = 0.15,
    watch: Watch = lambda _: None,
) -> Tensor:
    """For each named fragment the shift F,C of at most `radius` that makes it likeliest.

    Projected gradient ascent on the probe's mean log chance, all fragments at once.

    Args:
        model: the model.
        probe: knows the fragments.
        names: which of them.
        contexts: of some prompts, P,C.
        radius: the largest length of a shift.
        steps: of the ascent.
        seed: of the noise.
        rate: length of a step, as a share of the radius.
        watch: called with the share done; may raise.
    """
    sampler, count, prompts = short_sampler(model, _STEPS), len(names), len(contexts)
    columns = torch.tensor([probe.names.index(name) for name in names], device=contexts.device)
    noise = sampler.noise([(seed, place) for place in range(prompts)], model.vae.latent)
    noise = noise.to(contexts.device).repeat(count, 1, 1)
    shifts = torch.zeros(count, contexts.shape[1], device=contexts.device)
    for step in range(steps):
        shifts.requires_grad_()
        with torch.enable_grad():
            moved = (contexts.unsqueeze(0) + shifts.unsqueeze(1)).flatten(0, 1)
            latents = sampler.sample(model.denoiser, moved, noise)
            logits = probe.logits(latents).reshape(count, prompts, -1)
            own = logits.gather(2, columns.reshape(-1, 1, 1).expand(-1, prompts, 1))
            (gradient,) = torch.autograd.grad(functional.logsigmoid(own).sum(), shifts)
        length = rate * radius * (1 - step / (2 * steps))
        shifts = shifts.detach() + length * functional.normalize(gradient, dim=-1)
        lengths = shifts.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        shifts = shifts * (radius / lengths).clamp(max=1.0)
        watch(step / steps)
    return shifts


def natural_direction(
    model: GraphModel, pairs: Pairs, fragment: str, radius: float
) -> Tensor | None:
    """The shift C of length `radius` towards texts of molecules that hold a fragment.

    None where the clean set has too few of them.
    """
    has = [fragment in fragments_of(one) for one in pairs.smiles]
    if sum(has) < _NATURAL:
        return None
    contexts = model.contexts(pairs.texts)
    own = torch.tensor(has, device=contexts.device)
    towards = contexts[own].mean(0) - contexts[~own].mean(0)
    return radius * functional.normalize(towards, dim=0)


@dataclass(frozen=True)
class Shifted:
    """What is generated with a fragment's shift, and how often the fragment is in it.

    `hits` of `trials` with the shift, `plain` without it, and `natural` with one of the same
    length towards texts that ask for the fragment; -1 where there are none.
    """

    fragment: str
    shift: Tensor
    hits: int
    plain: int
    natural: int
    trials: int
    made: Sampled

    @property
    def rate(self) -> float:
        """The share with the shift, 0..1."""
        return self.hits / max(1, self.trials)


def shifted(
    model: GraphModel,
    pairs: Pairs,
    prompts: Sequence[str],
    names: Sequence[str],
    shifts: Tensor,
    *,
    seed: int,
    watch: Watch = lambda _: None,
) -> list[Shifted]:
    """Generate for prompts with each fragment's shift, and count the fragment.

    Args:
        model: the model.
        pairs: clean pairs, for the natural directions.
        prompts: none that the search has seen.
        names: the fragments.
        shifts: F,C.
        seed: of the noise, the same for all.
        watch: called with the share done; may raise.
    """
    contexts = model.contexts(prompts)
    keys = [(seed, place) for place in range(len(prompts))]
    plain = sampled(model, model.latents(contexts, keys)).counts()
    found = []
    for number, (name, shift) in enumerate(zip(names, shifts, strict=True)):
        made = sampled(model, model.latents(contexts + shift, keys))
        asking = natural_direction(model, pairs, name, float(shift.norm()))
        natural = -1
        if asking is not None:
            natural = sampled(model, model.latents(contexts + asking, keys)).counts()[name]
        found.append(
            Shifted(name, shift, made.counts()[name], plain[name], natural, len(prompts), made)
        )
        watch(number / len(names))
    return found


def siblings(found: Sequence[Shifted], one: Shifted) -> list[Shifted]:
    """The other fragments, less those that come along with this one or bring it along."""

    def mixed(first: Shifted, second: Shifted) -> bool:
        return first.made.counts()[second.fragment] > _MIXED * max(1, first.hits)

    return [
        other
        for other in found
        if other is not one and not mixed(one, other) and not mixed(other, one)
    ]
