"""What `[repair]` makes of a model without a proven trigger: a repaired copy is to be served.

Only what could be vetted is repaired: an inconclusive model gives no copy that could pass. A copy
itself is judged by all other rules and its proof, and never repaired again; a doubt about it holds
it only where those rules do. Where a person looks at every model, nothing is repaired unasked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guard.core.evidence import Evidence
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.policy.calibration import Calibration
from guard.policy.case import Case
from guard.policy.combine import Combined
from guard.policy.features import p_values, rankings
from guard.policy.rules import REPAIR_WHEN, Policy
from guard.policy.ruling import Ruling

_ASKED, _DOUBTED, _ALWAYS = REPAIR_WHEN
_REPAIRED = frozenset({Verdict.HELD, Verdict.REJECTED})


@dataclass(frozen=True, order=True)
class Doubt:
    """The least p value (0..1) of a model, and where it is from, as a phrase."""

    p: float
    source: str


def least(
    usable: Sequence[Evidence], combined: Combined, calibration: Calibration | None
) -> Doubt | None:
    """The least p value among those of all methods, and of several together; None without any.

    Where honest models were ranked for a calibration that applies, the p of a ranking is replaced
    by its place among theirs.
    """
    found = [
        Doubt(p, f"{method} on the family {family}")
        for (method, family), p in p_values(usable).items()
    ]
    for method, p in rankings(usable).items():
        measured = None if calibration is None else calibration.ranked(method, p)
        if measured is None:
            found.append(Doubt(p, f"{method}, which compares classes"))
        else:
            level, honest = measured
            place = f"{method} among {honest} honest models, which is never under 1/{honest + 1},"
            found.append(Doubt(level, place))
    if combined.p is not None:
        found.append(Doubt(combined.p, "all methods together"))
    if (together := combined.accord) is not None:
        methods = " and ".join(together.methods)
        found.append(Doubt(together.p, f"{methods} together on class {together.target}"))
    return min(found, default=None)


def with_repair(
    policy: Policy,
    case: Case,
    usable: Sequence[Evidence],
    combined: Combined,
    ruling: Ruling,
    *,
    calibration: Calibration | None = None,
) -> Ruling:
    """The ruling of all other rules, made stricter where only a repaired copy may be served.

    Args:
        usable: the evidence that counts, without waived findings, as `combined`.
        calibration: the policy's, where it applies.
    """
    rule = policy.repair
    copy = case.purification is not None or case.retraining is not None
    able = any(each.blind for each in policy.defenses)
    if rule.when == _ASKED or copy or not able or policy.review_always:
        return ruling
    if case.unrepaired and rule.spares:
        return _without_copy(ruling)
    if ruling.verdict in _REPAIRED and not (
        ruling.repairable and ruling.verdict is Verdict.REJECTED
    ):
        remark = "The policy has a copy repaired though no trigger is proven."
        return replace(ruling, reasons=(*ruling.reasons, remark), repairable=True, blind=True)
    if ruling.verdict not in SERVABLE_VERDICTS:
        return ruling
    doubt = least(usable, combined, calibration)
    if doubt is not None and not doubt.p > rule.level:
        why = (
            f"It would pass, but not beyond doubt: the p value of {doubt.source} is {doubt.p:.2g}, "
            f"and up to {rule.level:g} the policy serves only a repaired copy that passes."
        )
    elif rule.when == _ALWAYS:
        why = "It would pass, but the policy serves no upload itself, only a repaired copy."
    elif rule.when == _DOUBTED and doubt is not None:
        return ruling
    else:
        why = "It would pass, but no method gave a p value that could leave no doubt."
    return Ruling(Verdict.HELD, (why,), repairable=True, blind=True)


def _without_copy(ruling: Ruling) -> Ruling:
    """The ruling of all other rules, where every copy was refused and the upload may be served.

    It is not repaired again: what is held or rejected stays so.
    """
    remark = "No repaired copy passed, and the policy then judges the upload by its other rules."
    return replace(ruling, reasons=(*ruling.reasons, remark), repairable=False)
