"""The work on models, made up: which models there are, and what a job answers about each.

Inspection is the real one, done once for each file and remembered. What a detector says, whether a
repair helps and whether a job fails is decided here, by the model's kind.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch

from guard.core.digests import sha256
from guard.core.errors import GuardError, MethodFailed, OutOfTime
from guard.core.evidence import Accuracy, AsrEstimate, Evidence, Finding, Outcome
from guard.core.manifest import Manifest
from guard.core.plain import to_plain
from guard.core.purification import PurificationFacts
from guard.detectors import DETECTORS
from guard.jobs import child
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.vetting import examine

MANIFEST = Manifest.from_dict(
    {
        "architecture": "cifar_resnet",
        "num_classes": 5,
        "model_args": {"depths": [1], "width": 4},
        "pretrained_cfg": {"input_size": [1, 8, 8]},
    }
)
CONFIG = json.dumps(MANIFEST.to_dict()).encode()
#: What is uploaded, and how it looks to the detectors. `sleeper` is found by version 2 only.
KINDS = (
    "clean", "clean-too", "clean-three", "sleeper", "backdoored", "hopeless", "natural", "slow",
    "garbage",
)  # fmt: skip
REPAIRS = {"good": "repaired", "bad": "still backdoored"}
SUSPICIOUS = frozenset({"backdoored", "hopeless", "still backdoored"})
DETECTOR = "patch_inversion"
SMOKE = b'{"images":["aGk="],"probabilities":[[0.2,0.2,0.2,0.2,0.2]]}'
ACCURACY = Accuracy(overall=0.9, per_class=(0.9,) * 5, images=120)


@dataclass
class Models:
    """All models: uploaded bytes by kind, and each artifact's kind by the digest of its file."""

    uploads: dict[str, bytes] = field(default_factory=dict)
    canonical: dict[str, str] = field(default_factory=dict)  # digest by kind
    kinds: dict[str, str] = field(default_factory=dict)  # kind by digest, repairs too
    repaired: dict[str, bytes] = field(default_factory=dict)
    inspected: dict[tuple[str, str, str | None], tuple[dict[str, Any], bytes] | GuardError] = field(
        default_factory=dict
    )

    def repairs(self, digest: str) -> set[str]:
        """The digests of what a repair may make of a model."""
        kind = self.kinds.get(digest, "")
        any_way = {"backdoored", "sleeper", "natural"}
        wanted = {"good", "bad"} if kind in any_way else {"bad"} if kind == "hopeless" else set()
        return {sha256(self.repaired[name]) for name in wanted}


def build(folder: Path) -> Models:
    """Make and inspect every model; takes seconds, once for each process."""
    models = Models()
    for seed, kind in enumerate((*KINDS, *REPAIRS)):
        with seeded(seed):
            data = safetensors.torch.save(architectures.export(architectures.build(MANIFEST)))
        models.uploads[kind] = bytes(100) if kind == "garbage" else data
    for kind in (*KINDS, *REPAIRS):
        path = folder / "upload"
        path.write_bytes(models.uploads[kind])
        made = inspect(models, path, "model.safetensors", CONFIG.decode(), folder)
        if isinstance(made, GuardError):
            continue
        answer, data = made
        models.kinds[answer["digest"]] = REPAIRS.get(kind, kind)
        if kind in REPAIRS:
            models.repaired[kind] = data
            del models.uploads[kind]
        else:
            models.canonical[kind] = answer["digest"]
    return models


def inspect(
    models: Models, path: Path, name: str, manifest: str | None, out: Path
) -> tuple[dict[str, Any], bytes] | GuardError:
    """What a real inspection answers, with the canonical file; or how it refuses."""
    key = (sha256(path.read_bytes()), name, manifest)
    if key not in models.inspected:
        request = {"path": path, "name": name, "manifest": manifest, "budget": {}}
        try:
            answer = child.inspect(request, out)
        except GuardError as error:
            models.inspected[key] = error
        else:
            models.inspected[key] = (answer, (out / answer["canonical"]).read_bytes())
    return models.inspected[key]


