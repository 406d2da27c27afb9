"""One scan through its stages: what each leaves behind, and how it ends when something is wrong."""

import io
import itertools
import pickle
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from guard.attest import dsse
from guard.attest.chain import verify_chain
from guard.core.errors import LeaseLost, MethodFailed, NotServable
from guard.core.evidence import Outcome
from guard.core.notes import Attempt, ScanNotes
from guard.core.states import ScanState, Verdict
from guard.detectors import DETECTORS
from guard.flow import publish, rescue, review, run_stage
from guard.flow._lease import hold
from guard.flow.report import report_for
from guard.flow.withdraw import withdraw
from guard.formats._canonical import read_canonical
from guard.policy import known_gaps
from guard.store import alarms, dead_letters, ledger, outbox, publications, reviews, scans
from guard.store.session import reading, transaction
from tests.flow.place import Place, finding


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def decided(place: Place, *findings: object, outcome: Outcome = Outcome.FINDINGS) -> str:
    """A scan that was inspected, given evidence and decided."""
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, *findings, outcome=outcome)  # type: ignore[arg-type]
    assert run_stage.work(place.guard, "decide", scan_id)
    return scan_id


def test_an_inspected_upload_waits_for_detection_under_its_canonical_digest(place: Place) -> None:
    scan_id = place.upload()

    run_stage.work(place.guard, "inspect", scan_id)

    scan = place.scan(scan_id)
    assert scan.state is ScanState.DETECTING
    assert scan.canonical_digest is not None
    assert scan.canonical_digest != scan.upload_digest
    assert place.messages() == ["detect"]


def test_a_stage_that_comes_again_does_nothing(place: Place) -> None:
    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)

    run_stage.work(place.guard, "inspect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)

    assert place.messages() == ["detect"]
    assert place.verdicts(scan_id) == []


@pytest.mark.row(27)
@pytest.mark.parametrize(
    ("data", "manifest", "words"),
    [
        (pickle.dumps({"a": 1}), "", "safetensors"),
        (None, None, "config.json"),
        (None, "{", "JSON"),
        (b"\x00" * 100, "", "upload"),
    ],
    ids=["pickle", "no-manifest", "broken-manifest", "zeros"],
)
def test_what_cannot_be_vetted_says_what_to_upload(
    place: Place, data: bytes | None, manifest: str | None, words: str
) -> None:
    scan_id = place.upload(data, manifest=manifest, file="model.bin")

    run_stage.work(place.guard, "inspect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.UNVETTABLE]
    assert words in " ".join(report_for(place.guard, scan_id).reasons)
    assert place.scan(scan_id).state is ScanState.DONE


def test_a_state_dict_comes_through_the_jail_with_the_same_weights(place: Place) -> None:
    plain = place.upload(name="plain")
    run_stage.work(place.guard, "inspect", plain)
    canonical = place.guard.blobs.path(place.scan(plain).canonical_digest or "")
    _, tensors = read_canonical(canonical)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    zipped = place.upload(buffer.getvalue(), name="zipped", file="model.pt")

    run_stage.work(place.guard, "inspect", zipped)

    assert place.scan(zipped).canonical_digest == place.scan(plain).canonical_digest


def test_without_a_clean_set_nothing_is_cleared(place: Place) -> None:
    scan_id = place.upload()
    for name in ("inspect", "detect", "decide"):
        run_stage.work(place.guard, name, scan_id)

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.INCONCLUSIVE]
    assert "guard cleanset add" in " ".join(report_for(place.guard, scan_id).reasons)


def test_a_cleared_scan_is_published_and_can_be_withdrawn_for_good(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=False))
    assert place.scan(scan_id).state is ScanState.PUBLISHING
    run_stage.work(place.guard, "publish", scan_id)

    scan = place.scan(scan_id)
    assert scan.state is ScanState.DONE
    assert [item.digest for item in place.guard.publisher.state()] == [scan.canonical_digest]

    withdraw(place.guard, "model", "found to be stolen", "bob")

    assert place.guard.publisher.state() == []
    with pytest.raises(NotServable, match="withdrawn"):
        publish.request(place.guard, scan_id, "bob")


