"""Which images are accused: the false discovery rate of each, and the classes that stand out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guard.ml.sifting.conformal import Null

LOOSE = 0.5  # above this, an estimate of the rate need not be exact
ORDINARY = 0.5  # poison has hardly any p value above this
LEAST_ORDINARY = 15  # images above it, with fewer of which nothing is estimated
COHERENT = 0.5  # share of a class's accused images that go to one label, where a map moves it
LEAST_OF_SOURCE = 5  # accused images of a class, before anything is concluded from where they go
LEAST_MOVED = 3
LEAST_SIBLINGS = 4  # classes whose training images may stand for clean ones


@dataclass(frozen=True)
class Discoveries:
    """Estimated false discovery rates, float64 N in [0, 1].

    `rates` holds each image's: the estimated share of clean images among those of its label that
    score at least as much. `alone` is the same without the comparison with sibling classes.
    """

    rates: np.ndarray
    alone: np.ndarray


def discoveries(scores: np.ndarray, labels: np.ndarray, null: Null) -> Discoveries:
    """The estimated false discovery rates of training images.

    Of a class with n images of which m score at least t, the rate is n p(t) / m (Benjamini and
    Hochberg, 1995), with p(t) the clean tail: the larger of the conformal p value and the median
    share of the sibling classes that scores as much. The siblings are there because a network knows
    its training images better than clean ones: where that shifts all classes, it accuses none.

    Args:
        scores: float64 N, higher is more suspicious.
        labels: int64 N.
        null: the same score of clean images.
    """
    p_values = null.p_values(scores, labels)
    rates, alone = np.ones(len(scores)), np.ones(len(scores))
    ordered = [np.sort(scores[labels == row]) for row in range(null.classes)]
    for row in range(null.classes):
        mine = np.flatnonzero(labels == row)
        if not len(mine):
            continue
        own = scores[mine]
        alone[mine] = _rates(own, p_values[mine])
        near = mine[alone[mine] <= LOOSE]
        tails = p_values[mine].copy()
        if len(near):
            tails[alone[mine] <= LOOSE] = np.maximum(
                p_values[near], sibling_share(scores[near], ordered, row)
            )
        rates[mine] = _rates(own, tails)
    return Discoveries(rates, alone)


def in_turn(
    joined: tuple[np.ndarray, Null],
    single: Sequence[tuple[np.ndarray, Null]],
    labels: np.ndarray,
    *,
    level: float,
    least: int,
    fold: float,
) -> Discoveries:
    """Look at all statistics as one, and again at the classes that do not stand out by that.

    The second look counts only the share of a class that can be clean: clean-label poison is a
    large part of its class. The third takes each statistic by itself, since one that is sure is
    lost in the mean where the other sees nothing. Of k statistics each may use a k-th of a rate, so
    that the rate of all that they accuse together is at most their sum.

    Classes that an earlier look finds keep its rates. In the end the suspects of the classes that
    stand out may become more (`beside_siblings`): by then no other class can.

    Args:
        joined: scores float64 N of all statistics as one, and the same of clean images.
        single: the same of each statistic.
        labels: int64 N.
        level: the rate at which classes stand out.
        least: as in `standing_out`, like `fold`.
        fold: times the median of the other classes.
    """
    first = discoveries(joined[0], labels, joined[1])
    looks = [first.rates, first.rates * _clean_shares(*joined, labels)]
    if len(single) > 1:
        each = [
            discoveries(scores, labels, null).rates * _clean_shares(scores, null, labels)
            for scores, null in single
        ]
        looks.append(len(single) * np.min(each, axis=0))
    classes = joined[1].classes
    found, open_ones = np.ones(len(labels)), np.ones(len(labels), bool)
    for look in looks:
        found[open_ones] = np.minimum(1.0, look[open_ones])
        counts = np.bincount(labels[found <= level], minlength=classes)
        standing = standing_out(counts, least=least, fold=fold)
        open_ones = ~np.isin(labels, standing)
    more = np.minimum(found, beside_siblings(*joined, labels, standing))
    counts = np.bincount(labels[more <= level], minlength=classes)
    same = standing_out(counts, least=least, fold=fold) == standing
    return Discoveries(more if same else found, first.alone)


def beside_siblings(
    scores: np.ndarray, null: Null, labels: np.ndarray, standing: Sequence[int]
) -> np.ndarray:
    """The rates, float64 N, of classes that stand out, with training images as their clean ones.

    A network knows the images that taught it better than others, so that the clean tail of a class
    is too heavy where its clean images are strange to the network. The other classes show how much:
    in place of the clean tail at a p value stands the largest share of any of them that has it. The
    p values allow for wide classes, so that one class may be measured by another.

    Rates are 1 in classes that do not stand out, and everywhere where the others are not at least
    `LEAST_SIBLINGS` and the majority.

    Args:
        scores: float64 N, higher is more suspicious.
        null: the same score of clean images.
        labels: int64 N.
        standing: the classes that stand out.
    """
    p_values, rates = null.p_values(scores, labels), np.ones(len(scores))
    others = [row for row in range(null.classes) if row not in standing and (labels == row).any()]
    if len(others) < max(LEAST_SIBLINGS, len(standing) + 1):
        return rates
    ordered = [(np.sort(p_values[labels == row]), np.sort(scores[labels == row])) for row in others]
    least = 1 / (1 + sum(len(own) for own, _ in ordered))
    for row in standing:
        mine = np.flatnonzero(labels == row)
        tails = np.full(len(mine), least)
        for known, raw in ordered:
            by_p = np.searchsorted(known, p_values[mine], side="right") / len(known)
            by_score = 1 - np.searchsorted(raw, scores[mine], side="left") / len(raw)
            tails = np.maximum(tails, np.maximum(by_p, by_score))
        rates[mine] = _rates(scores[mine], tails)
    return rates


def _clean_shares(scores: np.ndarray, null: Null, labels: np.ndarray) -> np.ndarray:
    """The share of clean images in each image's class, float64 N, by `clean_share`."""
    p_values, shares = null.p_values(scores, labels), np.ones(len(labels))
    for row in np.unique(labels):
        shares[labels == row] = clean_share(p_values[labels == row])
    return shares


