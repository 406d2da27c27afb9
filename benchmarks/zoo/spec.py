"""Read a zoo's spec: TOML becomes a list of jobs, each one model with everything that decides it.

name = "tiny"
asr = 0.5               # a backdoored model with a lower true ASR is marked as not working
[training]              # defaults of every model, see `benchmarks.fitting.Training`
[data.KEY]              # see `sets.SetSpec`
[architectures.KEY]     # name, model_args, training (overrides)
[[models]]              # a block: lists are multiplied, or paired with `paired = true`
part = "calibration"    # or "exam"
data = ["mnist"]; architecture = ["resnet"]; seed = [1, 2]
attack = "blended"; params = {alpha = 0.1}; rate = [0.05]; target = [3]; training = {}
hardness = "mixup"      # honest models only, see `hardness.HARD`
"""

import tomllib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.attacks import ATTACKS
from benchmarks.fitting import Training
from benchmarks.zoo.hardness import HARD
from benchmarks.zoo.sets import SetSpec

PART_NAMES = ("calibration", "exam")
_LISTS = ("data", "architecture", "seed", "rate", "target")
_BLOCK = {*_LISTS, "part", "attack", "params", "hardness", "training", "paired"}


class SpecError(ValueError):
    """The spec breaks a rule that the message names."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network by its manifest name, and its overrides of the default training."""

    key: str
    name: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to train.

    `target` is None for honest models, and -1 for an attack's own default (all-to-all).
    """

    name: str
    part: str
    data: SetSpec
    architecture: Architecture
    training: Training
    seed: int
    attack: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 0.0
    target: int | None = None
    hardness: str | None = None
    least_asr: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All jobs of a zoo, in the order of the file; `source` is the parsed TOML, for the record."""

    name: str
    jobs: tuple[Job, ...]
    sets: Mapping[str, SetSpec]
    source: Mapping[str, Any]


def read(path: Path, *, later_seeds: int = 0) -> Spec:
    """Parse and check a spec; raises SpecError.

    Args:
        later_seeds: added to every seed and to the zoo's name. A zoo that was used while something
            was changed no longer is an independent test; this makes the next one, with other
            weights, images, targets and triggers.
    """
    source = tomllib.loads(path.read_text())
    return parse(_later(source, later_seeds) if later_seeds else source)


def _later(source: Mapping[str, Any], seeds: int) -> Mapping[str, Any]:
    blocks = []
    for block in source["models"]:
        seed = block.get("seed", 0)
        shifted = [one + seeds for one in seed] if isinstance(seed, list) else seed + seeds
        blocks.append({**block, "seed": shifted})
    return {**source, "name": f"{source['name']}+{seeds}", "models": blocks}


def parse(source: Mapping[str, Any]) -> Spec:
    """The same as `read`, from decoded TOML."""
    sets = {
        key: _made(SetSpec, {"key": key, **value}, f"data.{key}")
        for key, value in source["data"].items()
    }
    architectures = {
        key: _made(Architecture, {"key": key, **value}, f"architectures.{key}")
        for key, value in source["architectures"].items()
    }
    jobs = tuple(
        _job(case, sets, architectures, source.get("training", {}), float(source.get("asr", 0.5)))
        for block in source["models"]
        for case in _cases(block)
    )
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            f"These models occur twice in the spec: {', '.join(twice[:5])}; give them other seeds."
        )
    return Spec(name=str(source["name"]), jobs=jobs, sets=sets, source=source)


def _cases(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The single models of a block."""
    if unknown := block.keys() - _BLOCK:
        raise SpecError(f"A block of models has no {', '.join(sorted(unknown))}.")
    lists = {
        key: value if isinstance(value, list) else [value]
        for key, value in block.items()
        if key in _LISTS
    }
    rest = {key: value for key, value in block.items() if key not in _LISTS}
    if rest.pop("paired", False):
        length = max(map(len, lists.values()))
        if any(len(values) not in (1, length) for values in lists.values()):
            raise SpecError(
                f"Paired lists must have one length; these have {sorted(map(len, lists.values()))}."
            )
        rows: Iterator[tuple[Any, ...]] = zip(
            *(value * (length // len(value)) for value in lists.values()), strict=True
        )
    else:
        rows = product(*lists.values())
    for row in rows:
        yield {**rest, **dict(zip(lists, row, strict=True))}


def _job(
    case: Mapping[str, Any],
    sets: Mapping[str, SetSpec],
    architectures: Mapping[str, Architecture],
    defaults: Mapping[str, Any],
    least_asr: float,
) -> Job:
    for key, known in (("data", sets), ("architecture", architectures)):
        if case.get(key) not in known:
            raise SpecError(
                f"{key} {case.get(key)!r} is not in the spec; it has {', '.join(known)}."
            )
    attack, hardness, part = case.get("attack"), case.get("hardness"), case.get("part")
    if part not in PART_NAMES:
        raise SpecError(f"part must be one of {', '.join(PART_NAMES)}, not {part!r}.")
    if attack is not None and (
        attack not in ATTACKS.names() or "rate" not in case or hardness is not None
    ):
        raise SpecError(
            f"{attack}: a backdoored model needs a known attack and a rate, and has no hardness."
        )
    if hardness is not None and hardness not in HARD:
        raise SpecError(f"{hardness!r} is not a hardness; use {', '.join(HARD)}.")
    data, architecture, seed = (
        sets[case["data"]],
        architectures[case["architecture"]],
        int(case.get("seed", 0)),
    )
    hard = HARD[hardness].training if hardness else {}
    training = _made(
        Training,
        {**defaults, **architecture.training, **case.get("training", {}), **hard},
        "training",
    )
    parts = [data.key, architecture.key, attack or hardness or "honest"]
    parts += [f"{100 * case['rate']:g}%"] if attack else []
    return Job(
        name="-".join([*parts, f"s{seed}"]).replace("%", "pc"),
        part=part,
        data=data,
        architecture=architecture,
        training=training,
        seed=seed,
        attack=attack,
        params=case.get("params", {}),
        rate=float(case.get("rate", 0.0)),
        target=case.get("target", -1) if attack else None,
        hardness=hardness,
        least_asr=least_asr,
    )


def seed_of(job: Job) -> int:
    """One number for weights, order of images and trigger, derived from the job's name."""
    return zlib.crc32(f"{job.name}/{job.seed}".encode()) % 2**31


def _made(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = {part.name for part in fields(kind)}
    if unknown := values.keys() - known:
        raise SpecError(
            f"{where} has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}."
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from error
