"""Which defense is next and what it starts from.

Whatever the policy was when the tournament began.
"""

import pytest

from guard.core.errors import MethodFailed
from guard.core.notes import Attempt
from guard.policy.rules import DefenseRule
from guard.vetting.next_defense import Step, applicable, next_step

A, B, HEAVY = (
    DefenseRule(name="a"),
    DefenseRule(name="b"),
    DefenseRule(name="a", params={"rate": 1.0}),
)
CHAINED = DefenseRule(name="b", after="a")


def made(name: str, digest: str, *after: str) -> Attempt:
    return Attempt(defense=name, digest=digest, after=after)


def test_the_next_defense_is_the_first_that_was_not_tried_whatever_the_policy_was() -> None:
    rules = [A, B, HEAVY]

    assert next_step(rules, []) == Step(rule=A)
    assert next_step(rules, [Attempt(defense="b")]) == Step(
        rule=A
    )  # the policy put `a` first meanwhile
    assert next_step(rules, [Attempt(defense="gone"), Attempt(defense="a")]) == Step(rule=B)
    assert next_step(rules, [Attempt(defense="a"), Attempt(defense="b")]) == Step(rule=HEAVY)
    assert (
        next_step(rules, [Attempt(defense="a"), Attempt(defense="b"), Attempt(defense="a")]) is None
    )


def test_a_chained_defense_is_not_the_same_as_that_defense_alone() -> None:
    rules = [A, CHAINED]

    assert next_step(rules, [made("b", "1"), made("a", "2")]) == Step(
        rule=CHAINED, after=("a",), start="2"
    )
    assert next_step(rules, [made("a", "1"), made("b", "2", "a")]) is None


def test_it_goes_on_from_the_latest_earlier_rule_of_that_name() -> None:
    rules = [A, CHAINED, HEAVY, CHAINED]
    tried = [made("a", "1"), made("b", "2", "a"), made("a", "3")]

    assert next_step(rules, tried[:1]) == Step(rule=CHAINED, after=("a",), start="1")
    assert next_step(rules, tried) == Step(rule=CHAINED, after=("a",), start="3")
    assert next_step(
        rules, [made("a", "1"), made("b", "2", "a"), Attempt(defense="a", failed="no")]
    ) == Step(rule=CHAINED, after=("a",))  # the latest, not the latest that was made


def test_a_chain_may_go_on() -> None:
    last = DefenseRule(name="c", after="b")
    step = next_step([A, CHAINED, last], [made("a", "1"), made("b", "2", "a")])

    assert step == Step(rule=last, after=("a", "b"), start="2")
    assert step.attempt() == Attempt(defense="c", after=("a", "b"))
    assert step.origin() == "2"


@pytest.mark.parametrize(
    ("rules", "tried"),
    [
        ([A, CHAINED], [Attempt(defense="a", failed="It found nothing.")]),
        ([CHAINED], []),  # no file says so, but a policy that was made in code may
    ],
)
def test_without_a_candidate_there_is_nothing_to_go_on_from(
    rules: list[DefenseRule], tried: list[Attempt]
) -> None:
    step = next_step(rules, tried)

    assert step is not None
    with pytest.raises(MethodFailed, match="nothing to go on from"):
        step.origin()


def test_informed_defenses_come_first_where_there_are_suspects_and_else_not_at_all() -> None:
    informed = DefenseRule(name="c", informed=True)
    rules = [A, informed, B]

    assert applicable(rules, suspects=True, blind=False) == (informed, A, B)
    assert applicable(rules, suspects=False, blind=False) == (A, B)


def test_without_a_proven_trigger_only_blind_and_informed_defenses_are_tried() -> None:
    informed, blind = DefenseRule(name="c", informed=True), DefenseRule(name="d", blind=True)
    rules = [A, informed, blind]

    assert applicable(rules, suspects=False, blind=True) == (blind,)
    assert applicable(rules, suspects=True, blind=True) == (informed, blind)
    assert applicable(rules, suspects=True, blind=False) == (informed, A)


def test_a_defense_without_a_chain_starts_from_the_parent() -> None:
    step = next_step([A], [])

    assert step is not None
    assert step.origin() is None
    assert step.attempt() == Attempt(defense="a")
