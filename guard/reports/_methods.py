"""The evidence of a report as open formats show it: what each method accuses, and its rule."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from guard.core.declared import Declared
from guard.core.errors import GuardError
from guard.core.evidence import Outcome
from guard.core.shelf import Shelf
from guard.core.waivers import Waiver
from guard.reports.report import Report

_DETECTORS: Shelf[Any] = Shelf("guard.detectors")
#: What the guard measures itself, and is no plug-in.
_OWN = {"clean_accuracy": "Clean accuracy on hold-out images that no method has seen."}


@dataclass(frozen=True)
class Accusation:
    """One suspicious finding of a method, and the waiver that takes it out of the decision."""

    method: str
    finding: Mapping[str, Any]
    waiver: Waiver | None

    @property
    def numbers(self) -> dict[str, Any]:
        """The finding's numbers with its score and the ASR with its interval."""
        found = {
            "family": self.finding["family"],
            "target": self.finding["target"],
            "score": self.finding["score"],
            **dict(self.finding.get("numbers") or {}),
        }
        return {**found, "asr": self.finding["asr"]} if self.finding.get("asr") else found


def accusations(report: Report, item: Mapping[str, Any]) -> Iterator[Accusation]:
    """The suspicious findings of one piece of evidence (`Evidence.to_dict()`)."""
    for finding in item.get("findings", ()):
        if finding.get("suspicious"):
            found = (
                one
                for one in report.facts.waivers
                if (one.method, one.target) == (item["method"], finding["target"])
            )
            yield Accusation(item["method"], finding, next(found, None))


def could_not_look(item: Mapping[str, Any]) -> bool:
    """Whether a method did not look; that is never a pass."""
    return item["outcome"] == Outcome.COULD_NOT_LOOK


def about(method: str) -> Declared:
    """What a method's file states about it; nothing for one that is not installed any more."""
    if method in _OWN:
        return Declared(about=_OWN[method])
    try:
        return _DETECTORS.declared(method)
    except GuardError:
        return Declared(about="A method that this installation does not have.")


def class_name(report: Report, target: Any) -> str:
    """An accused class as people know it."""
    names = getattr(report.manifest, "label_names", None) or ()
    if isinstance(target, int) and 0 <= target < len(names):
        return f"{target} ({names[target]})"
    return "unknown" if target is None else str(target)
