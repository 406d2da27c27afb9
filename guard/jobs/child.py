"""The child process of `guard.jobs.run`, a fork of `guard.jobs.server` that does one job."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import OutOfMemoryError

from guard.core import plugins, tracing
from guard.core.contracts import Budget
from guard.core.digests import sha256
from guard.core.errors import GuardError, MethodFailed
from guard.core.plain import from_plain, to_plain
from guard.core.progress import Progress, seconds_left
from guard.core.trainset import TrainingSetSource
from guard.jobs.run import RESULT
from guard.ml.devices import bound
from guard.policy.rules import TrainingSetRule
from guard.settings import plugin_folder
from guard.trainsets import open_spool
from guard.vetting import battery_secret, canary_trial, examine, modalities, repair
from guard.vetting import cleanset_work as preparing
from guard.vetting.accused import packed, unpacked
from guard.vetting.case import settled_by
from guard.vetting.repair_probes import Replay
from guard.vetting.sift_evidence import report_bytes
from guard.vetting.training_set import sift_key, sift_named


def inspect(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Check an upload and write its canonical file to `out`."""
    manifest = request["manifest"]
    inspected = examine.inspect_upload(
        Path(request["path"]),
        request["name"],
        manifest.encode() if manifest is not None else None,
        out,
        budget=Budget(**request["budget"]),
    )
    return {
        "format": inspected.format,
        "digest": inspected.digest,
        "canonical": inspected.canonical.name,
        "manifest": inspected.manifest.to_dict(),
        "parameters": inspected.parameters,
        "sketch": inspected.sketch,
    }


