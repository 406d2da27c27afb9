"""How fast a device passes images through a network: a probe of a second or less.

Batches grow until they are as large as those of the searches or the time is up, so that a large
network is timed on a few images and a small one on full batches.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.planned import Speed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of
from guard.ml.precision import repeatable, searching
from guard.ml.search.patches import PASS_IMAGES
from guard.ml.seeds import seeded
from guard.ml.suitability import channels_last
from guard.ml.training.small_network import BATCH, halved, small_network

MOST_SECONDS = 1.0
FIRST = 4  # images of the first batch
_TURNS = 3  # of a full batch; the fastest counts, since other work only ever slows one down

#: From a speed to the seconds that the probe may take before it must end.
Allowance = Callable[[Speed], float]


def _no_limit(_speed: Speed) -> float:
    return math.inf


def probe(
    model: nn.Module,
    shape: tuple[int, int, int],
    *,
    allowed: Allowance = _no_limit,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time forward passes, and forward and backward passes to the image, as searches run them.

    The model, and the state of every random generator, stay as they are.

    Args:
        model: takes float images N,C,H,W in [0, 1] and returns logits N,K.
        shape: C,H,W of an image.
        allowed: after each batch, the seconds that the probe may take in all, beside a second of
            the processor's time.
        clock: seconds that only go up.
    """
    own = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    device = device_of(own)
    if device.type == "cpu":
        channels_last(own)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator).to(device)

    def forward(images: Tensor) -> None:
        with torch.no_grad():
            own(images)

    def search(images: Tensor) -> None:
        images.requires_grad_()
        with torch.enable_grad():
            with searching(device):
                logits = own(images).float()
            with suppress(RuntimeError):  # no path to the image: a method will say so
                torch.autograd.grad(logits.logsumexp(1).sum(), images, allow_unused=True)

    with repeatable():
        most = PASS_IMAGES.get(device.type, 256)
        return _timed(forward, search, batch, most, device, allowed, clock)


def reference_speed(
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device,
    *,
    allowed: Allowance = _no_limit,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """As `probe`, of the small network that the guard itself trains on a clean set.

    `searched` is a step of its training.
    """
    with seeded(0):
        drawn = torch.randint(256, (2, *shape), dtype=torch.uint8)
        images = halved(drawn)
        own = small_network(Labelled(images, torch.arange(2)), classes).to(device).train()

    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> Tensor:
        return torch.rand(count, *images.shape[1:], generator=generator).to(device)

    def forward(inputs: Tensor) -> None:
        with torch.no_grad():
            own(inputs)

    def train(inputs: Tensor) -> None:
        with torch.enable_grad():
            labels = torch.zeros(len(inputs), dtype=torch.int64, device=device)
            cross_entropy(own(inputs), labels).backward()
        own.zero_grad(set_to_none=True)

    with repeatable():
        return _timed(forward, train, batch, BATCH, device, allowed, clock)


def _timed(
    forward: Callable[[Tensor], None],
    search: Callable[[Tensor], None],
    batch: Callable[[int], Tensor],
    most: int,
    device: torch.device,
    allowed: Allowance,
    clock: Callable[[], float],
) -> Speed:
    # On a busy machine a second of the clock may hold little work: there the processor's counts.
    busy = time.process_time if device.type == "cpu" else clock
    begun, worked = clock(), busy()
    # The first call of all sets the library up: it counts only where it takes all the time.
    found = _speed(forward, search, batch(1), device, clock)
    count, turns, first, ahead, more = min(FIRST, most), 0, True, 0.0, 0.0
    while turns < _TURNS:
        over = busy() - worked + more > MOST_SECONDS
        if over or clock() - begun + ahead > max(allowed(found), 0.0):
            break
        before = clock(), busy()
        speed = _speed(forward, search, batch(count), device, clock)
        found = speed if first else _faster(found, speed)
        first, turns = False, turns + (count == most)
        larger = min(most, 2 * count)
        ahead, more = (
            (now - then) * larger / count
            for now, then in zip((clock(), busy()), before, strict=True)
        )
        count = larger
    return found


def _speed(
    forward: Callable[[Tensor], None],
    search: Callable[[Tensor], None],
    images: Tensor,
    device: torch.device,
    clock: Callable[[], float],
) -> Speed:
    plain, both = (_seconds(run, images, device, clock) for run in (forward, search))
    return Speed(forward=plain * 1000 / len(images), searched=both * 1000 / len(images))


def _faster(one: Speed, other: Speed) -> Speed:
    return Speed(
        forward=min(one.forward, other.forward), searched=min(one.searched, other.searched)
    )


def _seconds(
    run: Callable[[Tensor], None],
    images: Tensor,
    device: torch.device,
    clock: Callable[[], float],
) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = clock()
    run(images)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(clock() - begun, 1e-9)
