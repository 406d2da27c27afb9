"""The demo's own policy, which is the default one with one more defense ahead.

And what it says of repairs.
"""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks.demo import story
from benchmarks.demo.__main__ import FIRST, policy_with
from benchmarks.demo.models import DemoModel, TrainingSetFile
from benchmarks.demo.table import checks, of_sift, on_suspects, repaired, sifted
from guard.bootstrap import open_guard
from guard.core.evidence import AsrEstimate
from guard.core.manifest import Manifest, PolarizerPlace
from guard.core.purification import OnSuspects
from guard.core.sift import SiftReport, SiftRules, SiftVerdict
from guard.core.states import Verdict
from guard.core.trainset import Suspect, TrainingSetFacts
from guard.core.verdict import VerdictFacts
from guard.defenses import DEFENSES
from guard.flow.receive import receive_nomination
from guard.flow.sweep import sweep_guard
from guard.policy import load_policy
from guard.reports.report import Report
from guard.settings import load_settings
from tests.flow.intake import CONFIG, new_world
from tests.policy.making import a_purification
from tests.services import shared_weed

if TYPE_CHECKING:
    from guard.store.rows import ScanRow


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
        story.Watched(
            DemoModel(name, tmp_path, tmp_path, None, None, 1.0, None),
            None,  # type: ignore[arg-type]
            Report(digest="0", name=name, facts=VerdictFacts(verdict=verdict, reasons=())),
            None,
        )
        for name, verdict in (
            ("honest", Verdict.CLEARED),
            ("backdoored", Verdict.REJECTED),
            ("pickled", Verdict.UNVETTABLE),
            ("named", Verdict.REJECTED),
        )
    ]
    truths = {"honest": {"digests": [answering]}}

    found = checks(watched, {"honest": "1.0"}, truths, tmp_path / "canary", refused)

    (claim,) = [claim for claim in found if "second team" in claim]
    assert found[claim] is holds


def test_the_second_team_is_refused_by_the_intake_itself(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    guard = open_guard(
        load_settings(
            {
                **shared_weed().environment(world.bucket.name),
                "GUARD_DATA_DIR": str(tmp_path / "data"),
                "GUARD_DATABASE_URL": world.url,
            }
        )
    )
    first, second = (an_upload(tmp_path, name) for name in ("honest", "backdoored"))
    stop = threading.Event()

    def intake() -> None:
        while not stop.wait(0.1):
            sweep_guard(guard)
            for row in world.messages("receive"):
                receive_nomination(guard, row.payload["nomination_id"])

    worker = threading.Thread(target=intake)
    worker.start()
    try:
        story.upload(guard, (first,))
        while not world.scans():
            time.sleep(0.1)
        refused = story.take_over(guard, "honest", second, seconds=60)
        free = story.take_over(guard, "another", second, seconds=1)
    finally:
        stop.set()
        worker.join()

    assert "The name 'honest' belongs to" in refused
    assert free == ""
    assert {scan.name for scan in world.scans()} == {"honest", "another"}


def an_upload(folder: Path, name: str) -> DemoModel:
    place = folder / name
    place.mkdir()
    (place / "config.json").write_bytes(CONFIG)
    (place / "model.safetensors").write_bytes(name.encode())
    return DemoModel(name, place, place / "model.safetensors", None, None, 1.0, None)


def watched(*, verdict: Verdict = Verdict.REJECTED) -> story.Watched:
    """The fourth model as the demo leaves it: 90 suspects, all stamped, and a child that holds."""
    suspects = tuple(
        Suspect(index=place, label=1, estimated=0, fdr=0.05, source="x") for place in range(90)
    )
    facts = TrainingSetFacts(
        uri="s3://training-sets/x.npz",
        digest="0" * 64,
        images=1000,
        total=1000,
        channels=1,
        height=8,
        width=8,
        class_names=("a", "b"),
        per_class=(500, 500),
    )
    report = SiftReport(
        verdict=SiftVerdict.POISONED,
        reasons=(),
        training_set=facts,
        cleanset="1" * 64,
        seed=0,
        rules=SiftRules(),
        suspects=suspects,
    )
    rate = AsrEstimate(
        target=1, family="training-set", successes=30, trials=30, estimate=1.0, low=0.9, high=1.0
    )
    gone = replace(rate, successes=0, estimate=0.0, low=0.0, high=0.1)
    repair = a_purification(suspects=(OnSuspects(before=rate, after=gone, fdr=0.05),))
    model = DemoModel(
        name="named",
        folder=Path(),
        weights=Path(),
        attack=None,
        target=1,
        acc=0.9,
        asr=1.0,
        training_set=TrainingSetFile(Path(), "s3://training-sets/x.npz", frozenset(range(95))),
    )
    found = VerdictFacts(verdict=verdict, reasons=("In the training set x, 90 images.",))
    return story.Watched(
        model,
        cast("ScanRow", None),  # no row of the store is read here
        Report(digest="2" * 64, name="named", facts=found, sift=report),
        Report(
            digest="3" * 64,
            name="named",
            facts=VerdictFacts(verdict=Verdict.PURIFIED, reasons=("Purified.",)),
            purification=repair,
        ),
    )


def test_what_a_sift_shows_is_checked_against_the_truth() -> None:
    whole = sifted(watched(), {"asr": 0.02})
    cleared = sifted(watched(verdict=Verdict.CLEARED), {"asr": 0.5})

    assert list(whole.values()) == [True, True, True]
    assert list(cleared.values()) == [True, False, False]


def test_the_sift_and_the_proof_of_its_repair_are_a_line_each() -> None:
    (sift,), (proof,) = of_sift(watched()), on_suspects(watched())

    assert "90 of 1000 digits are accused, 90 of them stamped (in truth 95 are)" in sift
    assert "30 accused digits that taught it nothing: class 1 on 0.0%" in proof
