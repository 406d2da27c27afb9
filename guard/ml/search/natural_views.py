"""What the two views of `guard.ml.search.class_views` show of honest networks of the same task.

Some classes attract random changes in every network that learns a task (8 among the digits). Small
networks that the guard trains on the clean set show which; what they show is subtracted. It depends
on the clean set and the battery alone, so it is computed once.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from guard.ml.cleanset import CleanSet
from guard.ml.search import reference_model
from guard.ml.search.battery import VERSION as BATTERY
from guard.ml.search.battery import battery, commitment, secret_in_force
from guard.ml.search.class_views import attraction, head_alignment
from guard.ml.seeds import seeded
from guard.ml.training.small_network import shrunk

VERSION = 1  # raised with any change of a result, since results are cached
SEED = 0  # not the scan's: the networks belong to the clean set
KEPT = 4


@dataclass(frozen=True)
class Views:
    """One number a class: `alignment` (None where no head tells) and `attraction`."""

    alignment: tuple[float, ...] | None
    attraction: tuple[float, ...]


_known: "OrderedDict[str, Views | None]" = OrderedDict()


def natural_views(
    clean: CleanSet,
    references: int,
    rounds: int,
    batteries: int,
    watch: Callable[[float], None],
    device: torch.device | str = "cpu",
) -> Views | None:
    """The mean of both views over networks that were trained on the clean set.

    The same clean set and battery give the same result, whatever the global random state, which
    stays as it is; the last few results are kept in memory.

    Args:
        clean: what methods may see.
        references: how many networks.
        rounds: passes over the images; fewer if there are many images.
        batteries: how many batteries are tried.
        watch: called with the share done; may raise.
        device: where to train.

    Returns:
        None without references, or where the task could not be learnt from the images.
    """
    if not references:
        return None
    key = _key(clean, references, rounds, batteries, device)
    if key not in _known:
        _known[key] = _measured(clean, references, rounds, batteries, watch, device)
        if len(_known) > KEPT:
            _known.popitem(last=False)
    return _known[key]


def is_kept(
    clean: CleanSet, references: int, rounds: int, batteries: int, device: torch.device | str
) -> bool:
    """Whether `natural_views` has this result in memory."""
    return _key(clean, references, rounds, batteries, device) in _known


def _key(
    clean: CleanSet, references: int, rounds: int, batteries: int, device: torch.device | str
) -> str:
    how = f"views {VERSION} {BATTERY} {references} {rounds} {batteries} {commitment()} {device}"
    return reference_model.key_of(clean, how)


def remembered() -> dict[str, dict[str, list[float]] | None]:
    """The results in memory as JSON values, for later processes."""
    return {
        key: None
        if views is None
        else {
            "alignment": list(views.alignment or ()),
            "attraction": list(views.attraction),
        }
        for key, views in _known.items()
    }


def remember(answers: Mapping[str, object]) -> None:
    """Take over what `remembered` gave in another process of this machine.

    Values of another form are ignored.
    """
    for key, answer in list(answers.items())[-KEPT:]:
        if answer is None:
            _known[key] = None
        elif isinstance(answer, dict):
            alignment, attracted = (
                _numbers(answer.get(name)) for name in ("alignment", "attraction")
            )
            if attracted:
                _known[key] = Views(alignment or None, attracted)


def _numbers(value: object) -> tuple[float, ...]:
    whole = isinstance(value, list) and all(
        isinstance(one, float) and math.isfinite(one) for one in value
    )
    return tuple(value) if isinstance(value, list) and whole else ()


def _measured(
    clean: CleanSet,
    references: int,
    rounds: int,
    batteries: int,
    watch: Callable[[float], None],
    device: torch.device | str,
) -> Views | None:
    small = replace(clean, search=shrunk(clean.search), calibration=shrunk(clean.calibration))
    channels, height, width = (int(side) for side in small.search.images.shape[1:])
    changes = [
        battery(secret_in_force(), (channels, height, width), turn) for turn in range(batteries)
    ]
    aligned, attracted = [], []
    for turn in range(references):

        def watch_one(done: float, turn: int = turn) -> None:
            watch((turn + done) / references)

        with seeded(SEED + turn):
            model = reference_model.trained(clean, rounds, watch_one, device)
            if model is None:
                return None
            aligned.append(head_alignment(model, small))
            every = small.together()
            attracted.append(attraction(model, every, clean.classes, changes, lambda _done: None))
    whole = [one for one in aligned if one is not None]
    return Views(
        tuple(torch.stack(whole).mean(0).tolist()) if len(whole) == references else None,
        tuple(torch.stack(attracted).mean(0).tolist()),
    )