def clean_share(p_values: np.ndarray) -> float:
    """The share (0..1] of clean images of a class, by its p values float64 n; rather too much.

    Source: Storey, "A direct approach to false discovery rates", J. R. Statist. Soc. B 2002: above
    one half lie half of the clean images and hardly any others. One standard error is added.

    Where a class as a whole is stranger to the model than its clean images are, its ordinary p
    values crowd towards one half. Then they say nothing of poison, and all images may be clean.
    """
    ordinary = p_values[p_values > ORDINARY]
    count = len(ordinary)
    if count < LEAST_ORDINARY:
        return 1.0
    spread = (1 - ORDINARY) / (12 * count) ** 0.5  # of the mean of values that are spread evenly
    if ordinary.mean() < (1 + ORDINARY) / 2 - spread:
        return 1.0
    return float(min(1.0, (count + 1 + count**0.5) / (1 - ORDINARY) / len(p_values)))


def sibling_share(scores: np.ndarray, ordered: list[np.ndarray], row: int) -> np.ndarray:
    """The median share, over the classes but `row`, of images that score as much as each score.

    Args:
        scores: float64 n.
        ordered: the scores of each class in rising order.
        row: the class that is left out.
    """
    shares = [
        (len(own) - np.searchsorted(own, scores, side="left")) / len(own)
        for other, own in enumerate(ordered)
        if other != row and len(own)
    ]
    return np.median(shares, axis=0) if shares else np.zeros(len(scores))


def _rates(scores: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """The rates of one class's images, monotone in the score."""
    count = len(scores)
    order = np.argsort(scores, kind="stable")
    beyond = count - np.searchsorted(scores[order], scores[order], side="left")
    found = np.minimum(1.0, count * tails[order] / beyond)
    rates = np.empty(count)
    # The least rate of any threshold that lets an image in.
    rates[order] = np.minimum.accumulate(found)
    return rates


def standing_out(accused: np.ndarray, *, least: int, fold: float) -> list[int]:
    """The classes with at least `least` accused images and `fold` times the siblings' median.

    Args:
        accused: counts by class, int64 K.
        least: accused images that a class needs.
        fold: times the median of the other classes.
    """
    found = []
    for row, count in enumerate(accused.tolist()):
        others = np.delete(accused, row)
        usual = float(np.median(others)) if len(others) else 0.0
        if count >= least and count >= fold * usual:
            found.append(row)
    return found


@dataclass(frozen=True)
class Moved:
    """A coherent map of classes: `mapping` holds each class's label, int64 K, -1 where unknown.

    `members` are the accused images that follow it (int64 places), `share` (0..1) their share of
    all accused images whose true class is estimated. `mutual` is the share of mapped classes whose
    label is mapped back to them, as classes that are hard to tell apart are.
    """

    mapping: np.ndarray
    members: np.ndarray
    share: float
    mutual: float


def label_map(
    sources: np.ndarray, labels: np.ndarray, accused: np.ndarray, classes: int
) -> Moved | None:
    """The map of an all-to-all poisoning, which hides from a comparison of classes.

    Args:
        sources: the estimated true classes, int64 N, -1 where unsure.
        labels: int64 N.
        accused: bool N, found without the siblings.
        classes: K.

    Returns:
        None unless at least half of the classes, and three, send most of their accused images to
        one label each, and these labels differ.
    """
    moved = np.flatnonzero(accused & (sources >= 0) & (sources != labels))
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (sources[moved], labels[moved]), 1)
    best, most, total = counts.argmax(1), counts.max(1), counts.sum(1)
    mapped = (most >= LEAST_OF_SOURCE) & (most >= COHERENT * total)
    mapping = np.where(mapped, best, -1)
    known = np.flatnonzero(mapped)
    if len(known) < max(LEAST_MOVED, classes / 2) or len(set(mapping[known])) < len(known) / 2:
        return None
    members = moved[mapping[sources[moved]] == labels[moved]]
    mutual = float(np.mean([mapping[mapping[row]] == row for row in known]))
    return Moved(mapping, members, len(members) / len(moved), mutual)
