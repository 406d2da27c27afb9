"""Small-sample statistics of detectors: outlying classes, and confidence intervals of shares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special  # not stats, whose import takes half a second

#: Log norms are accurate to about 5 %: two optimisations of the same class differ by that much.
#: Without this floor, siblings that happen to agree (for instance all censored at one value) would
#: make any difference "significant".
LEAST_SPREAD = 0.05


class LeaveOneOut(NamedTuple):
    """The test of the most extreme value against the others; `p` in 0..1, `fold` a ratio."""

    position: int
    t: float
    p: float
    fold: float


@dataclass(frozen=True, kw_only=True)
class ClassTest:
    """The test of one class against the classes that were not declared outliers.

    `p` (0..1) is Bonferroni-corrected over the classes; `fold` is exp(mean of the others - value).
    """

    t: float
    p: float
    fold: float
    outlier: bool


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share, within [0, 1]; (0, 1) when there are no trials.

    Raises:
        ValueError: `successes` is not in 0..`trials`.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes of {trials} trials are not a share.")
    if trials == 0:
        return 0.0, 1.0
    z, share = float(special.ndtri(0.5 + 0.5 * confidence)), successes / trials
    width = 2 * (trials + z**2)
    centre = (2 * successes + z**2) / width
    reach = z * math.sqrt(4 * trials * share * (1 - share) + z**2) / width
    return (
        0.0 if successes == 0 else centre - reach,
        1.0 if successes == trials else centre + reach,
    )


def clustered_wilson(
    hits: Sequence[int], each: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a share whose trials come in clusters, as molecules of one prompt do.

    The trials are counted as the independent ones that would leave the same spread of the clusters'
    shares (the design effect); never as more than there are. Without a hit or without a miss
    nothing shows a spread, and all of them count.

    Args:
        hits: of each cluster.
        each: trials of each cluster.
        confidence: of the interval, 0..1.

    Returns:
        Low and high, within [0, 1]; (0, 1) when there are no trials.

    Raises:
        ValueError: a cluster has more hits than trials.
    """
    found, trials = sum(hits), each * len(hits)
    if any(not 0 <= own <= each for own in hits):
        raise ValueError(f"A cluster has other than 0..{each} hits.")
    if each <= 1 or len(hits) < 2 or found in (0, trials):
        return wilson(found, trials, confidence)
    rate = found / trials
    spread = float(np.var([own / each for own in hits], ddof=1)) / len(hits)
    worth = trials / max(1.0, spread * trials / (rate * (1 - rate)))
    z = float(special.ndtri(0.5 + confidence / 2))
    centre, weight = rate + z * z / (2 * worth), 1 + z * z / worth
    half = z * math.sqrt(rate * (1 - rate) / worth + (z / (2 * worth)) ** 2)
    return max(0.0, (centre - half) / weight), min(1.0, (centre + half) / weight)


def leave_one_out(
    values: Sequence[float], *, low_side: bool = True, floor: float = LEAST_SPREAD
) -> LeaveOneOut:
    """Test the lowest (or highest) value against the rest with a t test that leaves it out.

    T = (mean of the others - value) / (sd of the others * sqrt(1 + 1/(n-1))), and the
    Bonferroni-corrected p = min(1, n * P(t_{n-2} > T)). The test is exact for one outlier among
    normal values; p(T) is a monotone function of Grubbs' statistic.

    Args:
        values: n >= 3 finite numbers on a log scale.
        low_side: test the lowest value; otherwise the highest.
        floor: lower bound of the standard deviation.

    Raises:
        ValueError: fewer than three values, or one is not finite.
    """
    data = _checked(values, low_side=low_side)
    index = int(np.argmin(data))
    t, p, fold = _against(data[index], np.delete(data, index), tests=len(data), floor=floor)
    return LeaveOneOut(index, t, p, fold)


