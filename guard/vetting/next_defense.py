"""Which defense of a policy is next, and what it starts from.

One answer for the service and for one process.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.core.errors import MethodFailed
from guard.policy.rules import DefenseRule

Candidates = Sequence[
    Mapping[str, Any]
]  # `defense`, `after` where it is chained, `digest` where it was made


@dataclass(frozen=True, kw_only=True)
class Step:
    """The next try of a tournament.

    `after` names all defenses that have repaired its start, in order.
    """

    rule: DefenseRule
    after: tuple[str, ...] = ()
    start: str | None = None

    def origin(self) -> str | None:
        """The digest of the candidate that the rule goes on from.

        None where it repairs the model as it came.

        Raises:
            MethodFailed: that candidate was never made.
        """
        if self.rule.after and self.start is None:
            raise MethodFailed(
                f"There is nothing to go on from: {self.rule.after} made no candidate.",
                code="nothing_to_go_on_from",
            )
        return self.start

    def named(self) -> dict[str, Any]:
        """How a list of candidates names this try."""
        return {"defense": self.rule.name, **({"after": list(self.after)} if self.after else {})}


def next_step(rules: Sequence[DefenseRule], candidates: Candidates) -> Step | None:
    """The first rule that has no candidate yet, by its names.

    The policy may have changed since the first one.
    """
    tried = Counter(_names_of(item) for item in candidates)
    for place, rule in enumerate(rules):
        if not tried[_names(rule)]:
            return _step(rules[:place], rule, candidates)
        tried[_names(rule)] -= 1
    return None


def _step(earlier: Sequence[DefenseRule], rule: DefenseRule, candidates: Candidates) -> Step:
    if not rule.after:
        return Step(rule=rule)
    found = _latest(earlier, rule.after, candidates)
    if found is None:
        return Step(rule=rule, after=(rule.after,))
    return Step(rule=rule, after=(*found.get("after", ()), rule.after), start=found.get("digest"))


def _latest(
    earlier: Sequence[DefenseRule], name: str, candidates: Candidates
) -> Mapping[str, Any] | None:
    """The candidate of the last rule among `earlier` that has this name."""
    place = max((place for place, rule in enumerate(earlier) if rule.name == name), default=None)
    if place is None:
        return None
    wanted = _names(earlier[place])
    count = sum(_names(rule) == wanted for rule in earlier[: place + 1])
    made = [item for item in candidates if _names_of(item) == wanted]
    return made[count - 1] if len(made) >= count else None


def _names(rule: DefenseRule) -> tuple[str, str]:
    return rule.name, rule.after


def _names_of(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["defense"], (item.get("after") or ("",))[-1]
