"""Two views of a network's classes that follow no gradient and search for no trigger.

Head alignment: a backdoor's target is reached in two ways, by its own images and by the trigger, so
that its row of the head is less aligned with its own class mean than its siblings' rows are with
theirs (neural collapse's self-duality; arXiv 2411.12914).

Attraction: a target absorbs random changes of images in general, more than its siblings do; how
much more is averaged over the families of a battery (`guard.ml.search.battery`).

Each view is one number a class, larger for a more suspicious one. The numbers are comparable only
among the classes of one network, so that no population is needed: a class is tested against its
siblings by a t test that leaves it out, and the views are combined by Stouffer's method (Fisher's
would let one natural outlier of one view outvote the other).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import BATCH, device_of
from guard.ml.networks.dataflow import with_features
from guard.ml.networks.heads import layer_of
from guard.ml.search.battery import Change

LEAST_CLASSES = 7  # with fewer siblings their spread is not known well enough
LEAST_IMAGES = 100  # for class means; with 40 the alignment is noise
MOST_IMAGES = 500
LEAST_SPREAD = 0.25  # of the logarithm of a class's share under one family of changes
OFFSET = 0.02  # added to the shares: none and one in a hundred are much the same
MOST_Z = 8.0
FEW_CLASSES, FEW_EACH, EACH = 12, 6, 3  # images of each class, with up to 12 classes and with more

Watch = Callable[[float], None]


@torch.no_grad()
def head_alignment(model: nn.Module, clean: CleanSet) -> Tensor | None:
    """How badly each row of the head is aligned with its class mean, float64 K.

    With F the head's inputs and W its rows, s_k the standard deviation of F_k over all images,
    V the rows less their mean, Z_ck the class means less their mean in units of s_k:
    h_c = -atanh corr_k(V_ck s_k, Z_ck). It does not depend on the scale of features, of single
    rows, nor on a vector that is added to all rows.

    Draws from torch's global CPU generator.

    Returns:
        None where no head is found, or where fewer than `LEAST_IMAGES` images or a class with
        fewer than two of them would make it noise.

    Raises:
        MethodFailed: a feature or a weight is not finite.
    """
    data = clean.together()
    data = data.pick(torch.randperm(len(data))[:MOST_IMAGES])
    counts = torch.bincount(data.labels, minlength=clean.classes)
    found = layer_of(model, clean)
    if found is None or len(data) < LEAST_IMAGES or int(counts.min()) < 2:
        return None
    layer, (weight, _) = found
    device = device_of(model)
    features = torch.cat(
        [
            with_features(model, layer, images)[1].double().cpu()
            for images, _ in data.batches(BATCH, device=device)
        ]
    )
    rows = weight.detach().double().cpu().flatten(1)
    if rows.shape[1] != features.shape[1]:
        return None
    if not bool(torch.isfinite(features).all() and torch.isfinite(rows).all()):
        raise MethodFailed("The last layer's inputs or weights are not finite.", code="non_finite")
    return _misalignment(rows, features, data.labels)


def _misalignment(rows: Tensor, features: Tensor, labels: Tensor) -> Tensor | None:
    """`head_alignment` of rows K,D and features N,D, float64; None where no feature varies."""
    spread = features.std(0)
    alive = spread > 1e-6 * float(spread.max())
    if int(alive.sum()) < 3:
        return None
    rows, features, spread = rows[:, alive], features[:, alive], spread[alive]
    means = torch.stack([features[labels == label].mean(0) for label in range(len(rows))])
    ahead = (rows - rows.mean(0)) * spread
    seen = (means - means.mean(0)) / spread
    ahead, seen = (part - part.mean(1, keepdim=True) for part in (ahead, seen))
    length = (ahead.norm(dim=1) * seen.norm(dim=1)).clamp(min=1e-12)
    return -torch.atanh(((ahead * seen).sum(1) / length).clamp(-0.999, 0.999))


@torch.no_grad()
def attraction(
    model: nn.Module,
    data: Labelled,
    classes: int,
    batteries: Sequence[Mapping[str, Sequence[Change]]],
    watch: Watch,
) -> Tensor:
    """How much each class absorbs random changes, against its siblings, float64 K.

    With S_fc the mean over the changes of family f of the share of images of other classes that
    are predicted as c, and T_fc the t statistic of log(S_fc + 0.02) among the classes: the mean of
    T_fc over families and batteries.

    Draws from torch's global CPU generator: each battery is tried on other images.

    Args:
        model: takes float images N,C,H,W in [0, 1].
        data: images uint8 N,C,H,W with their labels.
        classes: K, at least three.
        batteries: changes by family, as `guard.ml.search.battery.battery` gives them.
        watch: called with the share done, once a family; may raise.

    Raises:
        MethodFailed: a logit is not finite.
    """
    each, device = FEW_EACH if classes <= FEW_CLASSES else EACH, device_of(model)
    order = data.pick(torch.randperm(len(data)))
    total, parts = torch.zeros(classes, dtype=torch.float64), 0
    count = sum(len(families) for families in batteries)
    for turn, families in enumerate(batteries):
        some = _some_of_each(order, classes, each, turn)
        images, labels = some.floats(device), some.labels.to(device)
        for changes in families.values():
            shares = torch.stack(
                [_absorbed(model, change(images), labels, classes) for change in changes]
            ).mean(0)
            total += torch.tensor(
                against_siblings((shares + OFFSET).log().tolist(), floor=LEAST_SPREAD)
            )
            parts += 1
            watch(parts / count)
    return total / max(1, parts)


def _some_of_each(data: Labelled, classes: int, each: int, turn: int) -> Labelled:
    """`each` images of every class, others on each turn as long as there are any."""
    chosen = []
    for label in range(classes):
        own = torch.nonzero(data.labels == label).flatten()
        first = turn * each if len(own) >= (turn + 1) * each else 0
        chosen.append(own[first : first + each])
    return data.pick(torch.cat(chosen))


def _absorbed(model: nn.Module, images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The share of the images of other classes that go to each class, float64 K on the CPU."""
    logits = torch.cat([model(part) for part in images.split(BATCH)])
    if not bool(torch.isfinite(logits).all()):
        raise MethodFailed(
            "The model gives logits that are not finite; it cannot be measured.", code="non_finite"
        )
    predicted = logits.argmax(1)
    wrong = torch.bincount(predicted[predicted != labels], minlength=classes)
    others = (len(labels) - torch.bincount(labels, minlength=classes)).clamp(min=1)
    return (wrong.double() / others.double()).cpu()


