"""Scan a folder of reference models; each model's evidence is kept beside its truth.

The layout is that of `benchmarks.zoo`: DIR/<model>/{model.safetensors, config.json, truth.json} and
DIR/cleansets/<data>.npz. A scan writes DIR/<model>/scan-<method>.json: `Evidence.to_dict()`, with
the ASR of each trigger on the hold-out as `guard.vetting.examine` measures it. A model with such a
file is not scanned again by that method. Methods never see `truth.json`. No store, no network.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget
from guard.core.digests import json_digest
from guard.core.errors import InputError
from guard.core.evidence import Evidence
from guard.core.manifest import MANIFEST_FILE
from guard.core.progress import Progress, silent
from guard.detectors import DETECTORS
from guard.policy import Policy
from guard.vetting import examine, modalities

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet

MODEL, TRUTH = "model.safetensors", "truth.json"


@dataclass(frozen=True)
class Member:
    """One reference model; `truth` holds at least name, data and backdoored."""

    folder: Path
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def backdoored(self) -> bool:
        return bool(self.truth["backdoored"])

    @property
    def group(self) -> str:
        """The group that must not be split between fitting and scoring.

        All models of one attack are a group, and each honest model is one of its own.
        """
        return f"attack:{self.truth.get('attack')}" if self.backdoored else f"model:{self.name}"


@dataclass(frozen=True)
class Scanned:
    """A member with the digest and architecture of its canonical file, and all evidence on it."""

    member: Member
    digest: str
    architecture: str
    evidence: tuple[Evidence, ...]


def members(zoo: Path) -> list[Member]:
    """All models below a folder, by name.

    Raises:
        InputError: there is none, or a `truth.json` lacks a required key.
    """
    found = []
    for path in sorted(zoo.glob(f"*/{TRUTH}")):
        try:
            truth = json.loads(path.read_text())
            whole = (
                isinstance(truth, dict)
                and isinstance(truth["backdoored"], bool)
                and isinstance(truth["data"], str)
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path} does not hold a model's truth: {error!r}.", code="bad_truth"
            ) from error
        if not whole:
            raise InputError(
                f"{path} must hold backdoored (true or false) and data (a name).",
                code="bad_truth",
            )
        found.append(Member(path.parent, truth))
    if not found:
        raise InputError(
            f"There is no model below {zoo}; each needs a folder with {MODEL}, {MANIFEST_FILE} and "
            f"{TRUTH}.",
            code="empty_zoo",
        )
    return found


def cleanset_of(zoo: Path, member: Member) -> Path:
    """The path of the member's clean set."""
    return zoo / "cleansets" / f"{member.truth['data']}.npz"


def read_cleanset(path: Path) -> "CuratedSet":
    """A clean set from a path, named after the file and split as `guard cleanset add` splits it.

    Raises:
        CleanSetError: the path holds no usable clean set.
    """
    from guard.cleansets import curate, load, read_source
    from guard.ml.cleanset import CuratedSet

    data, facts = curate(read_source(path), path.stem)
    return CuratedSet.from_arrays(*load(data, facts.name))


def scan(
    member: Member,
    curated: "CuratedSet",
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
    device: str | None = None,
    seconds: float = math.inf,
    progress: Progress = silent,
) -> Scanned:
    """Run the detectors that have not yet examined this model with these parameters, one by one.

    Each method's file is written as soon as it is done, so that an interrupted run can be resumed.

    Args:
        detectors: parameters by name.
        seconds: time budget of one method.

    Raises:
        ArtifactRejected: the model's file breaks a rule.
        CleanSetError: the clean set does not fit the model.
    """
    with TemporaryDirectory() as folder:
        manifest = (member.folder / MANIFEST_FILE).read_bytes()
        inspected = examine.inspect_upload(
            member.folder / MODEL, MODEL, manifest, Path(folder), budget=Budget()
        )
        curated = modalities.fitted(inspected.manifest, curated)
        done: dict[str, Evidence] = {}
        wanted = [examine.ACCURACY_METHOD, *detectors]
        for name in wanted:
            stored = _stored(member, name)
            key = _key(name, detectors, inspected.digest, curated.facts.digest, seed)
            if stored is not None and stored.key == key:
                done[name] = stored
        left = [name for name in wanted if name not in done]
        model = examine.open_model(inspected.canonical, device=device) if left else None
        for place, name in enumerate(left):
            if model is None or name in done:
                continue
            own = {name: dict(detectors[name])} if name in detectors else {}
            examined = examine.examine(
                model,
                inspected.digest,
                curated,
                own,
                seed=seed,
                seconds=seconds,
                progress=_part(progress, place, len(left)),
            )
            for item in examined.evidence:
                _store(member, item)
                done[item.method] = item
    return Scanned(
        member,
        inspected.digest,
        inspected.manifest.architecture,
        tuple(done[name] for name in wanted),
    )


def detectors_of(policy: Policy) -> dict[str, dict[str, Any]]:
    """The policy's detectors with the parameters that it sets."""
    return {name: dict(rule.params) for name, rule in policy.detectors.items()}


def _key(
    name: str, detectors: Mapping[str, Mapping[str, Any]], digest: str, cleanset: str, seed: int
) -> str:
    """The key that evidence of this method would have now."""
    version, parameters = examine.ACCURACY_VERSION, {}
    if name in detectors:
        method = DETECTORS.get(name)(**dict(detectors[name]))
        version, parameters = method.version, method.parameters()
    return json_digest([digest, name, version, parameters, cleanset, seed])


def _stored(member: Member, name: str) -> Evidence | None:
    """The evidence that an earlier run wrote; None where it is missing or cannot be read."""
    try:
        return Evidence.from_dict(json.loads((member.folder / f"scan-{name}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(member: Member, item: Evidence) -> None:
    path = member.folder / f"scan-{item.method}.json"
    partial = path.with_suffix(f".partial-{os.getpid()}")
    partial.write_text(json.dumps(item.to_dict(), indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _part(progress: Progress, place: int, count: int) -> Progress:
    def step(done: float, note: str = "") -> None:
        progress((place + done) / count, note)

    return step


def scan_all(
    zoo: Path,
    chosen: Sequence[Member],
    detectors: Mapping[str, Mapping[str, Any]],
    *,
    curated: "CuratedSet | None" = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress = silent,
) -> list[Scanned]:
    """Scan these members one by one, each with its own clean set of the zoo or with `curated`."""
    sets: dict[Path, CuratedSet] = {}
    found = []
    for place, member in enumerate(chosen):
        own = curated
        if own is None:
            path = cleanset_of(zoo, member)
            own = sets[path] = sets.get(path) or read_cleanset(path)

        def step(done: float, note: str = "", place: int = place, name: str = member.name) -> None:
            progress((place + done) / len(chosen), f"{name} {note}")

        found.append(scan(member, own, detectors, seed=seed, device=device, progress=step))
    return found
