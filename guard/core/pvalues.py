"""P values in pure Python: combined, corrected for several looks, and exact for small counts.

What needs NumPy is in `guard.ml.statistics`: outlier tests among a model's classes.
"""

import math
from collections.abc import Iterable, Sequence

# Values are clipped to these before they are combined: 0 or 1 would outvote all others.
LEAST_P, MOST_P = 1e-12, 0.99
LEAST_CLASSES = 5  # with fewer classes a class has too few siblings to be compared with
BISECTIONS = 40


def cauchy(p_values: Iterable[float]) -> float:
    """Combine p values into one that is roughly valid however they depend on each other.

    Source: Liu and Xie, "Cauchy combination test", JASA 2020. Values are clipped to [1e-12, 0.99],
    since p = 1 would give minus infinity.

    Raises:
        ValueError: no values, or one outside 0..1.
    """
    values = _checked(p_values)
    total = sum(math.tan((0.5 - min(max(value, LEAST_P), MOST_P)) * math.pi) for value in values)
    return 0.5 - math.atan(total / len(values)) / math.pi


def fisher(p_values: Iterable[float]) -> float:
    """Combine independent p values into one by Fisher's method.

    It is the upper tail of -2 sum log p under a chi-squared distribution with 2n degrees of
    freedom.

    Raises:
        ValueError: no values, or one outside 0..1.
    """
    values = _checked(p_values)
    half = -math.fsum(math.log(max(value, LEAST_P)) for value in values)
    term, total = 1.0, 1.0
    for k in range(1, len(values)):
        term *= half / k
        total += term
    return min(1.0, math.exp(-half) * total)


def sidak(p: float, tests: int) -> float:
    """Correct the least of `tests` independent p values (Sidak 1967).

    It is the probability that the least of them is at most `p`.
    """
    return 1.0 if p >= 1 else -math.expm1(tests * math.log1p(-p))


def exact_upper(successes: int, trials: int, *, error: float, looks: int = 1) -> float:
    """Clopper and Pearson's upper bound of a share (1934), two-sided at `error` / `looks`.

    By Bonferroni, `looks` such bounds hold together with probability 1 - `error` / 2 or more.
    Wilson's bounds would not: with many looks they are read far out in the tail, where they are too
    low for shares near 1 (they err in 4.3 % instead of 2.5 % for eight looks at 120 images).
    Without trials the bound is 1.

    Raises:
        ValueError: not 0 <= successes <= trials, or fewer than one look.
    """
    if not 0 <= successes <= trials or looks < 1:
        raise ValueError(f"{successes} of {trials} successes in {looks} looks make no bound.")
    if successes == trials:
        return 1.0
    level = error / (2 * looks)
    low, high = successes / trials, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(successes, trials, middle) > level else (low, middle)
    return high


def mcnemar(lost: int, gained: int) -> float:
    """McNemar's exact one-sided p value.

    It is the probability of at least `lost` losses if each change were a gain or a loss with equal
    probability.
    """
    swaps = lost + gained
    return sum(math.comb(swaps, more) for more in range(lost, swaps + 1)) / 2**swaps


def _checked(p_values: Iterable[float]) -> Sequence[float]:
    values = list(p_values)
    if not values or not all(0 <= value <= 1 for value in values):
        raise ValueError("Combining needs at least one value, and p values lie in 0..1.")
    return values


def _at_most(successes: int, trials: int, share: float) -> float:
    """P(X <= successes) for X binomial, 0 < share < 1."""
    constant, hit, miss = math.lgamma(trials + 1), math.log(share), math.log1p(-share)
    upper = successes > trials / 2  # the shorter tail
    terms = range(successes + 1, trials + 1) if upper else range(successes + 1)
    total = math.fsum(
        math.exp(
            constant
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * hit
            + (trials - k) * miss
        )
        for k in terms
    )
    return 1 - total if upper else total