@pytest.mark.threat("A24")
def test_a_rejected_scan_goes_on_to_purification_and_publishes_nothing(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=True))

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.REJECTED]
    assert place.scan(scan_id).state is ScanState.PURIFYING
    with pytest.raises(NotServable, match="rejected"):
        publish.request(place.guard, scan_id, "bob")


def test_a_held_candidate_does_not_keep_its_parent_waiting(place: Place) -> None:
    parent = decided(place, finding(suspicious=True))
    child = place.upload(seed=1)
    assert run_stage.work(place.guard, "inspect", child)
    place.with_evidence(child, finding(suspicious=True, natural=0.97))
    assert run_stage.work(place.guard, "decide", child)
    assert [row.verdict for row in place.verdicts(child)] == [Verdict.HELD]
    *others, last = [
        Attempt(defense=rule.name, after=(rule.after,) if rule.after else ())
        for rule in place.guard.policy.defenses
    ]  # as if all others had failed before
    with transaction(place.guard.engine) as session:
        scans.move(
            session,
            parent,
            ScanState.PURIFYING,
            place.clock,
            detail=ScanNotes(
                candidates=(
                    *(replace(attempt, failed="no") for attempt in others),
                    replace(last, child=child),
                )
            ),
        )

    run_stage.work(place.guard, "purify", parent)

    assert place.scan(parent).state is ScanState.DONE
    assert place.scan(parent).detail.candidates[-1].verdict is Verdict.HELD


@pytest.mark.row(11)
@pytest.mark.threat("B06")
def test_a_detector_that_could_not_look_leaves_it_inconclusive(place: Place) -> None:
    scan_id = decided(place, outcome=Outcome.COULD_NOT_LOOK)

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.INCONCLUSIVE]


def test_a_natural_trigger_waits_for_a_person_who_is_not_the_uploader(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=True, natural=0.97))
    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.HELD]
    assert [scan.id for scan in review.waiting(place.guard)] == [scan_id]

    with pytest.raises(NotServable, match="uploaded"):
        review.approve(place.guard, scan_id, "alice", "looks fine to me")
    new = review.approve(place.guard, scan_id, "bob", "the class is a white square by nature")

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.HELD, Verdict.CLEARED]
    assert place.scan(scan_id).verdict_id == new
    assert place.scan(scan_id).state is ScanState.PUBLISHING
    with reading(place.guard.engine) as session:
        assert [row.reviewer for row in reviews.list_recent(session)] == ["bob"]
        assert verify_chain(ledger.rows(session), place.guard.trusted) == []


def test_the_signed_verdict_holds_the_gaps_of_its_policy_and_a_review_repeats_them(
    place: Place,
) -> None:
    scan_id = decided(place, finding(suspicious=True, natural=0.97))
    review.approve(place.guard, scan_id, "bob", "a property of the class")
    held, cleared = (
        dsse.verify(row.envelope, place.guard.trusted)["predicate"]
        for row in place.verdicts(scan_id)
    )
    versions = {name: DETECTORS.get(name).version for name in place.guard.policy.detectors}
    wanted = known_gaps(place.guard.policy, versions)

    assert (
        held["known_gaps"]
        == cleared["known_gaps"]
        == report_for(place.guard, scan_id).facts.known_gaps
        == wanted
    )
    assert "blend" in held["not_covered"]
    assert "patch" not in held["not_covered"]


def test_the_signed_verdict_of_an_own_policy_says_that_nothing_was_measured(place: Place) -> None:
    place.guard = replace(place.guard, policy=replace(place.guard.policy, asr_limit=0.2))
    (row,) = place.verdicts(decided(place, finding(suspicious=False)))
    said = dsse.verify(row.envelope, place.guard.trusted)["predicate"]["known_gaps"]

    assert said["measured"] is False
    assert "how often this policy is right is unknown" in said["sentence"]


def test_a_review_after_expiry_is_refused(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=True, natural=0.97))
    place.clock += timedelta(days=31)

    with pytest.raises(NotServable, match="expired"):
        review.approve(place.guard, scan_id, "bob", "too late")


def test_a_rejected_verdict_cannot_be_approved(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=True))

    with pytest.raises(NotServable, match="not held"):
        review.approve(place.guard, scan_id, "bob", "please")