def against_siblings(values: Sequence[float], *, floor: float = 0.0) -> list[float]:
    """The t statistic of each of K values against the others, which leaves it out.

    t_c = (v_c - mean of the others) / (sd of the others * sqrt(1 + 1 / (K - 1))), with the sd at
    least `floor`. All zero where the values do not vary.

    Raises:
        ValueError: fewer than three values, or one is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) < 3 or not np.isfinite(data).all():
        raise ValueError("A comparison with siblings needs at least three finite values.")
    found = []
    for place, value in enumerate(data):
        others = np.delete(data, place)
        spread = max(float(others.std(ddof=1)), floor, 1e-9 * max(1.0, float(np.abs(data).max())))
        found.append(float((value - others.mean()) / (spread * math.sqrt(1 + 1 / len(others)))))
    return found


def deviates(values: Sequence[float]) -> list[float]:
    """Each value's t statistic among its siblings as a standard normal deviate, within +-8."""
    points = against_siblings(values)
    tails = special.stdtr(len(points) - 2, -np.asarray(points))
    return [float(min(max(z, -MOST_Z), MOST_Z)) for z in -special.ndtri(tails)]


def together(views: Sequence[Sequence[float]]) -> list[float]:
    """Stouffer's combination of several views' deviates, one for each class."""
    scale = math.sqrt(len(views))
    return [sum(own) / scale for own in zip(*views, strict=True)]


def p_of(deviate: float, classes: int) -> float | None:
    """P(the largest of K independent deviates is at least this large); None for too few classes."""
    if classes < LEAST_CLASSES:
        return None
    return float(-math.expm1(classes * float(special.log_ndtr(deviate))))
