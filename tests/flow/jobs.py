"""A service with a backdoored model whose training set is stored, and jobs on that set."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import update

from guard.cleansets import curate, load, read_source
from guard.core.training_jobs import JobKind, JobState
from guard.core.trainset import TrainingSetSource
from guard.flow import run_job, run_stage, training_jobs, trainsets
from guard.flow.training_jobs import Asked
from guard.ml.cleanset import CuratedSet
from guard.policy import DefenseRule, load_policy
from guard.policy.rules import RetrainRule, TrainingSetRule
from guard.store import cleansets, outbox
from guard.store import training_jobs as job_rows
from guard.store.session import reading, transaction
from guard.store.training_rows import TrainingJobRow
from guard.store.training_tables import TrainingJob
from guard.trainsets import read
from guard.vetting.examine import open_model
from guard.vetting.retrain_run import RetrainRun
from guard.vetting.retrain_state import SIFT, RetrainState
from guard.vetting.sift import Sift
from guard.vetting.training_set import sift_named
from tests.cli import models, sets
from tests.flow.place import Place
from tests.services import scratch

#: Enough to teach the stripes; a pass takes a fraction of a second.
PARAMETERS = {"epochs": 6}


@cache
def _files() -> Path:
    folder = scratch("jobs")
    models.saved(folder / "bad", backdoored=True)
    sets.training_set(folder / "taught.npz", poisoned=True)
    models.clean_set(folder / "clean.npz")
    return folder


@cache
def _sift() -> Sift:
    """What a quick sift finds in the set; the one that jobs make takes most of a minute."""
    with tempfile.TemporaryDirectory() as folder:
        return sift_named(**_about(Path(folder)), methods=sets.QUICK).found


def _about(folder: Path) -> dict[str, Any]:
    """The model with its sets, as a job reads them."""
    blob, facts = curate(read_source(_files() / "clean.npz"), "stripes")
    return {
        "model": open_model(_files() / "bad" / "model.safetensors", device="cpu"),
        "train": read(_files() / "taught.npz", folder, uri="stripes"),
        "source": TrainingSetSource(uri="stripes"),
        "curated": CuratedSet.from_arrays(*load(blob, facts.name)),
        "rule": TrainingSetRule(),
    }


class Service(Place):
    """The model is `scan_id`, its training set is stored as `stripes`."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, env)
        self.files = _files()
        rules = load_policy()
        weak = {"weight_statistics": replace(rules.detectors["weight_statistics"], required=True)}
        self.guard = replace(
            self.guard,
            settings=replace(self.guard.settings, device="cpu"),
            policy=replace(
                rules,
                detectors=weak,
                defenses=(DefenseRule(name="relabelling", informed=True),),
                retrain=RetrainRule(methods=("sifted",), budget_seconds=600.0, max_open=2),
            ),
        )
        blob, facts = curate(read_source(self.files / "clean.npz"), "stripes")
        with transaction(self.guard.engine) as session:
            cleansets.put(session, facts, self.clock)
        self.guard.blobs.put_bytes(blob)
        trainsets.add(self.guard, "bob", "stripes", str(self.files / "taught.npz"))
        manifest = json.loads((self.files / "bad" / "config.json").read_text())
        self.scan_id = self.upload(
            (self.files / "bad" / "model.safetensors").read_bytes(),
            name="bad",
            manifest=json.dumps(manifest),
        )
        assert run_stage.work(self.guard, "inspect", self.scan_id)

    def allow(self, **rule: Any) -> None:
        """Another rule for retraining from now on."""
        policy = self.guard.policy
        rules = replace(policy, retrain=replace(policy.retrain, **rule))
        self.guard = replace(self.guard, policy=rules)

    def ask(self, who: Any = "ann", **changes: Any) -> TrainingJobRow:
        """Ask for the model to be retrained."""
        given: dict[str, Any] = {
            "kind": JobKind.RETRAIN,
            "model": "bad",
            "training_set": "stripes",
            "method": "sifted",
            "parameters": PARAMETERS,
        }
        job = training_jobs.request(self.guard, who, Asked(**{**given, **changes}))
        return (
            job
            if job.kind is JobKind.SIFT or job.wanted.training_set.uri != "stripes"
            else self.sifted(job)
        )

    def work(self, job: TrainingJobRow) -> TrainingJobRow:
        """Do a job as a worker does, and see how it is then."""
        run_job.work(self.guard, job.id)
        return self.job(job)

    def sifted(self, job: TrainingJobRow) -> TrainingJobRow:
        """The job as if an earlier worker had been killed right after its sift."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "set").mkdir()
            run = RetrainRun(
                **_about(Path(folder) / "set"),
                digest=job.artifact_digest,
                method=job.wanted.method,
                parameters=job.wanted.parameters,
                seed=job.wanted.seed,
                device="cpu",
            )
            state = RetrainState(Path(folder), run.key())
            state.save(_sift())
            kept = self.guard.blobs.put_bytes((Path(folder) / SIFT).read_bytes())
        with transaction(self.guard.engine) as session:
            session.execute(
                update(TrainingJob)
                .where(TrainingJob.id == job.id, TrainingJob.state == JobState.QUEUED)
                .values(files={SIFT: kept})
            )
        return self.job(job)

    def job(self, job: TrainingJobRow) -> TrainingJobRow:
        with reading(self.guard.engine) as session:
            return job_rows.get(session, job.id)

    def announced(self) -> list[tuple[str, str]]:
        """The messages that wait, with the id in each."""
        with reading(self.guard.engine) as session:
            rows = outbox.due(session, self.clock, 100)
        return [(row.task, next(iter(row.payload.values()))) for row in rows]

    def stored(self) -> set[str]:
        """The digests of all blobs."""
        root = Path(self.guard.settings.blob_url)
        return {path.name for path in root.glob("??/*")}

    def pass_seconds(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def sent(self) -> None:
        """The relay has sent every message."""
        with transaction(self.guard.engine) as session:
            rows = outbox.due(session, self.clock, 100)
            outbox.mark_sent(session, [row.id for row in rows], self.clock)