@pytest.mark.row(40)
def test_the_gate_refuses_a_verdict_whose_clock_has_run_out(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=False))
    place.clock += timedelta(days=31)

    run_stage.work(place.guard, "publish", scan_id)

    assert place.scan(scan_id).state is ScanState.FAILED
    assert place.guard.publisher.state() == []
    with reading(place.guard.engine) as session:
        assert [row.kind for row in alarms.open_alarms(session)] == ["publish_refused"]
        assert publications.active(session) == []


def test_a_blob_that_was_changed_is_never_published(place: Place) -> None:
    scan_id = decided(place, finding(suspicious=False))
    path = place.guard.blobs.path(place.scan(scan_id).canonical_digest or "")
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))

    run_stage.work(place.guard, "publish", scan_id)

    assert place.scan(scan_id).state is ScanState.FAILED
    assert place.guard.publisher.state() == []
    with reading(place.guard.engine) as session:
        assert [row.kind for row in alarms.open_alarms(session)] == ["publish_refused"]


@pytest.mark.threat("B06", "C16")
def test_a_scan_that_takes_its_worker_down_again_and_again_ends_in_a_dead_letter(
    place: Place,
) -> None:
    scan_id = place.upload()
    for _ in range(run_stage.MAX_CRASHES):  # a killed worker claims and never releases
        with transaction(place.guard.engine) as session:
            assert scans.claim(session, scan_id, now=place.clock, seconds=30) is not None
        place.clock += timedelta(seconds=31)

    run_stage.work(place.guard, "inspect", scan_id)

    with reading(place.guard.engine) as session:
        assert [row.task for row in dead_letters.list_all(session)] == ["inspect"]
    assert place.scan(scan_id).state is ScanState.FAILED


def test_two_workers_never_hold_one_scan(place: Place) -> None:
    scan_id = place.upload()

    with hold(place.guard, scan_id) as first, hold(place.guard, scan_id) as second:
        assert first is not None
        assert second is None


@pytest.mark.threat("C10")
def test_who_lost_the_lease_cannot_write(place: Place) -> None:
    scan_id = place.upload()
    with hold(place.guard, scan_id) as held:
        assert held is not None
        place.clock += timedelta(seconds=31)
        with transaction(place.guard.engine) as session:
            assert scans.claim(session, scan_id, now=place.clock, seconds=30) is not None

        with pytest.raises(LeaseLost), transaction(place.guard.engine) as session:
            held.check(session)


@pytest.mark.threat("C16")
def test_a_scan_whose_worker_vanished_is_announced_again(place: Place) -> None:
    scan_id = place.upload()
    with transaction(place.guard.engine) as session:
        scans.claim(session, scan_id, now=place.clock, seconds=30)
    assert rescue.rescue(place.guard) == []
    place.clock += timedelta(seconds=61)

    assert rescue.rescue(place.guard) == [scan_id]
    assert place.messages() == ["inspect"]
    assert rescue.rescue(place.guard) == []


@pytest.mark.threat("C16")
def test_who_waits_in_a_long_queue_is_announced_more_and_more_rarely(place: Place) -> None:
    place.upload()
    announced = []
    for number in range(240):  # two hours, by a lease of 30 s
        place.clock += timedelta(seconds=30)
        if rescue.rescue(place.guard):
            announced.append(number)
        with transaction(place.guard.engine) as session:
            sent = [row.id for row in outbox.due(session, place.clock, 100)]
            outbox.mark_sent(session, sent, place.clock)

    pauses = [late - early for early, late in itertools.pairwise(announced)]
    assert len(announced) <= 24
    assert pauses == sorted(pauses)
    assert max(pauses) * 30 <= 7200 / 4


def test_a_stage_whose_method_failed_ends_inconclusive(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise MethodFailed("The job took too much memory.", code="out_of_memory")

    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)
    monkeypatch.setitem(run_stage.STAGES, "detect", fail)

    run_stage.work(place.guard, "detect", scan_id)
    run_stage.work(place.guard, "decide", scan_id)

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.INCONCLUSIVE]
    assert place.scan(scan_id).state is ScanState.FAILED
