"""Which defense of a policy is next and what it starts from, for the service and one process."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from guard.core.errors import MethodFailed
from guard.core.notes import Attempt
from guard.policy.rules import DefenseRule


@dataclass(frozen=True, kw_only=True)
class Step:
    """The next attempt of a tournament.

    `after` names, in order, the defenses that have already repaired the model that it starts from;
    `start` is the digest of that model, None for the uploaded one.
    """

    rule: DefenseRule
    after: tuple[str, ...] = ()
    start: str | None = None

    def origin(self) -> str | None:
        """The digest of the candidate that it continues from; None for the uploaded model.

        Raises:
            MethodFailed: that candidate was never made.
        """
        if self.rule.after and self.start is None:
            raise MethodFailed(
                f"There is nothing to go on from: {self.rule.after} made no candidate.",
                code="nothing_to_go_on_from",
            )
        return self.start

    def attempt(self) -> Attempt:
        """This attempt before it has a result."""
        return Attempt(defense=self.rule.name, after=self.after)


def applicable(
    rules: Sequence[DefenseRule], *, suspects: bool, blind: bool
) -> tuple[DefenseRule, ...]:
    """The rules in the order in which they are tried.

    Those that learn from accused training images come first where there are `suspects`, and are
    left out where there are none. Of the others, only those for models without a proven trigger
    are left where the repair is `blind`, and these are left out where it is not.
    """
    informed = tuple(rule for rule in rules if rule.informed) if suspects else ()
    return (
        *informed,
        *(rule for rule in rules if not rule.informed and rule.blind == blind),
    )


def next_step(rules: Sequence[DefenseRule], candidates: Sequence[Attempt]) -> Step | None:
    """The first rule without an attempt, compared by name since the policy may have changed."""
    tried = Counter(_names_of(item) for item in candidates)
    for place, rule in enumerate(rules):
        if not tried[_names(rule)]:
            return _step(rules[:place], rule, candidates)
        tried[_names(rule)] -= 1
    return None


def _step(earlier: Sequence[DefenseRule], rule: DefenseRule, candidates: Sequence[Attempt]) -> Step:
    if not rule.after:
        return Step(rule=rule)
    found = _latest(earlier, rule.after, candidates)
    if found is None:
        return Step(rule=rule, after=(rule.after,))
    return Step(rule=rule, after=(*found.after, rule.after), start=found.digest)


def _latest(
    earlier: Sequence[DefenseRule], name: str, candidates: Sequence[Attempt]
) -> Attempt | None:
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


def _names_of(attempt: Attempt) -> tuple[str, str]:
    return attempt.defense, (attempt.after or ("",))[-1]
