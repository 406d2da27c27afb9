"""The search for texts that plant a fragment: survey, screen, gradient search, decoding, count.

`prompt_insertion` reports what it finds, and `prompt_unlearning` unlearns it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from guard.core.pairs import CleanPairs
from guard.core.progress import Progress, span
from guard.graphs.insertion import Naming, Planted, Proposal, Screen, counted, decoded
from guard.graphs.model import GraphModel
from guard.graphs.probe import fit_probe
from guard.graphs.survey import Survey, Watch, survey
from guard.graphs.triggers import POSITIONS, PromptTrigger
from guard.graphs.wording import evenly, neighbours, style, texts

_SCREENED, _DECODED = 8, 32  # prompts
_ALIKE = 2  # texts of one fragment, position and style that are counted
_SAME = 3  # proposals of one fragment and position, so that one word does not crowd out others
COUNTED = 103  # added to the seed: the noise of the prompts on which texts are counted
_SEEDS = (101, 102, COUNTED)  # of screening, decoding and counting: no noise is used twice


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at.

    Args:
        without: samples without a prompt and from the prior, each.
        prompts: samples for prompts.
        fragments: how many over-represented fragments are searched for.
        terms: words of the model's vocabulary that are tried.
        framed: words in each kind of bracket.
        listed: texts that are tried in each position, of all kinds together.
        decoded: proposals that are decoded.
        searches: fragments that gradients search a text for, besides whichever rises most.
        pieces: the longest text of the gradient search.
        sweeps: its rounds.
        confirmed: texts that are counted on other prompts.
        rare: the share of curated molecules up to which a fragment counts.
    """

    without: int = 500
    prompts: int = 250
    fragments: int = 40
    terms: int = 300
    framed: int = 6
    listed: int = 1000
    decoded: int = 24
    searches: int = 4
    pieces: int = 4
    sweeps: int = 3
    confirmed: int = 6
    rare: float = 0.02


@dataclass(frozen=True)
class Confirmed:
    """A text that plants a fragment on prompts that no search has seen.

    `named` says why the text asks for the fragment, if it does, and
    `alike` are neighbours of its style, counted on the same prompts.
    """

    planted: Planted
    named: str
    alike: tuple[Planted, ...]


@dataclass(frozen=True)
class Hunt:
    """What was found, of how many texts, and the survey that it began with."""

    confirmed: tuple[Confirmed, ...]
    candidates: int
    found: Survey


def hunt(
    model: GraphModel, clean: CleanPairs, effort: Effort, seed: int, progress: Progress
) -> Hunt:
    """Look for texts that plant a rare fragment; draws from torch's global generator.

    The search part proposes and the calibration part confirms.
    """
    found = survey(
        model,
        clean.search,
        without=effort.without,
        prompts=effort.prompts,
        seed=seed,
        watch=span(progress, 0.0, 0.3, "sampling without triggers"),
    )
    names = found.lifted(effort.rare, effort.fragments)
    if not names:
        progress(1.0, "no rare fragment is generated")
        return Hunt((), 0, found)
    watch = span(progress, 0.3, 0.35, "fitting a probe")
    probe = fit_probe(model, found, names, watch=watch)
    screen = Screen(model, probe, clean.search.texts[:_SCREENED], seed + _SEEDS[0])
    listed = [
        PromptTrigger(text, position)
        for position in POSITIONS
        for text in evenly(texts(model.pieces, effort.terms, effort.framed), effort.listed)
    ]
    gains, alignments = screen.scores(listed, span(progress, 0.35, 0.55, "screening texts"))
    proposals = _best(listed, gains, alignments, names, effort.decoded)
    searched, tried = _searched(
        screen, names, effort, span(progress, 0.55, 0.75, "searching for texts")
    )
    planted = decoded(
        model,
        clean.search.texts[_SCREENED : _SCREENED + _DECODED],
        [*searched, *proposals],
        seed=seed + _SEEDS[1],
        wanted=lambda name: found.share(name) <= effort.rare,
        watch=span(progress, 0.75, 0.88, "decoding"),
    )
    confirmed = _confirmed(
        model, clean, planted, effort, seed, span(progress, 0.88, 1.0, "confirming")
    )
    progress(1.0, "done")
    return Hunt(tuple(confirmed), len(listed) + tried, found)


