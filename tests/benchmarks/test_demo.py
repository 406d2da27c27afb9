"""The demo's own policy, which is the default one with one more defense ahead.

And what it says of repairs.
"""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo.__main__ import FIRST, policy_with
from benchmarks.demo.models import DemoModel
from benchmarks.demo.story import Watched
from benchmarks.demo.table import checks, repaired
from guard.core.manifest import Manifest, PolarizerPlace
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.defenses import DEFENSES
from guard.policy import load_policy
from guard.reports.report import Report


@pytest.mark.parametrize("name", [FIRST, "neural_polarizer"])
def test_the_named_defense_is_tried_first_and_nothing_else_changes(
    tmp_path: Path, name: str
) -> None:
    plain, own = load_policy(), load_policy(policy_with(name, tmp_path))

    assert own.defenses[1:] == plain.defenses
    assert own.defenses[0].name == name
    assert DEFENSES.get(name)(**own.defenses[0].params).parameters()
    assert {**own.to_dict(), "defenses": 0} == {**plain.to_dict(), "defenses": 0}


def test_who_repaired_is_told_in_turn_with_the_layer_that_was_put_in() -> None:
    candidates: list[dict[str, Any]] = [
        {"defense": "sau", "failed": "It crashed."},
        {"defense": "fst", "verdict": "held", "reasons": ["A person must look.", "More."]},
        {"defense": FIRST, "verdict": "purified", "reasons": ["Purified."]},
    ]
    served = Manifest(
        architecture="cifar_resnet",
        num_classes=3,
        input_size=(1, 8, 8),
        mean=(0.5,),
        std=(0.5,),
        polarizer=PolarizerPlace(before="layer3.0", channels=32),
    )

    assert list(repaired(candidates, served)) == [
        "repair 1 by sau: failed. It crashed.",
        "repair 2 by fst: held. A person must look. (and 1 more)",
        f"repair 3 by {FIRST}: purified. Purified.",
        "served with a layer that the upload had not: a polarizer before layer3.0, 32 channels.",
    ]
    assert not list(repaired([], None))


@pytest.mark.parametrize(
    ("refused", "answering", "holds"),
    [
        ("The name 'honest' belongs to s3://models/models/honest/; upload under ...", "0", True),
        ("", "0", False),
        ("The object is empty; upload the model again.", "0", False),
        ("The name 'honest' belongs to s3://models/models/honest/; upload under ...", "1", False),
    ],
)
def test_a_take_over_is_refused_only_where_the_first_team_still_answers(
    tmp_path: Path, refused: str, answering: str, *, holds: bool
) -> None:
    watched = [
        Watched(
            DemoModel(name, tmp_path, tmp_path, None, None, 1.0, None),
            None,  # type: ignore[arg-type]
            Report(digest="0", name=name, facts=VerdictFacts(verdict=verdict, reasons=())),
            None,
        )
        for name, verdict in (
            ("honest", Verdict.CLEARED),
            ("backdoored", Verdict.REJECTED),
            ("pickled", Verdict.UNVETTABLE),
        )
    ]
    truths = {"honest": {"digests": [answering]}}

    found = checks(watched, {"honest": "1.0"}, truths, tmp_path / "canary", refused)

    (claim,) = [claim for claim in found if "second team" in claim]
    assert found[claim] is holds
