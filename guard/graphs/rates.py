"""How much more often a fragment occurs among one set of molecules than among another."""

import math

import numpy as np
from scipy.special import gammaln


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
    both = hits + other_hits
    # How many of all hits the first set may have, where its share is at least what it was.
    own = np.arange(hits, min(trials, both) + 1)
    logs = _ways(trials, own) + _ways(other_trials, both - own) - _ways(trials + other_trials, both)
    return min(1.0, float(np.exp(logs).sum()))


def _ways(total: int, chosen: np.ndarray | int) -> np.ndarray:
    """The logarithm of the binomial coefficient of `total` over each of `chosen`."""
    logs: np.ndarray = gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)
    return logs


def _check(hits: int, trials: int) -> None:
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} is not a share.")
