"""`guard sift --submit`: the service does it, `guard status` shows what came of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.plain import to_plain
from guard.core.sift import SiftReport, SiftRules, SiftVerdict
from guard.core.training_jobs import JobState
from guard.core.trainset import Suspect, TrainingSetFacts
from guard.flow import training_jobs as flow
from guard.store import training_jobs
from guard.store.session import transaction
from tests.cli.conftest import Answer
from tests.flow.jobs import Service

Cli = Callable[..., Answer]
POLICY = '[policy]\nname = "sifting"\n[detectors.weight_statistics]\n'
FACTS = TrainingSetFacts(
    uri="stripes",
    digest="0" * 64,
    images=2000,
    total=2000,
    channels=1,
    height=2,
    width=2,
    class_names=("cow", "ant"),
    per_class=(1000, 1000),
)
SUSPECT = Suspect(index=3, label=1, estimated=0, fdr=0.05, source="3", proof=True)
REPORT = SiftReport(
    verdict=SiftVerdict.POISONED,
    reasons=("The model obeys the accused images of class 'ant'.",),
    training_set=FACTS,
    cleanset="1" * 64,
    seed=0,
    rules=SiftRules(),
    suspects=(SUSPECT,),
)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("GUARD_POLICY_FILE", str(tmp_path / "policy.toml"))
    return made


def end(service: Service, job_id: str, *, total: int) -> None:
    """The job is done, and `total` images were accused."""
    now = service.guard.now()
    with transaction(service.guard.engine) as session:
        lease = training_jobs.claim(session, job_id, now=now, seconds=1e9)
        assert lease is not None
        result = {**to_plain(REPORT), "suspects_total": total}
        training_jobs.end(session, lease, JobState.DONE, now, note="done", result=result)


def test_a_sift_is_asked_for_by_name_digest_or_file_without_a_rule_that_allows_it(
    cli: Cli, service: Service
) -> None:
    answer = cli("sift", "bad", "stripes", "--submit", "--format", "json")
    job = json.loads(answer.out)
    assert (answer.code, job["kind"], job["state"], job["method"]) == (0, "sift", "queued", "")

    for model in (service.scan(service.scan_id).canonical_digest, service.files / "bad"):
        again = cli("sift", model, "stripes", "--cleanset", "stripes", "--submit")
        assert (again.code, job["id"] in again.out) == (0, True), again.err
    seven = cli("sift", "bad", "stripes", "--submit", "--seed", "7", "--format", "json")
    other = json.loads(seven.out)
    asked = {one.id for one in flow.recent(service.guard)}
    assert asked == {job["id"], other["id"]}


@pytest.mark.parametrize(
    ("total", "counted"),
    [(1, "1 suspects (1 of them kept for the proof)"), (1200, "1,200 suspects (the first 1 of")],
)
def test_a_sift_that_is_done_is_shown_with_its_report(
    cli: Cli, service: Service, total: int, counted: str
) -> None:
    job = json.loads(cli("sift", "bad", "stripes", "--submit", "--format", "json").out)["id"]
    assert "POISONED" not in cli("status", job).out
    end(service, job, total=total)

    listed = cli("status", "--jobs")
    line = next(line for line in listed.out.splitlines() if job[:12] in line)
    assert {"sift", "stripes", "done", "poisoned"} <= set(line.split())
    for more in ((), ("--watch",)):
        shown = cli("status", job[:12], *more)
        assert (shown.code, "POISONED" in shown.out) == (0, True)
        assert counted in " ".join(shown.out.replace("│", " ").split())
    document = json.loads(cli("status", job, "--format", "json").out)
    assert (document["result"]["verdict"], document["result"]["suspects_total"]) == (
        "poisoned",
        total,
    )


def test_a_sift_is_cancelled(cli: Cli, service: Service) -> None:
    job = json.loads(cli("sift", "bad", "stripes", "--submit", "--format", "json").out)["id"]
    assert "is cancelled" in cli("sift", "--cancel", job[:12]).out
    assert "cancelled already" in cli("sift", "--cancel", job).err


REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "MODEL is missing"),
    (("bad",), "SET is missing"),
    (("bad", "stripes"), "--cleanset is missing"),
    (("bad", "stripes", "--digest", "0" * 64), "--digest goes with --submit only"),
    (("bad", "stripes", "--submit", "--out", "x.json"), "--out goes with a sift here only"),
    (("bad", "stripes", "--submit", "--html", "x"), "--html goes with a sift here only"),
    (("bad", "stripes", "--submit", "--policy", "x"), "--policy goes with a sift here only"),
    (("bad", "stripes", "--submit", "--device", "cpu"), "--device goes with a sift here only"),
    (("nobody", "stripes", "--submit"), "nobody"),
    (("bad", "nothing", "--submit"), "No training set is called 'nothing'"),
    (("bad", "--submit"), "config.json names no training set"),
    (("bad", "s3://sets/p/", "--submit"), "Nothing says what must lie at s3://sets/p/"),
    (("bad", "stripes", "--cleanset", "c", "--submit"), "No clean set is called 'c'"),
)


def test_what_does_not_go_together_or_is_not_there_is_refused(cli: Cli, service: Service) -> None:
    for args, said in REFUSED:
        answer = cli("sift", *args)
        assert (answer.code, said in " ".join(answer.err.split())) == (4, True), answer.err
    assert flow.recent(service.guard) == []
