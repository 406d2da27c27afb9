"""Rank a network's classes by the views of `guard.ml.search.class_views`, as findings.

The ranking is for searches: the class to look at first. A class is suspicious by itself only at a
level that honest networks have been measured at.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from guard.core.evidence import Finding
from guard.core.states import Family
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.scoring import half_at_log
from guard.ml.search.battery import battery, commitment, secret_in_force
from guard.ml.search.class_views import (
    Watch,
    attraction,
    deviates,
    head_alignment,
    p_of,
    together,
)
from guard.ml.search.natural_views import natural_views

SHOWN = 20  # findings, if there are more classes
#: The views by their name in a finding's numbers, and what a class does that they single out.
ALIGNMENT, ATTRACTION = "z_alignment", "z_attraction"
MEANING = {
    ALIGNMENT: "its row of the last layer is less aligned with its own images",
    ATTRACTION: "it absorbs random changes of other classes' images",
}
Views = Mapping[str, Sequence[float]]


def views_of(
    model: nn.Module,
    clean: CleanSet,
    *,
    names: Sequence[str],
    batteries: int,
    references: int,
    rounds: int,
    watch: Watch,
) -> tuple[dict[str, list[float]], bool]:
    """The deviates of the wanted views, one number a class, and whether references were subtracted.

    `ALIGNMENT` is left out where no head is found. Draws from torch's global CPU generator.

    Args:
        model: takes float images N,C,H,W in [0, 1].
        clean: what methods may see.
        names: `ALIGNMENT`, `ATTRACTION` or both.
        batteries: how many batteries are tried.
        references: how many networks are trained on the clean set; 0 for none.
        rounds: passes over the images in their training.
        watch: called with the share done; may raise.

    Raises:
        MethodFailed: `non_finite`.
    """
    found: dict[str, list[float]] = {}
    device = device_of(model)
    aligned = head_alignment(model, clean) if ALIGNMENT in names else None
    watch(0.05)
    usual = natural_views(
        clean, references, rounds, batteries, lambda done: watch(0.05 + 0.45 * done), device
    )
    watch(0.5)
    if aligned is not None:
        found[ALIGNMENT] = aligned.tolist()
        if usual is not None and usual.alignment is not None:
            found[ALIGNMENT] = (aligned - torch.tensor(usual.alignment).double()).tolist()
    if ATTRACTION in names:
        channels, height, width = (int(side) for side in clean.search.images.shape[1:])
        changes = [
            battery(secret_in_force(), (channels, height, width), turn) for turn in range(batteries)
        ]
        drawn = attraction(
            model,
            clean.together(),
            clean.classes,
            changes,
            lambda done: watch(0.5 + 0.5 * done),
        )
        if usual is not None:
            drawn = drawn - torch.tensor(usual.attraction).double()
        found[ATTRACTION] = drawn.tolist()
    return {name: deviates(values) for name, values in found.items()}, usual is not None


def ranked(views: Views, *, alpha: float, referenced: bool, drawn: bool) -> list[Finding]:
    """One finding a class (of the first `SHOWN`), the most suspicious class first.

    `numbers`: `place` (1 is first), each view's deviate, `z_combined` (Stouffer) and `p_ranking`,
    the probability that the largest of all classes' deviates would be at least this one's. Neither
    has a name that a policy combines with other methods' p values: Fisher's accord with them was
    worse than without. With fewer than seven classes `informative` is 0 and nothing is suspicious.

    Args:
        views: deviates by view, K numbers each.
        alpha: the largest `p_ranking` of a suspicious class.
        referenced: whether what honest networks show was subtracted.
        drawn: whether a battery was used, whose commitment is then stated.
    """
    combined = together(list(views.values()))
    order = sorted(range(len(combined)), key=lambda row: -combined[row])
    battery_used = f" (battery {commitment()})" if drawn else ""
    findings = []
    for place, row in enumerate(order[:SHOWN], 1):
        p = p_of(combined[row], len(combined))
        score = 0.0 if p is None else half_at_log(p, alpha, alpha**2)
        own = {name: values[row] for name, values in views.items()}
        seen = " and ".join(f"{MEANING[name]} (z = {z:.1f})" for name, z in own.items())
        text = f"Class {row} is number {place} of {len(combined)}: {seen}; p = {p or 1:.2g}"
        if p is None:
            text = f"With {len(combined)} classes, no class can be told from its siblings"
        end = "" if score >= 0.5 or p is None else ": not out of the ordinary"
        findings.append(
            Finding(
                family=str(Family.ALL_TO_ONE),
                target=row,
                suspicious=score >= 0.5,
                score=score,
                numbers={
                    **own,
                    "place": float(place),
                    "z_combined": combined[row],
                    "p_ranking": 1.0 if p is None else p,
                    "referenced": float(referenced),
                    "informative": float(p is not None),
                    "classes": float(len(combined)),
                },
                statement=f"{text}{end}{battery_used}.",
            )
        )
    return findings