def low_outliers(
    values: Sequence[float],
    *,
    alpha: float = 0.01,
    most: int | None = None,
    low_side: bool = True,
    floor: float = LEAST_SPREAD,
) -> list[ClassTest]:
    """Find up to `most` low outliers with the one-sided generalised ESD test (Rosner, 1983).

    The lowest value is tested as in `leave_one_out` and removed, then the next, `most` times, so
    that no outlier masks another. The i-th removed class has p = the least p of steps i, i+1, ...:
    it is declared an outlier at level alpha if its own or a later step is significant. The reported
    t and fold compare a class with all classes that were not declared.

    Args:
        values: n >= 5 finite numbers on a log scale.
        alpha: level of the whole test: the chance of declaring an outlier when there is none.
        most: the largest number of outliers; n // 4 by default, at least 1.
        low_side: look for low outliers; otherwise for high ones.
        floor: lower bound of the standard deviation.

    Returns:
        One test for each value, in the order of `values`.

    Raises:
        ValueError: fewer than five values, or one is not finite.
    """
    data = _checked(values, low_side=low_side)
    count = len(data)
    if count < 5:
        raise ValueError(f"{count} values are too few to find an outlier; at least 5 are needed.")
    most = max(1, count // 4) if most is None else most
    order = np.argsort(data, kind="stable")
    steps = []
    for removed in range(most):
        rest = data[order[removed:]]
        steps.append(_against(rest[0], rest[1:], tests=len(rest), floor=floor)[1])
    adjusted = [min(steps[start:]) for start in range(most)]
    declared = [int(order[step]) for step in range(most) if adjusted[step] <= alpha]
    tests = []
    for index in range(count):
        others = [other for other in range(count) if other != index and other not in declared]
        t, p, fold = _against(data[index], data[others], tests=count, floor=floor)
        rank = int(np.flatnonzero(order == index)[0])
        outlier = index in declared
        tests.append(
            ClassTest(t=t, p=adjusted[rank] if rank < most else p, fold=fold, outlier=outlier)
        )
    return tests


LEAST_FOR_LINE = 7  # classes; a line through fewer siblings follows every one of them
SURE = 0.01


@dataclass(frozen=True)
class Apart:
    """The test of one class against the value that its siblings predict for it.

    `gap` is predicted minus actual value, `p` (0..1) is one-sided and for this class alone.
    """

    t: float
    p: float
    gap: float


def apart(
    values: Sequence[float],
    *,
    explained: Sequence[float] | None = None,
    most: int | None = None,
    low_side: bool = True,
    floor: float = LEAST_SPREAD,
) -> list[Apart]:
    """Test each value against a prediction from the others.

    The prediction is the others' mean, or their regression line over a covariate. A class that is
    easily mistaken for others has a larger margin in honest models too; the line corrects for that.
    A slope of the wrong sign counts as zero. The p values are those of single classes, not
    corrected for the number of classes: the policy combines the p values of several methods.

    Up to `most` classes that are outliers at `SURE` after correction, alone or once others are left
    out, do not mask one another: no class is compared with them.

    Args:
        values: n >= 5 finite numbers; n >= 7 with a covariate.
        explained: a covariate that is larger for a class whose value is expected to be more extreme
            on the tested side.
        most: the largest number of outliers; n // 4 by default, at least 1.
        low_side: whether low values are the suspicious ones.
        floor: lower bound of the standard deviation.

    Raises:
        ValueError: too few values, or one is not finite.
    """
    data = _checked(values, low_side=low_side)
    along = None if explained is None else -_checked(explained, low_side=True)
    if len(data) < (5 if along is None else LEAST_FOR_LINE):
        raise ValueError(f"{len(data)} values are too few to predict what a class should be like.")
    left, out, sure = list(range(len(data))), [], 0
    for _ in range(max(1, len(data) // 4) if most is None else most):
        tests = {
            row: _expected(data, along, row, [other for other in left if other != row], floor)
            for row in left
        }
        lowest = min(left, key=lambda row: tests[row].p)
        left.remove(lowest)
        out.append(lowest)
        if (len(left) + 1) * tests[lowest].p <= SURE:
            sure = len(out)
    declared = out[:sure]
    return [
        _expected(
            data,
            along,
            row,
            [other for other in range(len(data)) if other != row and other not in declared],
            floor,
        )
        for row in range(len(data))
    ]


def _expected(
    data: np.ndarray, along: np.ndarray | None, row: int, others: list[int], floor: float
) -> Apart:
    """How far `data[row]` lies below the value that `others` predict."""
    known = data[others]
    slope, far, terms = 0.0, 0.0, 1
    left = known - known.mean()
    if along is not None:
        where = along[others] - along[others].mean()
        width = float((where**2).sum())
        terms = 2
        if width > 0:
            slope = max(0.0, float((where * left).sum()) / width)
            left = left - slope * where
            far = float(along[row] - along[others].mean())
    spread = max(math.sqrt(float((left**2).sum()) / (len(others) - terms)), floor)
    reach = 1 + 1 / len(others) + (far**2 / width if far else 0.0)
    gap = float(known.mean() + slope * far - data[row])
    t = gap / (spread * math.sqrt(reach))
    return Apart(t=t, p=_t_tail(t, len(others) - terms), gap=gap)


def angles(successes: Sequence[int], trials: Sequence[int]) -> list[float]:
    """Transform shares to arcsin(sqrt(share)), in 0..pi/2 (Anscombe, 1948).

    On that scale the sampling error is nearly the same for all shares.
    """
    return [
        math.asin(math.sqrt((hit + 0.375) / (trial + 0.75)))
        for hit, trial in zip(successes, trials, strict=True)
    ]


def _t_tail(t: float, degrees: int) -> float:
    """P(Student's t > `t`)."""
    return float(special.stdtr(degrees, -t))


def _checked(values: Sequence[float], *, low_side: bool) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) < 3 or not np.isfinite(data).all():
        raise ValueError("An outlier test needs at least three finite values.")
    return data if low_side else -data


def _against(
    value: float, others: np.ndarray, *, tests: int, floor: float
) -> tuple[float, float, float]:
    """(t, p, fold) of one value below `others`; p is corrected for `tests` tests."""
    count = len(others)
    gap = float(others.mean() - value)
    spread = max(float(others.std(ddof=1)), floor)
    t = gap / (spread * math.sqrt(1 + 1 / count))
    p = min(1.0, tests * _t_tail(t, count - 1))
    return t, p, math.exp(min(gap, 700.0))
