"""The sift of the training set that an upload names: a part of the detect stage, after detectors.

The set is copied, decoded and sifted in that order; only the copying has credentials. Whatever is
wrong with the set becomes evidence that the sift could not look, and the scan goes on.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed, TrainingSetError
from guard.core.evidence import Evidence
from guard.core.manifest import Manifest
from guard.core.plain import to_plain
from guard.core.trainset import TrainingSetSource
from guard.flow import trainsets
from guard.flow.context import SPARE
from guard.jobs.run import run_job
from guard.policy.training_set import sift_rules
from guard.store import evidence
from guard.store.session import reading
from guard.vetting.sift_evidence import could_not_look

if TYPE_CHECKING:
    from guard.core.evidence import CleanSetFacts
    from guard.flow._lease import Held
    from guard.flow.context import Guard
    from guard.store.rows import ScanRow

SET = "set"  # the folder of the decoded set, in the workspace


def sift(
    guard: "Guard",
    held: "Held",
    scan: "ScanRow",
    manifest: Manifest,
    cleanset: "CleanSetFacts",
    seed: int,
) -> Evidence | None:
    """Sift the set that taught the upload; its files are stored as blobs.

    Returns:
        The evidence, which may be stored already; None where no set is named, and for a repaired or
        retrained network, which the whole set of its parent did not teach.

    Raises:
        Unavailable: the store does not answer; another try may succeed.
        Cancelled: another worker took over.
    """
    named = manifest.training_set
    if named is None or scan.detail.purification is not None or scan.detail.retraining is not None:
        return None
    artifact = scan.canonical_digest or ""
    try:
        return _sifted(guard, held, named, artifact, cleanset, seed)
    except Cancelled:
        raise
    except (TrainingSetError, MethodFailed) as error:
        rules = sift_rules(guard.policy.training_set)
        return could_not_look(
            artifact, cleanset.digest, named.uri, rules, error.sentence, seed=seed
        )


def _sifted(
    guard: "Guard",
    held: "Held",
    named: TrainingSetSource,
    artifact: str,
    cleanset: "CleanSetFacts",
    seed: int,
) -> Evidence | None:
    place = trainsets.resolve(guard, named)
    canonical = guard.blobs.path(artifact)
    with reading(guard.engine) as session:
        known = [item.key for item in evidence.for_artifact(session, artifact, cleanset.digest)]
    with guard.workspace() as folder:
        shape = (cleanset.channels, cleanset.height, cleanset.width)
        trainsets.read(guard, place, folder, shape=shape, progress=held.alive)
        out = folder / "sift"
        out.mkdir()
        request: dict[str, Any] = {
            "model": str(canonical),
            "artifact": artifact,
            "cleanset": str(guard.blobs.path(cleanset.digest)),
            "cleanset_name": cleanset.name,
            "set": str(folder / SET),
            "source": to_plain(replace(place, uri=named.uri)),
            "rule": asdict(guard.policy.training_set),
            "seed": seed,
            "seconds": guard.settings.scan_seconds,
            "device": guard.settings.device,
            "known": known,
        }
        limits = guard.limits(guard.settings.scan_seconds + SPARE)
        answer = run_job("sift", request, out, limits=limits, on_progress=held.alive)
        if "known" in answer:
            with reading(guard.engine) as session:
                return evidence.find(session, answer["known"])
        for digest in answer["files"]:
            _store(guard, out / digest)
    return Evidence.from_dict(answer["evidence"])


def _store(guard: "Guard", path: Path) -> None:
    with path.open("rb") as file:
        guard.blobs.put(iter(lambda: file.read(1 << 20), b""))
