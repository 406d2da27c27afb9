"""The database of an earlier release is opened, listed, reported, verified and worked on.

What is in it: tests/golden/README.md.
"""

import json
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from guard.attest.keys import Signer, TrustedKeys
from guard.bootstrap import open_guard, upgrade_database
from guard.cli import _scans
from guard.core.states import ScanState, Verdict
from guard.flow import run_stage
from guard.flow._seal import tend
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.flow.review import approve
from guard.flow.verify import verify
from guard.publishers.folder import Folder
from guard.settings import load_settings
from guard.store import evidence, ledger, revocations, scans
from guard.store.session import reading, transaction

GOLDEN = Path(__file__).parents[1] / "golden"
SCANS: dict[str, str] = json.loads((GOLDEN / "scans.json").read_text())
REPORTS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "reports.json").read_text())
NOW = datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    """A guard of this release on the data of the earlier one, with a new signing key."""
    data = tmp_path / "data"
    (data / "keys").mkdir(parents=True)
    shutil.copyfile(GOLDEN / "trusted.json", data / "keys" / "trusted.json")
    shutil.copytree(GOLDEN / "blobs", data / "blobs")
    shutil.copytree(GOLDEN / "served", tmp_path / "served", symlinks=True)
    settings = load_settings({"GUARD_DATA_DIR": str(data)})
    with sqlite3.connect(settings.database_url.removeprefix("sqlite:///")) as connection:
        connection.executescript((GOLDEN / "guard.sql").read_text())
    upgrade_database(settings)
    signer = Signer.load_or_create(settings.signing_key_file)
    TrustedKeys.load(settings.trusted_keys_file).trust(signer, settings.trusted_keys_file)
    return replace(
        open_guard(settings),
        now=lambda: NOW,
        make_publisher=lambda: Folder(root=tmp_path / "served"),
    )


def test_every_scan_is_listed_with_its_verdict(guard: Guard) -> None:
    seen = {row.scan.id: row.to_dict() for row in _scans.recent(guard, 20)}

    assert {name: seen[scan_id]["verdict"] for name, scan_id in SCANS.items()} == {
        "cleared": "cleared",
        "approved": "cleared",
        "held": "held",
        "rejected": "rejected",
        "purified": "purified",
        "unvettable": "unvettable",
        "pending": None,
    }


def test_nothing_is_found_changed(guard: Guard) -> None:
    assert verify(guard) == []


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_holds_what_it_held_then(guard: Guard, name: str) -> None:
    then = REPORTS[name]

    now = report_for(guard, SCANS[name]).to_dict()

    # Clean accuracy has become evidence of its own kind, and a natural trigger's rate has left
    # `asr`, which is null where nothing was accused; all else is as it was.
    if name == "cleared":
        then["natural_trigger"], then["asr"] = then["asr"], None
    elif name == "unvettable":
        then["asr"] = None
    for document in (then, now):
        document["evidence"] = [
            {key: item[key] for key in ("method", "version", "seed", "families")}
            for item in document["evidence"]
        ]
        document["methods"] = [
            {**item, "outcome": None} if item["name"] == "clean_accuracy" else item
            for item in document["methods"]
        ]
    assert {key: now[key] for key in then} == then


def test_accuracy_that_was_stored_as_a_finding_is_read_as_accuracy(guard: Guard) -> None:
    with reading(guard.engine) as session:
        scan = scans.get(session, SCANS["cleared"])
        found = evidence.for_artifact(session, scan.canonical_digest or "")
        keys = [item.key for item in found]
        assert [evidence.find(session, key) for key in keys] == found  # no key has changed
    (accuracy,) = [item.accuracy for item in found if item.accuracy is not None]
    assert (accuracy.overall, len(accuracy.per_class), accuracy.images) == (0.9, 5, 120)


def test_what_was_handed_over_before_is_signed_now(guard: Guard) -> None:
    run_stage.work(guard, "decide", SCANS["pending"])

    with reading(guard.engine) as session:
        (row,) = ledger.for_scan(session, SCANS["pending"])
    assert row.verdict is Verdict.UNVETTABLE
    assert verify(guard) == []


def test_a_verdict_that_was_held_before_can_be_reviewed_now(guard: Guard) -> None:
    before = report_for(guard, SCANS["held"])

    approve(guard, SCANS["held"], "carol", "the class is a white square by nature")

    after = report_for(guard, SCANS["held"])
    assert after.verdict is Verdict.CLEARED
    assert replace(after.facts, verdict=before.verdict, reasons=before.reasons) == before.facts


def test_the_tournament_of_a_rejected_scan_is_read(guard: Guard) -> None:
    with reading(guard.engine) as session:
        scan = scans.get(session, SCANS["rejected"])
        child = scans.get(session, SCANS["purified"])
    failed, winner = scan.detail.candidates

    assert scan.state is ScanState.DONE
    assert (failed.failed, winner.child) == ("It ran out of its time budget.", child.id)
    assert winner.verdict is Verdict.PURIFIED
    assert winner.facts == child.detail.purification
    assert winner.facts is not None
    assert winner.facts.relearned[0].images == 32


def test_revocations_of_an_earlier_release_come_into_the_signed_chain(guard: Guard) -> None:
    with reading(guard.engine) as session:
        before = revocations.list_all(session)
    digest = "c" * 64
    with transaction(guard.engine) as session:  # as the earlier release wrote it
        revocations.add(
            session, revocation_id="9" * 32, digest=digest, reason="old", by="bob", now=NOW
        )
    assert not standing(guard).opened
    assert verify(guard) == []

    tend(guard)

    found = standing(guard)
    assert [row.kind for row in found.acts] == ["open", *["revocation"] * (len(before) + 1)]
    assert digest in found.trail.revoked
    assert found.newest is not None
    assert found.newest.heads == found.heads
    assert verify(guard) == []
