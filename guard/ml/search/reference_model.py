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
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy
from guard.ml.networks import architectures
from guard.ml.search.multistart import several_searches
from guard.ml.search.patches import PatchEffort
from guard.ml.seeds import seeded
from guard.ml.suitability import channels_last
from guard.ml.training.fit import fit

VERSION = 1  # raised with any change of a result, since results are cached
SEED = 0  # not the scan's: the reference belongs to the clean set
LARGEST = 64  # pixels a side; larger images are halved until they fit
RATE, DECAY, SMOOTHING, BATCH, SHIFT = 3e-3, 1e-3, 0.05, 32, 2
MOST_SEEN = 30_000  # images in training over all passes: a large clean set gets fewer passes
LEAST_LEARNT = 0.5  # accuracy on the training images
KEPT, PART = 4, 256
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
    key = _key(clean, f"{rounds} {effort} {again} {device}")
    if key not in _known:
        with seeded(SEED):
            _known[key] = _asked(clean, rounds, effort, again, watch, device)
        if len(_known) > KEPT:
            _known.popitem(last=False)
    return _known[key]


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
    search, calibration = _shrunk(clean.search), _shrunk(clean.calibration)
    every = Labelled(
        torch.cat([search.images, calibration.images]),
        torch.cat([search.labels, calibration.labels]),
    )
    model = _fresh(every, clean.classes).to(device).train()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        down, across = (int(step) for step in torch.randint(-SHIFT, SHIFT + 1, (2,)))
        return cross_entropy(
            model(images.roll((down, across), (2, 3))), labels, label_smoothing=SMOOTHING
        )

    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    passes = max(1, min(rounds, MOST_SEEN // len(every)))
    try:
        fit(
            model,
            every,
            loss,
            optimiser,
            rounds=passes,
            batch=BATCH,
            decay=True,
            progress=lambda done, _note="": watch(0.5 * done),
        )
    except MethodFailed as error:
        if error.code != "non_finite":  # out of time, for instance
            raise
        return None  # the guard's own network is at fault, not the model that is examined
    if not accuracy(model, every, clean.classes).overall >= LEAST_LEARNT:
        return None
    frozen = model.eval().requires_grad_(requires_grad=False)
    _, logs = several_searches(
        frozen,
        search,
        torch.arange(clean.classes),
        effort,
        again,
        lambda done: watch(0.5 + 0.5 * done),
    )
    return tuple(logs)


def _fresh(data: Labelled, classes: int) -> nn.Module:
    channels, height, width = data.images.shape[1:]
    pixels = data.images.float() / 255
    manifest = Manifest(
        architecture="cifar_resnet",
        num_classes=classes,
        input_size=(channels, height, width),
        mean=(float(pixels.mean()),) * channels,
        std=(max(float(pixels.std()), 1e-3),) * channels,
        model_args={"depths": [1, 1, 1], "width": 8},
    )
    model = architectures.wrap(manifest, architectures.build(manifest))
    channels_last(model)
    return model


def _shrunk(data: Labelled) -> Labelled:
    """Shrink images to at most `LARGEST` a side, a few at a time.

    As floats, a large set would fill the memory.
    """
    return Labelled(torch.cat([_halved(part) for part in data.images.split(PART)]), data.labels)


def _halved(images: Tensor) -> Tensor:
    while max(images.shape[-2:]) > LARGEST:
        images = avg_pool2d(images.float(), 2, ceil_mode=True).round().to(torch.uint8)
    return images


def _key(clean: CleanSet, how: str) -> str:
    found = hashlib.sha256(f"{VERSION} {clean.classes} {how} {clean.search.images.shape}".encode())
    for part in (clean.search, clean.calibration):
        for tensor in (part.images, part.labels):
            found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()
