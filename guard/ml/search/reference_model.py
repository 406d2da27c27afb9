"""A trusted reference: a small network that the guard itself trains on the clean set.

Some classes of a task are reached by smaller triggers than others in every honest model. One honest
model of the same task shows which, so the part that the task explains can be removed before a
model's classes are compared with each other. The reference needs no model from outside: the clean
set is enough, since only the order of the classes matters, not the network's accuracy.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy
from guard.ml.search.multistart import several_searches
from guard.ml.search.patches import PatchEffort
from guard.ml.seeds import seeded
from guard.ml.training.small_network import learn, shrunk, small_network

VERSION = 1  # raised with any change of a result, since results are cached
SEED = 0  # not the scan's: the reference belongs to the clean set
MOST_SEEN = 30_000  # images in training over all passes: a large clean set gets fewer passes
LEAST_LEARNT = 0.5  # accuracy on the training images
KEPT = 4
_known: "OrderedDict[str, tuple[float, ...] | None]" = OrderedDict()


def log_norms(
    clean: CleanSet,
    rounds: int,
    effort: PatchEffort,
    watch: Callable[[float], None],
    device: torch.device | str = "cpu",
    again: int = 0,
) -> tuple[float, ...] | None:
    """The log size of the patch that each class needs in a network trained on the clean set.

    The network is trained on the visible parts. The same clean set gives the same result, whatever
    the global random state, which stays as it is; the last few results are kept in memory.

    Args:
        clean: what methods may see.
        rounds: passes over the images; fewer if there are many images.
        effort: the length of the first search for patches.
        watch: called with the share done; may raise.
        device: where to train.
        again: the number of further searches, as in `guard.ml.search.multistart`.

    Returns:
        K logs of sizes in pixels, or None if the task could not be learnt from the images.
    """
    key = _key(clean, rounds, effort, device, again)
    if key not in _known:
        with seeded(SEED):
            _known[key] = _asked(clean, rounds, effort, again, watch, device)
        if len(_known) > KEPT:
            _known.popitem(last=False)
    return _known[key]


def is_kept(
    clean: CleanSet,
    rounds: int,
    effort: PatchEffort,
    device: torch.device | str = "cpu",
    again: int = 0,
) -> bool:
    """Whether `log_norms` has this result in memory."""
    return _key(clean, rounds, effort, device, again) in _known


def _key(
    clean: CleanSet, rounds: int, effort: PatchEffort, device: torch.device | str, again: int
) -> str:
    return key_of(clean, f"{rounds} {effort} {again} {device}")


def remembered() -> dict[str, list[float] | None]:
    """The results in memory as JSON values, for later processes.

    The keys identify clean set, search, device and version.
    """
    return {key: None if answer is None else list(answer) for key, answer in _known.items()}


def remember(answers: Mapping[str, object]) -> None:
    """Take over the results that `remembered` gave in another process of this machine.

    Values of another form are ignored.
    """
    for key, answer in list(answers.items())[-KEPT:]:
        if answer is None:
            _known[key] = None
        elif isinstance(answer, list) and all(
            isinstance(one, float) and math.isfinite(one) for one in answer
        ):
            _known[key] = tuple(answer)


def forget() -> None:
    """Forget all results, so that time measurements start afresh."""
    _known.clear()


def _asked(
    clean: CleanSet,
    rounds: int,
    effort: PatchEffort,
    again: int,
    watch: Callable[[float], None],
    device: torch.device | str,
) -> tuple[float, ...] | None:
    frozen = trained(clean, rounds, lambda done: watch(0.5 * done), device)
    if frozen is None:
        return None
    _, logs = several_searches(
        frozen,
        shrunk(clean.search),
        torch.arange(clean.classes),
        effort,
        again,
        lambda done: watch(0.5 + 0.5 * done),
    )
    return tuple(logs)


def trained(
    clean: CleanSet, rounds: int, watch: Callable[[float], None], device: torch.device | str
) -> nn.Module | None:
    """A small network that has learnt the visible parts, in eval mode and frozen.

    Its start and the order of images come from torch's global generator.

    Args:
        clean: what methods may see; images that are too large are shrunk.
        rounds: passes over the images; fewer if there are many images.
        watch: called with the share done; may raise.
        device: where to train.

    Returns:
        None if the task could not be learnt from the images.
    """
    search, calibration = shrunk(clean.search), shrunk(clean.calibration)
    every = Labelled(
        torch.cat([search.images, calibration.images]),
        torch.cat([search.labels, calibration.labels]),
    )
    model = small_network(every, clean.classes).to(device).train()
    passes = max(1, min(rounds, MOST_SEEN // len(every)))
    try:
        learn(model, every, rounds=passes, progress=lambda done, _note="": watch(done))
    except MethodFailed as error:
        if error.code != "non_finite":  # out of time, for instance
            raise
        return None  # the guard's own network is at fault, not the model that is examined
    if not accuracy(model, every, clean.classes).overall >= LEAST_LEARNT:
        return None
    return model.eval().requires_grad_(requires_grad=False)


def key_of(clean: CleanSet, how: str) -> str:
    """A key of what a clean set alone gives: its visible parts, and `how` it was computed."""
    found = hashlib.sha256(f"{VERSION} {clean.classes} {how} {clean.search.images.shape}".encode())
    for part in (clean.search, clean.calibration):
        for tensor in (part.images, part.labels):
            found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()