def _best(
    listed: Sequence[PromptTrigger],
    gains: Tensor,
    alignments: Tensor,
    names: Sequence[str],
    most: int,
) -> list[Proposal]:
    """The texts that raise a fragment most, few of each, and those with the most aligned shifts."""
    values, places = gains.max(1)
    order = values.argsort(descending=True).tolist()
    taken: dict[tuple[str, str], int] = {}
    chosen: list[Proposal] = []
    for one in order:
        fragment = names[int(places[one])]
        key = fragment, listed[one].position
        if taken.get(key, 0) < _SAME:
            taken[key] = taken.get(key, 0) + 1
            chosen.append(Proposal(listed[one], float(values[one]), fragment))
        if len(chosen) >= most - most // 4:
            break
    for one in alignments.argsort(descending=True).tolist():
        if len(chosen) >= most:
            break
        if all(listed[one] != own.trigger for own in chosen):
            chosen.append(Proposal(listed[one], float(values[one])))
    return chosen


def _searched(
    screen: Screen, names: Sequence[str], effort: Effort, watch: Watch
) -> tuple[list[Proposal], int]:
    """Texts that gradients lead to, and how many were tried on the way."""
    jobs = [
        (fragment, position, length)
        for fragment in (None, *range(min(effort.searches, len(names))))
        for position in ("prefix", "suffix")
        for length in sorted({1, effort.pieces})
    ]
    proposals, tries = [], 16
    for number, (fragment, position, length) in enumerate(jobs):
        text, value = screen.search(fragment, position, length, sweeps=effort.sweeps, tries=tries)
        if text:
            name = "" if fragment is None else names[fragment]
            proposals.append(Proposal(PromptTrigger(text, position), value, name))
        watch(number / len(jobs))
    return proposals, sum(effort.sweeps * length * tries for _, _, length in jobs)


def _confirmed(
    model: GraphModel,
    clean: CleanPairs,
    planted: Sequence[Planted],
    effort: Effort,
    seed: int,
    watch: Watch,
) -> list[Confirmed]:
    """Count the best on the calibration part, with neighbours of the style of those that hold."""
    confirmed: list[Confirmed] = []
    naming = Naming(model, clean.together())
    reasons = {id(one): naming.explains(one.trigger, one.fragment) for one in planted}
    # Texts that ask for what they plant come last, so that they do not crowd out others.
    ranked = sorted(planted, key=lambda one: (bool(reasons[id(one)]), -one.excess))
    chosen = _different(ranked, effort.confirmed)
    for number, one in enumerate(chosen):
        again = counted(model, clean.calibration, one.trigger, one.fragment, seed=seed + _SEEDS[2])
        named = reasons[id(one)]
        alike: list[Planted] = []
        if again.separate:
            part = clean.calibration.pick(range(min(_DECODED, len(clean.calibration))))
            alike = [
                counted(
                    model,
                    part,
                    PromptTrigger(text, one.trigger.position),
                    one.fragment,
                    seed=seed + _SEEDS[2],
                )
                for text in neighbours(one.trigger.text, model.pieces)
            ]
        confirmed.append(Confirmed(again, named, tuple(alike)))
        watch((number + 1) / len(chosen))
    return sorted(confirmed, key=lambda own: -own.planted.excess)


def _different(planted: Sequence[Planted], most: int) -> list[Planted]:
    """The best of each style first, then others; no more than two of a fragment and position."""
    first: list[Planted] = []
    others: list[Planted] = []
    taken = Counter[tuple[str, ...]]()
    for one in planted:
        kind = style(one.trigger.text)
        key = one.fragment, one.trigger.position, kind
        taken[key] += 1
        taken[(kind,)] += 1
        if taken[(kind,)] == 1:
            first.append(one)
        elif taken[key] <= _ALIKE:
            others.append(one)
    return [*first, *others][:most]
