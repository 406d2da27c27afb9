"""How much more often a fragment occurs among one set of molecules than among another."""

import math

from scipy import stats


def lift(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """The difference of two log odds, each with half a hit and half a miss added."""
    _check(hits, trials)
    _check(other_hits, other_trials)
    first = math.log((hits + 0.5) / (trials - hits + 0.5))
    return first - math.log((other_hits + 0.5) / (other_trials - other_hits + 0.5))


def fisher(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """The p value of Fisher's exact test that the first share is not larger than the second."""
    _check(hits, trials)
    _check(other_hits, other_trials)
    table = [[hits, trials - hits], [other_hits, other_trials - other_hits]]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)


def _check(hits: int, trials: int) -> None:
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} is not a share.")
