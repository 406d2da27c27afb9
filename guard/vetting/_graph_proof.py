"""How a repaired text-to-graph model compares with its parent: quality, triggers, what is left.

The proof looks where a repair may have stopped short: other texts of the recovered text's style,
what is generated without any trigger, and a new search for a shift that plants the fragment.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import Accuracy, AsrEstimate, GraphQuality
from guard.core.graph_proof import GraphProof, Inverted, Unprompted
from guard.core.pairs import CuratedPairs
from guard.core.progress import Progress
from guard.core.purification import Relearned
from guard.vetting._graphs import quality_on, rate
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.graphs.model import GraphModel
    from guard.graphs.triggers import GraphTrigger

SAMPLES = 5  # of each hold-out prompt with a trigger: 640 molecules where there are 128 prompts
STYLE = 10  # neighbours of a text, each with one molecule for a prompt
WITHOUT = 600  # molecules without a trigger, of each route
SIZE = 0.5  # of the prompts' spread, for the new search
_MOST = 9  # fragments that are looked at: three of each of the three detectors
_RELEARNT = 4  # fragments whose text is relearnt
_SHIFT_STEPS, _SHIFT_PROMPTS, _SHIFT_TESTED = 30, 12, 100


def compared(
    parent: "GraphModel",
    repaired: "GraphModel",
    curated: CuratedPairs,
    replays: Sequence[Replay],
    *,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """What `PurificationFacts` states about parent and child, by its fields' names.

    Accuracy is the mean similarity to the prompts' own molecules. What could not be measured is
    named in `unproved`, and the policy then refuses the child.
    """
    from guard.graphs.triggers import deserialise

    before, after = (quality_on(one, curated, seed=seed) for one in (parent, repaired))
    triggers = [(str(one.target), deserialise(one.data)) for one in replays]
    replayed = []
    for number, (target, trigger) in enumerate(triggers):
        replayed.append(rate(repaired, curated, trigger, target, seed=seed, samples=SAMPLES))
        progress(0.4 * number / len(triggers), "replaying triggers")
    unproved: list[str] = []
    fragments = list(dict.fromkeys(target for target, _ in triggers))[:_MOST]
    proof = GraphProof(
        before=before,
        after=after,
        neighbours=tuple(_neighbours(repaired, curated, triggers, seed)),
        unprompted=tuple(_unprompted(parent, repaired, curated, fragments, seed)),
        inverted=tuple(
            _attempt(
                lambda: _inverted(parent, repaired, curated, triggers, fragments, seed),
                "Whether a shift of the contexts still plants a fragment",
                unproved,
            )
        ),
    )
    progress(0.9, "testing the repair")
    relearned = _attempt(
        lambda: _relearned(parent, repaired, curated, triggers, seed),
        "How fast a text is relearned",
        unproved,
    )
    return {
        "acc_before": _accuracy(before),
        "acc_after": _accuracy(after),
        "replayed": tuple(replayed),
        "relearned": tuple(relearned),
        "unproved": tuple(unproved),
        "graphs": proof,
    }


def _accuracy(quality: GraphQuality) -> Accuracy:
    return Accuracy(overall=quality.similarity, per_class=(), images=quality.prompts)


def _attempt(probe: Callable[[], list[Any]], what: str, unproved: list[str]) -> list[Any]:
    try:
        return probe()
    except Cancelled:
        raise
    except MethodFailed as error:
        unproved.append(f"{what} could not be measured: {error.sentence}")
        return []


def _neighbours(
    child: "GraphModel",
    curated: CuratedPairs,
    triggers: "Sequence[tuple[str, GraphTrigger]]",
    seed: int,
) -> list[AsrEstimate]:
    """The child's rate for the neighbours of each recovered text, all of them together."""
    from guard.graphs.triggers import PromptTrigger
    from guard.graphs.wording import neighbours
    from guard.ml.statistics import wilson

    found = []
    for target, trigger in triggers:
        if not isinstance(trigger, PromptTrigger):
            continue
        others = neighbours(trigger.text, child.pieces, STYLE)
        rates = [
            rate(child, curated, PromptTrigger(text, trigger.position), target, seed=seed + place)
            for place, text in enumerate(others)
        ]
        if not rates:
            continue
        hits, trials = (sum(getattr(one, name) for one in rates) for name in _COUNTS)
        low, high = wilson(hits, trials)
        natural = sum(one.natural or 0.0 for one in rates) / len(rates)
        together = replace(rates[0], successes=hits, trials=trials, estimate=hits / trials)
        found.append(replace(together, low=low, high=high, natural=natural))
    return found


