"""The public Python API for training a network anew on the training set of another one."""

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.digests import json_digest
from guard.core.errors import InputError, MethodFailed
from guard.core.progress import Progress, part, silent
from guard.core.retraining import RetrainingFacts
from guard.core.sift import SiftVerdict
from guard.core.trainset import Suspect, TrainingSetSource
from guard.offline import write_model
from guard.offline_inputs import image_set, inspect_at, name_of, policy_of
from guard.offline_sift import opened
from guard.reports.report import Report
from guard.retrainers import RETRAINERS
from guard.sifters import SIFTERS
from guard.vetting import examine
from guard.vetting import retrain as training
from guard.vetting.parameters import checked
from guard.vetting.retrain_state import RetrainState, begun
from guard.vetting.sift import DEFAULT_METHODS
from guard.vetting.tournament import Work
from guard.vetting.training_set import sift_named

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.policy import Policy
    from guard.trainsets import TrainingSet
    from guard.vetting.sift import Sift

READ, SIFTED, TRAINED = 0.05, 0.25, 0.85  # of the progress


def retrain(
    training_set: "str | Path | TrainingSet",
    *,
    like: str | Path,
    method: str,
    cleanset: "str | Path | CuratedSet",
    out: str | Path,
    resume: bool = False,
    params: Mapping[str, Any] | None = None,
    policy: "str | Path | Policy | None" = None,
    sifters: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Sift a training set, train a network anew on what that leaves, and vet the result.

    The result is written to `out` whatever its verdict, and served by nobody for that. A clearance
    is withheld where it still obeys accused images of the proof part.

    While the training lasts, its state lies in `state_folder(out)`. After a crash, a kill or a
    `Cancelled` that `progress` raised, the same call with `resume` goes on from there, and gives
    the same weights to the bit on one machine with the same number of threads.

    Args:
        training_set: as `guard.sift`.
        like: the model that the set taught, as `guard.load_model`; the new one is built like it.
        method: `sifted`, `d_st`, `trap_and_replace`, or another retrainer.
        cleanset: as `guard.scan`.
        out: a folder for `model.safetensors` and `config.json`.
        resume: go on with a training that was interrupted; without one, begin.
        params: parameters of the method.
        policy: as `guard.scan`; its section `training_set` counts for the sift.
        sifters: parameters by sifter's name; by default those that decide.
        seed: the same seed gives the same network.
        device: a torch device; None takes CUDA where there is one.

    Raises:
        InputError: as `guard.sift`; also a method or parameter that does not exist, and a training
            that was begun with the same `out` and is not resumed, or is another one.
        ArtifactRejected: `like` is none that the guard can open.
        MethodFailed: the sift could not look, or nothing could be trained.
    """
    started, rules, watch = time.monotonic(), policy_of(policy), progress or silent
    kind = RETRAINERS.get(method)  # a wrong name or value is refused before the long sift
    given = checked(kind, params or {})
    made = kind(**given)
    folder = _free(state_folder(out), resume=resume)
    with tempfile.TemporaryDirectory() as temporary:
        inspected = inspect_at(Path(like), Path(temporary))
        model = examine.open_model(inspected.canonical, device=device)
        curated = image_set(cleanset)
        with opened(training_set, model, progress=part(watch, 0, READ)) as (train, source):
            job = _Job(
                work=Work(rules, curated, seed, part(watch, TRAINED, 1, "vetting"), math.inf),
                model=model,
                digest=inspected.digest,
                train=train,
                source=source,
                sifters=DEFAULT_METHODS if sifters is None else sifters,
                method=method,
                parameters=given,
                device=device,
                watch=watch,
            )
            state = RetrainState(folder, job.key(made.parameters(), made.version))
            with state.held():
                found = job.run(state, Path(out))
                state.forget()
    return replace(found, seconds=time.monotonic() - started)


def state_folder(out: str | Path) -> Path:
    """Where the state of an unfinished training lies: beside its folder `out`."""
    place = Path(out).absolute()
    return place.with_name(f"{place.name}.retrain")


def _free(folder: Path, *, resume: bool) -> Path:
    if begun(folder) and not resume:
        raise InputError(
            f"{folder} holds a training that was interrupted; go on with --resume, or delete it.",
            code="retraining_begun",
        )
    return folder


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One retraining: the model that it replaces, its set as it was read, and how it is done."""

    work: Work
    model: "ImageModel"
    digest: str
    train: "TrainingSet"
    source: TrainingSetSource
    sifters: Mapping[str, Mapping[str, Any]]
    method: str
    parameters: Mapping[str, Any]
    device: str | None
    watch: Progress

    def key(self, parameters: Mapping[str, Any], method_version: int) -> str:
        """SHA-256 of all that the sift and the training depend on."""
        sifters = {name: SIFTERS.get(name) for name in self.sifters}
        return json_digest(
            {
                "model": self.digest,
                "training_set": [self.train.facts.digest, self.source.class_names],
                "cleanset": self.work.curated.facts.digest,
                "rule": asdict(self.work.policy.training_set),
                "sifters": {
                    name: [kind.version, kind(**self.sifters[name]).parameters()]
                    for name, kind in sifters.items()
                },
                "method": [self.method, method_version, dict(parameters)],
                "seed": self.work.seed,
                "device": self.device or "",
                "torch": version("torch"),
            }
        )

    def run(self, state: RetrainState, out: Path) -> Report:
        """Sift or read the sift, train or go on, write, and vet."""
        from guard.ml.training.checkpoints import FolderCheckpoint

        train, found = self._sifted(state)
        sifted = found.sifted()
        trained = (self.model.manifest, train, self.work.curated, sifted)
        seed = self.work.seed
        how = (self.method, self.parameters)
        request = training.request_of(*trained, *how, seed=seed)
        with tempfile.TemporaryDirectory() as temporary:
            new, vetted = Path(temporary) / "new.safetensors", Path(temporary) / "vetted"
            _, facts = training.retrain(
                *trained,
                *how,
                new,
                checkpoint=FolderCheckpoint(state.folder, request),
                parent=(self.model, self.digest),
                seed=seed,
                progress=part(self.watch, SIFTED, TRAINED),
                device=self.device,
            )
            vetted.mkdir()
            inspected = inspect_at(new, vetted)
            write_model(out, inspected)
            return self._vetted(inspected, facts, train, found.report.suspects, name_of(out))

    def _sifted(self, state: RetrainState) -> "tuple[TrainingSet, Sift]":
        """The set in the model's own classes, and what a sift found in it, now or before."""
        if (known := state.load()) is not None:
            from guard.trainsets import for_model

            return for_model(self.train, self.source, self.model.manifest), known
        made = sift_named(
            self.model,
            self.train,
            self.source,
            self.work.curated,
            self.work.policy.training_set,
            methods=self.sifters,
            seed=self.work.seed,
            progress=part(self.watch, READ, SIFTED, "sift"),
        )
        if made.report.verdict is SiftVerdict.COULD_NOT_LOOK:
            raise MethodFailed(
                f"Without a sift nothing is trained: {made.report.reasons[0]}",
                code="sift_could_not_look",
            )
        state.save(made.found)
        return made.train, made.found

    def _vetted(
        self,
        inspected: examine.Inspected,
        facts: RetrainingFacts,
        train: "TrainingSet",
        suspects: tuple[Suspect, ...],
        name: str,
    ) -> Report:
        """The report on the new network, which is judged like any upload."""
        child = examine.open_model(inspected.canonical, device=self.device)
        facts = training.on_proof(facts, self.model, child, train, suspects)
        work = replace(self.work, sifted=True)
        decision, examined = work.judge(child, inspected.digest)
        verdict = training.withheld(work.policy, decision.facts, facts)
        return replace(work.report(verdict, examined, inspected, name, 0.0), retraining=facts)