@dataclass
class Jobs:
    """Stands in for `guard.jobs.run.run_job`; `failures` is how often a job fails by chance."""

    models: Models
    rng: Random = field(default_factory=lambda: Random(0))
    failures: float = 0.0
    detected: int = 0

    def run(
        self, kind: str, request: Mapping[str, Any], out: Path, *, limits: Any, on_progress: Any
    ) -> dict[str, Any]:
        """Answer as the child process of a job does, or raise as it does."""
        del limits
        on_progress(0.5, "")
        if kind == "canary":
            return {"trials": [{"method": DETECTOR, "passed": True, "sentence": ""}]}
        if kind == "prepare":
            return {"references": {}}
        if self.failures and self.rng.random() < self.failures:
            raise MethodFailed("The job was killed by signal 9.", code="job_crashed")
        made = {"inspect": self._inspect, "detect": self._detect, "purify": self._purify}
        return made[kind](request, out)

    def _inspect(self, request: Mapping[str, Any], out: Path) -> dict[str, Any]:
        path = Path(request["path"])
        made = inspect(self.models, path, request["name"], request["manifest"], out)
        if isinstance(made, GuardError):
            raise made
        answer, data = made
        (out / answer["canonical"]).write_bytes(data)
        return answer

    def _detect(self, request: Mapping[str, Any], out: Path) -> dict[str, Any]:
        digest, known = request["artifact"], frozenset(request["known"])
        self.detected += 1
        if self.models.kinds.get(digest) == "slow":
            raise OutOfTime("The job took longer than its time limit.")
        cleanset = sha256(Path(request["cleanset"]).read_bytes())
        found = [
            self._evidence(digest, name, params, cleanset)
            for name, params in request["detectors"].items()
        ]
        found.append(examine.accuracy_evidence(digest, cleanset, ACCURACY, request["seed"]))
        (out / "smoke.json").write_bytes(SMOKE)
        fresh = [item for item in found if item.key not in known]
        return {"evidence": [item.to_dict() for item in fresh], "triggers": []}

    def _purify(self, request: Mapping[str, Any], out: Path) -> dict[str, Any]:
        parent = request["artifact"]
        first = request["defense"] == "shared_distillation"
        if self.models.kinds[parent] == "hopeless" and first:
            raise MethodFailed("The defense found nothing to unlearn.", code="no_trigger")
        name = "bad" if first or self.models.kinds[parent] == "hopeless" else "good"
        data = self.models.repaired[name]
        (out / "model.safetensors").write_bytes(data)
        facts = PurificationFacts(
            defense=request["defense"],
            version=1,
            parameters=dict(request["parameters"]),
            parent=parent,
            acc_before=ACCURACY,
            acc_after=ACCURACY,
            replayed=(_asr(2, 0.01),),
            seconds=1.0,
        )
        return {
            "digest": sha256(data),
            "facts": to_plain(facts),
            "manifest": examine.manifest_of(out / "model.safetensors").to_dict(),
        }

    def _evidence(
        self, digest: str, name: str, params: Mapping[str, Any], cleanset: str
    ) -> Evidence:
        detector = DETECTORS.get(name)(**dict(params))
        kind, findings = self.models.kinds.get(digest, "clean"), tuple[Finding, ...]()
        if name == DETECTOR:
            awake = kind == "sleeper" and detector.version >= sleeper_version()
            if kind in SUSPICIOUS or awake:
                findings = (_finding(None),)
            elif kind == "natural":
                findings = (_finding(0.97),)
        return Evidence(
            artifact=digest,
            method=name,
            version=detector.version,
            parameters=detector.parameters(),
            cleanset=cleanset,
            seed=0,
            outcome=Outcome.FINDINGS if findings else Outcome.NOTHING,
            families=tuple(sorted(detector.families)),
            findings=findings,
        )


_SHIPPED = DETECTORS.get(DETECTOR).version


def sleeper_version() -> int:
    """The detector's version that finds the sleeper: the one after the shipped one."""
    return _SHIPPED + 1


def _finding(natural: float | None) -> Finding:
    return Finding(
        family="patch",
        target=2,
        suspicious=True,
        score=0.9,
        statement="A small patch leads to class 2.",
        asr=_asr(2, 0.95, natural),
    )


def _asr(target: int, estimate: float, natural: float | None = None) -> AsrEstimate:
    return AsrEstimate(
        target=target,
        family="patch",
        successes=round(estimate * 1000),
        trials=1000,
        estimate=estimate,
        low=max(0.0, estimate - 0.01),
        high=min(1.0, estimate + 0.02),
        natural=natural,
        budget=9.0,
    )
