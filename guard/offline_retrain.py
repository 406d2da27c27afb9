"""The public Python API for training a network anew on the training set of another one."""

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import InputError
from guard.core.progress import Progress, part, silent
from guard.offline import write_model
from guard.offline_inputs import image_set, inspect_at, name_of, own_battery, policy_of
from guard.offline_sift import opened
from guard.policy.retrained import withheld
from guard.reports.report import Report
from guard.retrainers import RETRAINERS
from guard.vetting import examine
from guard.vetting import retrain as training
from guard.vetting.parameters import checked
from guard.vetting.retrain_run import RetrainRun
from guard.vetting.retrain_state import RetrainState, begun
from guard.vetting.sift import DEFAULT_METHODS
from guard.vetting.tournament import Work

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.policy import Policy
    from guard.trainsets import TrainingSet

READ, TRAINED = 0.05, 0.85  # of the progress


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
    # A wrong name or value is refused before the long sift.
    given = checked(RETRAINERS.get(method), params or {})
    folder = _free(state_folder(out), resume=resume)
    with tempfile.TemporaryDirectory() as temporary, own_battery():
        inspected = inspect_at(Path(like), Path(temporary))
        model = examine.open_model(inspected.canonical, device=device)
        curated = image_set(cleanset)
        with opened(training_set, model, progress=part(watch, 0, READ)) as (train, source):
            run = RetrainRun(
                model=model,
                digest=inspected.digest,
                train=train,
                source=source,
                curated=curated,
                rule=rules.training_set,
                method=method,
                parameters=given,
                sifters=DEFAULT_METHODS if sifters is None else sifters,
                seed=seed,
                device=device,
                progress=part(watch, READ, TRAINED),
            )
            vetting = part(watch, TRAINED, 1, "vetting")
            work = Work(rules, curated, seed, vetting, math.inf, sifted=True)
            found = _trained(work, run, RetrainState(folder, run.key()), Path(out))
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


def _trained(work: Work, run: RetrainRun, state: RetrainState, out: Path) -> Report:
    """Train or go on, write, and vet: the new network is judged like any upload."""
    with tempfile.TemporaryDirectory() as temporary, state.held():
        new, vetted = Path(temporary) / "new.safetensors", Path(temporary) / "vetted"
        facts, train, found = run.run(state, new)
        vetted.mkdir()
        inspected = inspect_at(new, vetted)
        write_model(out, inspected)
        child = examine.open_model(inspected.canonical, device=run.device)
        facts = training.on_proof(facts, run.model, child, train, found.report.suspects)
        decision, examined = work.judge(child, inspected.digest)
        verdict = withheld(work.policy, decision.facts, facts)
        report = work.report(verdict, examined, inspected, name_of(out), 0.0)
        state.forget()
    return replace(report, retraining=facts)
