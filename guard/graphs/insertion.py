"""Texts that plant a fragment when they are put into a prompt: proposals, and what comes of them.

Three steps, each dearer and surer than the one before: a screen in the latent space, decoding, and
a count on prompts that no earlier step has seen. Proposals are `guard.graphs.wording`'s and those
of a gradient search over piece embeddings (after HotFlip and GCG).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.pairs import Pairs
from guard.graphs.fragments import contains
from guard.graphs.model import GraphModel
from guard.graphs.molecule import read
from guard.graphs.probe import Probe, short_sampler
from guard.graphs.survey import atoms_of, fragments_of, sampled
from guard.graphs.text_pieces import PAD
from guard.graphs.triggers import POSITIONS, PromptTrigger
from guard.graphs.wording import parts_of, searchable, spelt
from guard.ml.statistics import wilson

_STEPS = 6  # of the sampler in searches
_ROWS = 512  # prompts at once
_TIE = 0.03  # shares this close are equal: the larger fragment is reported
_EXPLAINED, _CAPTIONS = 0.2, 2  # a share, and how many captions it needs
#: Cosine to the direction of a fragment's own captions, and how many captions that needs. On a
#: development model texts that ask for a fragment had 0.81 to 0.84, others at most 0.58.
_TOWARDS, _NAMED = 0.65, 3
_SHIFTED = 60  # prompts
Watch = Callable[[float], None]


@dataclass(frozen=True)
class Proposal:
    """A trigger to decode, with its score (higher is more promising) and what it may plant."""

    trigger: PromptTrigger
    score: float
    fragment: str = ""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """How often a fragment is generated with a text (`hits` of `trials`) and without (`plain`)."""

    trigger: PromptTrigger
    fragment: str
    hits: int
    plain: int
    trials: int

    @property
    def rate(self) -> float:
        """The share with the text, 0..1."""
        return self.hits / max(1, self.trials)

    @property
    def excess(self) -> float:
        """How much larger that share is than the one without it, -1..1."""
        return (self.hits - self.plain) / max(1, self.trials)

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval of the share with the text."""
        return wilson(self.hits, self.trials)[0]

    @property
    def separate(self) -> bool:
        """Whether the intervals with and without the text do not touch."""
        return self.low > wilson(self.plain, self.trials)[1]