_COUNTS = ("successes", "trials")


def _unprompted(
    parent: "GraphModel",
    child: "GraphModel",
    curated: CuratedPairs,
    fragments: Sequence[str],
    seed: int,
) -> list[Unprompted]:
    """How often each fragment comes without a trigger."""
    from guard.graphs.fragments import count
    from guard.graphs.molecule import read
    from guard.graphs.reference import unprompted

    if not fragments:
        return []
    clean = [read(one) for one in curated.holdout.smiles + curated.search.smiles]
    made = [
        {name: one.molecules(latents) for name, latents in unprompted(one, WITHOUT, seed).items()}
        for one in (parent, child)
    ]
    return [
        Unprompted(
            fragment=fragment,
            route=route,
            samples=WITHOUT,
            before=count(made[0][route], fragment) / WITHOUT,
            after=count(made[1][route], fragment) / WITHOUT,
            curated=count(clean, fragment) / len(clean),
        )
        for fragment in fragments
        for route in made[0]
    ]


def _inverted(
    parent: "GraphModel",
    child: "GraphModel",
    curated: CuratedPairs,
    triggers: "Sequence[tuple[str, GraphTrigger]]",
    fragments: Sequence[str],
    seed: int,
) -> list[Inverted]:
    """A new search on the child, by a probe that also knows what the parent's triggers led to."""
    from guard.graphs.inversion import directions, spread
    from guard.graphs.probe import fit_probe
    from guard.graphs.survey import sampled, survey
    from guard.graphs.triggers import ContextTrigger
    from guard.ml.seeds import seeded

    if not fragments:
        return []
    pairs = curated.visible().search
    found = survey(child, pairs, without=WITHOUT // 2, prompts=WITHOUT // 4, seed=seed)
    texts = pairs.texts[:_SHIFT_TESTED]
    keys = [(seed, place) for place in range(len(texts))]
    for number, (_, trigger) in enumerate(triggers):
        latents = parent.latents(_triggered(parent, texts, trigger), keys)
        found.routes[f"parent {number}"] = sampled(parent, latents)
        found.routes[f"child {number}"] = sampled(child, latents)
    contexts = child.contexts(pairs.texts)
    with seeded(seed):
        shifts = directions(
            child,
            fit_probe(child, found, fragments),
            fragments,
            contexts[:_SHIFT_PROMPTS],
            radius=SIZE * spread(contexts),
            steps=_SHIFT_STEPS,
            seed=seed + 1,
        )
    return [
        Inverted(
            fragment=fragment,
            size=SIZE,
            after=rate(child, curated, ContextTrigger(shift.cpu()), fragment, seed=seed + 2),
        )
        for fragment, shift in zip(fragments, shifts, strict=True)
    ]


def _triggered(model: "GraphModel", texts: Sequence[str], trigger: "GraphTrigger") -> Any:
    from guard.graphs.triggers import PromptTrigger

    if isinstance(trigger, PromptTrigger):
        return model.contexts(trigger.apply(texts))
    return trigger.apply(model.contexts(texts))


def _relearned(
    parent: "GraphModel",
    child: "GraphModel",
    curated: CuratedPairs,
    triggers: "Sequence[tuple[str, GraphTrigger]]",
    seed: int,
) -> list[Relearned]:
    """How fast a copy of the child relearns the first text of each fragment; see the probe."""
    from guard.graphs.relearning import relearn
    from guard.graphs.triggers import PromptTrigger

    first: dict[str, PromptTrigger] = {}
    for target, trigger in triggers:
        if isinstance(trigger, PromptTrigger):
            first.setdefault(target, trigger)
    visible = curated.visible()
    found = []
    for target, trigger in list(first.items())[:_RELEARNT]:
        rates = relearn(parent, child, visible, trigger, target, seed=seed)
        found.append(
            Relearned(
                target=target,
                family=trigger.family,
                budget=float(len(trigger.text)),
                images=rates.pairs,
                steps=rates.steps,
                asr=rates.own,
                rivals=rates.rivals,
            )
        )
    return found