def prepare(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Compute what detectors need from a clean set; no model is involved."""
    del out
    with battery_secret.given(request.get("battery", "")):
        return preparing.prepare(
            _curated(request), request["detectors"], device=request["device"], progress=_reporter()
        )


def detect(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Run detectors; write triggers to `out/<digest>` and smoke samples to `out/smoke.json`."""
    model = examine.open_model(Path(request["model"]), device=request["device"])
    known, curated = frozenset(request["known"]), _curated(request)
    preparing.take_over(request["prepared"])
    settled = settled_by(request["policy"], request["artifact"], curated.facts)
    with battery_secret.given(request.get("battery", "")):
        examined = examine.examine(
            model,
            request["artifact"],
            curated,
            request["detectors"],
            seed=request["seed"],
            seconds=request["seconds"],
            budget=request.get("budget"),
            progress=_reporter(),
            known=known.__contains__,
            settled=settled,
        )
    for digest, data in examined.triggers.items():
        (out / digest).write_bytes(data)
    (out / "smoke.json").write_bytes(examined.smoke)
    return {
        "evidence": [item.to_dict() for item in examined.evidence],
        "triggers": sorted(examined.triggers),
    }


def purify(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Make one repaired candidate, `out/model.safetensors`."""
    model = examine.open_model(Path(request["model"]), device=request["device"])
    replays = [
        Replay(
            target=item["target"],
            digest=item["digest"],
            data=Path(item["path"]).read_bytes(),
            natural=item["natural"],
            budget=item["budget"],
        )
        for item in request["replays"]
    ]
    start = None
    if chained := request["start"]:
        start = repair.Start(
            model=examine.open_model(Path(chained["model"]), device=request["device"]),
            digest=chained["digest"],
            after=tuple(chained["after"]),
        )
    stored = request["accused"]
    accused = None if stored is None else unpacked(Path(stored).read_bytes())
    with battery_secret.given(request.get("battery", "")):
        digest, facts = repair.repair(
            model,
            request["artifact"],
            _curated(request),
            request["defense"],
            request["parameters"],
            replays,
            out / "model.safetensors",
            start=start,
            accused=accused,
            blind=request.get("blind", False),
            seed=request["seed"],
            seconds=request["seconds"],
            progress=_reporter(),
        )
    manifest = examine.manifest_of(out / "model.safetensors")
    return {"digest": digest, "facts": to_plain(facts), "manifest": manifest.to_dict()}


def canary(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Run detectors on models that are known to be clean or backdoored."""
    del out
    trials = canary_trial.try_all(
        request["detectors"],
        device=request["device"],
        seconds=request["seconds"],
        progress=_reporter(),
    )
    return {"trials": [one.to_dict() for one in trials]}


def trainset(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Decode a training set into `out`, for `guard.trainsets.open_spool`."""
    from guard.trainsets import read

    shape = request["shape"]
    train = read(
        Path(request["path"]),
        out,
        uri=request["uri"],
        shape=None if shape is None else tuple(shape),
        max_images=request["max_images"],
        max_bytes=request["max_bytes"],
        progress=_reporter(),
    )
    return {"digest": train.facts.digest}


def sift(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Sift a decoded training set; write report, triggers and accused images, each by its digest.

    Where the evidence under the same key is stored already, nothing runs and only the key is given.
    """
    model = examine.open_model(Path(request["model"]), device=request["device"])
    source = from_plain(TrainingSetSource, request["source"])
    train, rule = open_spool(Path(request["set"])), TrainingSetRule(**request["rule"])
    curated, seed = _curated(request), request["seed"]
    key = sift_key(request["artifact"], model.manifest, train, source, curated.facts, rule, seed)
    if key in request["known"]:
        return {"known": key}
    found = sift_named(
        model,
        train,
        source,
        curated,
        rule,
        seed=seed,
        seconds=request["seconds"],
        progress=_reporter(),
    )
    files = [*found.found.triggers.values(), report_bytes(found.report)]
    blobs, accused = dict[str, str](), found.accused(rule)
    if accused is not None:
        files.append(packed(accused))
        blobs["accused"] = sha256(files[-1])
    for data in files:
        (out / sha256(data)).write_bytes(data)
    evidence = found.evidence(request["artifact"], blobs)
    return {"evidence": evidence.to_dict(), "files": sorted(sha256(data) for data in files)}


def retrain(request: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Train a network anew on a decoded training set: `out/model.safetensors`, and its facts.

    What another job needs to go on from here lies in `out/state` all the while.
    """
    from guard.vetting import retrain as training
    from guard.vetting.retrain_run import RetrainRun
    from guard.vetting.retrain_state import RetrainState

    run = RetrainRun(
        model=examine.open_model(Path(request["model"]), device=request["device"]),
        digest=request["artifact"],
        train=open_spool(Path(request["set"])),
        source=from_plain(TrainingSetSource, request["source"]),
        curated=_curated(request),
        rule=TrainingSetRule(**request["rule"]),
        method=request["method"],
        parameters=request["parameters"],
        seed=request["seed"],
        device=request["device"],
        sift_seconds=request["seconds"],
        progress=_reporter(),
    )
    file = out / "model.safetensors"
    state = RetrainState(out / "state", run.key())
    if not state.fits():
        state.forget()  # of another release of torch, say: from the start
    with state.held():
        facts, train, found = run.run(state, file)
    child = examine.open_model(file, device=request["device"])
    facts = training.on_proof(facts, run.model, child, train, found.report.suspects)
    manifest = examine.manifest_of(file)
    return {"facts": to_plain(facts), "manifest": manifest.to_dict()}


KINDS: dict[str, Callable[[Mapping[str, Any], Path], dict[str, Any]]] = {
    "inspect": inspect,
    "prepare": prepare,
    "detect": detect,
    "purify": purify,
    "canary": canary,
    "trainset": trainset,
    "sift": sift,
    "retrain": retrain,
}


def _curated(request: Mapping[str, Any]) -> Any:
    from guard.cleansets import kind_of

    data = Path(request["cleanset"]).read_bytes()
    return modalities.of(kind_of(data)).read_clean(data, request["cleanset_name"])


def _reporter() -> Progress:
    """A function that reports progress as JSON lines, at most ten per second."""
    last = 0.0

    def report(done: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.1 or done >= 1:
            last = now
            line: dict[str, Any] = {"done": round(done, 4), "note": note}
            if (left := seconds_left()) is not None:
                line["seconds_left"] = round(left, 1)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    return report


def _too_much_of_the_gpu() -> dict[str, Any]:
    error = MethodFailed(
        "The job needs more memory of the GPU than is free, or than GUARD_SCAN_GPU_MEMORY_BYTES.",
        code="out_of_gpu_memory",
    )
    return {"error": {"type": "MethodFailed", "code": error.code, "sentence": error.sentence}}


def main() -> None:
    """Read the request from stdin, run the job, and write its result or error to a file."""
    plugins.use(plugin_folder())  # nothing new after a fork, which has them from the server
    request = json.load(sys.stdin)
    out = Path(request["out"])
    os.chdir(out)
    notes = tracing.Notes()  # no network here: whoever started the job passes them on
    tracing.install(notes)
    bound(request.get("device"), request.get("gpu_memory_bytes", 0))
    try:
        answer: dict[str, Any] = {"result": KINDS[request["kind"]](request, out)}
    except OutOfMemoryError:
        answer = _too_much_of_the_gpu()
    except GuardError as error:
        answer = {
            "error": {"type": type(error).__name__, "code": error.code, "sentence": error.sentence}
        }
        if type(error).__module__ != "guard.core.errors":
            answer["error"]["type"] = next(
                cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "guard.core.errors"
            )
    answer["spans"] = [part.to_plain() for part in notes.parts]
    partial = out / "result.partial"
    partial.write_text(json.dumps(answer, allow_nan=False))
    partial.rename(out / RESULT)


if __name__ == "__main__":
    main()