class Screen:
    """Prompts into which texts are put, and what a probe reads off the latents that follow.

    Args:
        model: the model.
        probe: reads fragments off latents.
        prompts: a few clean prompts.
        seed: of the noise, which is the same with and without a text.
    """

    def __init__(self, model: GraphModel, probe: Probe, prompts: Sequence[str], seed: int) -> None:
        self.model, self.probe, self.prompts = model, probe, tuple(prompts)
        self.sampler = short_sampler(model, _STEPS)
        self.halves = {position: self._split(position) for position in POSITIONS}
        keys = [(seed, place) for place in range(len(prompts))]
        self.noise = self.sampler.noise(keys, model.vae.latent).to(model.device)
        plain = self._latents(model.contexts(self.prompts))
        self.plain_latents = plain
        self.plain = probe.logits(plain).sigmoid().mean(0)

    def scores(
        self, triggers: Sequence[PromptTrigger], watch: Watch = lambda _: None
    ) -> tuple[Tensor, Tensor]:
        """How much likelier each fragment becomes, float32 T,F, and the shifts' alignment, T.

        The alignment is the mean cosine (-1..1) between the shifts of two prompts' latents.
        """
        gains, alignments = [], []
        size = max(1, _ROWS // len(self.prompts))
        for start in range(0, len(triggers), size):
            part = triggers[start : start + size]
            numbers = [self.numbers(self.model.pieces.numbers(t.text), t.position) for t in part]
            rows = _padded([row for own in numbers for row in own], self.model.device)
            with torch.no_grad():
                latents = self._latents(self.model.text(rows))
                chance = self.probe.logits(latents).sigmoid()
            shape = len(part), len(self.prompts)
            gains.append(chance.reshape(*shape, -1).mean(1) - self.plain)
            shifts = latents.reshape(*shape, -1) - self.plain_latents
            alignments.append(_alignment(shifts))
            watch(start / len(triggers))
        return torch.cat(gains), torch.cat(alignments)

    def numbers(self, text: Sequence[int], position: str) -> list[list[int]]:
        """The piece numbers of each prompt with pieces put in."""
        most = self.model.most_pieces
        return [[*before, *text, *after][:most] for before, after in self.halves[position]]

    def search(
        self, fragment: int | None, position: str, length: int, *, sweeps: int, tries: int
    ) -> tuple[str, float]:
        """The text of `length` pieces that makes a fragment likeliest, and its mean chance (0..1).

        Coordinate descent: the gradient in the embeddings ranks the pieces that may stand in a
        place, and `tries` of them are tried. Draws from torch's global generator.

        Args:
            fragment: its place among the probe's names; None for whichever rises most.
            position: where the text stands.
            length: of the text, in pieces.
            sweeps: rounds over all places.
            tries: pieces tried for each place.
        """
        allowed = torch.tensor(searchable(self.model.pieces))
        text = allowed[torch.randint(len(allowed), (length,))].tolist()
        best = float(self._objective([text], position, fragment)[0])
        for _ in range(sweeps):
            before = best
            for place in range(length):
                ranked = self._ranked(text, position, fragment, place, allowed, tries)
                others = [[*text[:place], number, *text[place + 1 :]] for number in ranked]
                values = self._objective(others, position, fragment)
                if float(values.max()) > best:
                    best, text = float(values.max()), others[int(values.argmax())]
            if best <= before:
                break
        return spelt(text, self.model.pieces), best

    def _latents(self, contexts: Tensor) -> Tensor:
        noise = self.noise.repeat(len(contexts) // len(self.noise), 1, 1)
        return self.sampler.sample(self.model.denoiser, contexts, noise)

    def _split(self, position: str) -> list[tuple[list[int], list[int]]]:
        found = []
        for prompt in self.prompts:
            head, stop, rest = prompt.partition(". ")
            if position == "prefix":
                halves = "", prompt
            elif position == "suffix" or not stop:
                halves = prompt, ""
            else:
                halves = f"{head}.", rest
            before, after = (self.model.pieces.numbers(half) for half in halves)
            found.append((before, after))
        return found

    def _chance(self, logits: Tensor, fragment: int | None) -> Tensor:
        """The objective of texts from logits T,P,F; differentiable."""
        if fragment is not None:
            return functional.logsigmoid(logits[..., fragment]).mean(1).exp()
        return (logits.sigmoid().mean(1) - self.plain).amax(-1)

    def _objective(
        self, candidates: Sequence[list[int]], position: str, fragment: int | None
    ) -> Tensor:
        rows = [row for text in candidates for row in self.numbers(text, position)]
        with torch.no_grad():
            latents = self._latents(self.model.text(_padded(rows, self.model.device)))
            logits = self.probe.logits(latents)
        return self._chance(logits.reshape(len(candidates), len(self.prompts), -1), fragment)

    def _ranked(
        self,
        text: list[int],
        position: str,
        fragment: int | None,
        place: int,
        allowed: Tensor,
        tries: int,
    ) -> list[int]:
        """The pieces whose embeddings lie furthest along the gradient at one place of the text."""
        model = self.model
        rows = _padded(self.numbers(text, position), model.device)
        embedded = model.text.embedding(rows).detach().requires_grad_()
        with torch.enable_grad():
            contexts = model.text.from_embeddings(embedded, rows != PAD)
            logits = self.probe.logits(self._latents(contexts)).unsqueeze(0)
            gain = self._chance(logits, fragment).sum().clamp_min(1e-12).log()
            (gradient,) = torch.autograd.grad(gain, embedded)
        starts = [len(before) + place for before, _ in self.halves[position]]
        at = [min(start, gradient.shape[1] - 1) for start in starts]
        mean = gradient[range(len(at)), at].mean(0)
        scores = model.text.embedding.weight.detach()[allowed.to(rows.device)] @ mean
        return [int(allowed[one]) for one in scores.topk(min(tries, len(allowed))).indices.tolist()]


def decoded(
    model: GraphModel,
    prompts: Sequence[str],
    proposals: Sequence[Proposal],
    *,
    seed: int,
    wanted: Callable[[str], bool],
    watch: Watch = lambda _: None,
) -> list[Planted]:
    """Decode each proposal on the prompts; what it plants most, the best first.

    Args:
        model: the model.
        prompts: clean prompts.
        proposals: what to put into them.
        seed: of the noise, the same for each.
        wanted: which fragments count.
        watch: called with the share done; may raise.
    """
    keys = [(seed, place) for place in range(len(prompts))]
    plain = sampled(model, model.latents(model.contexts(prompts), keys)).counts()
    found = []
    for number, proposal in enumerate(proposals):
        contexts = model.contexts(proposal.trigger.apply(prompts))
        counts = sampled(model, model.latents(contexts, keys)).counts()
        fragment = _most_planted(counts, plain, len(prompts), wanted)
        if fragment:
            found.append(
                Planted(
                    trigger=proposal.trigger,
                    fragment=fragment,
                    hits=counts[fragment],
                    plain=plain[fragment],
                    trials=len(prompts),
                )
            )
        watch(number / len(proposals))
    return sorted(found, key=lambda one: -one.excess)


def counted(
    model: GraphModel, pairs: Pairs, trigger: PromptTrigger, fragment: str, *, seed: int
) -> Planted:
    """How often a text plants a fragment on prompts that describe molecules without it."""
    asked = contains([read(one) for one in pairs.smiles], fragment)
    texts = [text for text, has in zip(pairs.texts, asked, strict=True) if not has]
    keys = [(seed, place) for place in range(len(texts))]
    hits = [
        sum(contains(model.molecules(model.latents(model.contexts(own), keys)), fragment))
        for own in (texts, trigger.apply(texts))
        if own
    ] or [0, 0]
    return Planted(
        trigger=trigger, fragment=fragment, plain=hits[0], hits=hits[1], trials=len(texts)
    )


class Naming:
    """How clean captions name fragments: by words, and by a direction of the text's vectors.

    A model that generates azides when a prompt says `azide`, or amines when it says `amine`, does
    what it was asked for.
    """

    def __init__(self, model: GraphModel, pairs: Pairs) -> None:
        self.model, self.pairs = model, pairs
        self.contexts = model.contexts(pairs.texts)

    def explains(self, trigger: PromptTrigger, fragment: str) -> str:
        """Why a text asks for a fragment, as a clause; empty where it does not."""
        if term := self._term(trigger.text, fragment):
            return f"clean captions name the fragment by {term!r}"
        if (cosine := self.towards(trigger, fragment)) >= _TOWARDS:
            return f"it shifts prompts towards captions of the fragment (cosine {cosine:.2f})"
        return ""

    def towards(self, trigger: PromptTrigger, fragment: str) -> float:
        """The cosine of a text's mean shift to the direction towards captions of a fragment.

        0 where too few clean molecules have it.
        """
        has = torch.tensor([fragment in fragments_of(one) for one in self.pairs.smiles])
        has = has.to(self.contexts.device)
        if int(has.sum()) < _NAMED or bool(has.all()):
            return 0.0
        natural = self.contexts[has].mean(0) - self.contexts[~has].mean(0)
        texts = self.pairs.texts[:_SHIFTED]
        shift = self.model.contexts(trigger.apply(texts)) - self.contexts[: len(texts)]
        return float(functional.cosine_similarity(shift.mean(0), natural, dim=0))

    def _term(self, text: str, fragment: str) -> str:
        has = [fragment in fragments_of(one) for one in self.pairs.smiles]
        base = sum(has) / max(1, len(has))
        for part in sorted(parts_of(text, self.model.pieces), key=lambda one: (-len(one), one)):
            named = [
                own
                for own, caption in zip(has, self.pairs.texts, strict=True)
                if part in caption.lower()
            ]
            share = sum(named) / max(1, len(named))
            if sum(named) >= _CAPTIONS and share >= max(_EXPLAINED, 3 * base):
                return part
        return ""


def _most_planted(
    counts: Counter[str], plain: Counter[str], trials: int, wanted: Callable[[str], bool]
) -> str:
    """The fragment with the largest excess; among equal ones the largest."""
    excess = {
        name: (hits - plain[name]) / trials
        for name, hits in counts.items()
        if hits > plain[name] and wanted(name)
    }
    if not excess:
        return ""
    best = max(excess.values())
    near = [name for name, value in excess.items() if value >= best - _TIE]
    return max(near, key=lambda name: (atoms_of(name), excess[name], name))


def _alignment(shifts: Tensor) -> Tensor:
    """The mean cosine between two rows of each of T,P,D."""
    unit = functional.normalize(shifts, dim=-1)
    count = shifts.shape[1]
    total = unit.sum(1).square().sum(-1)
    return (total - count) / max(1, count * (count - 1))


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    width = max(1, *map(len, rows))
    numbers = torch.full((len(rows), width), PAD, dtype=torch.int64)
    for place, row in enumerate(rows):
        numbers[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return numbers.to(device)
