"""How often verdicts are right: scan a zoo with every detector and compare with the truth.

    python -m benchmarks.bench_detect --zoo DIR [--part exam] [--jobs N] [--device D] [--policy P]
    [--calibration FILE]

An interrupted run continues from DIR/<model>/scan-<method>.json. It needs torch, timm, numpy,
scipy, safetensors and matplotlib, but no service. With `--part`, the zoo's other models fit the
calibration unless a file is given, and only the part is judged; without it, all numbers of the
calibrated score are out of fold (no fit saw the model or its attack).
"""

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.attacks import ATTACKS
from benchmarks.detect import numbers, plots
from benchmarks.detect.report import page
from benchmarks.detect.rows import held_out, out_of_fold, rows_of
from benchmarks.detect.scanning import scan_zoo
from guard.core.digests import canonical_json
from guard.core.errors import InputError
from guard.core.modality import Modality
from guard.detectors import DETECTORS
from guard.policy import Calibration, DetectorRule, Policy, load_calibration, load_policy
from guard.policy.calibration import parse, probability
from guard.vetting import calibrate, population
from guard.vetting.population import Member, Scanned


def main() -> None:
    options = _options()
    policy = (
        load_policy(options.policy)
        if options.policy
        else replace(
            load_policy(),
            detectors={name: DetectorRule() for name in DETECTORS.of(Modality.IMAGES)},
        )
    )
    members = population.members(options.zoo)
    chosen = [member for member in members if options.part in (None, member.truth.get("part"))]
    others = (
        []
        if options.part is None or options.calibration
        else [one for one in members if one not in chosen]
    )
    if options.scanned:
        left = [
            member for member in chosen if not _looked_at(member, population.detectors_of(policy))
        ]
        chosen = [member for member in chosen if member not in left]
    else:
        left = []
    scanned, failed = scan_zoo(
        options.zoo,
        [*chosen, *others],
        population.detectors_of(policy),
        jobs=options.jobs,
        seed=options.seed,
        device=options.device,
    )
    if options.scan_only:
        return
    names = {member.name for member in chosen}
    exam = [item for item in scanned if item.member.name in names]
    reference = [item for item in scanned if item.member.name not in names]
    result, rows, drawn = evaluate(
        exam,
        reference,
        policy,
        calibration=load_calibration(options.calibration) if options.calibration else None,
        zoo=options.zoo,
        max_fpr=options.max_fpr,
        seed=options.seed,
    )
    result |= {
        "part": options.part or "",
        "zoo": options.zoo.resolve().name,
        "seed": options.seed,
        "device": options.device or "default",
        "note": options.note,
        "versions": {name: DETECTORS.get(name).version for name in policy.detectors},
        "not_scanned": [member.name for member in left],
        "failed": {name: why for name, why in failed.items() if name in names},
    }
    copy_zoo(options.zoo, write(options.name, result, rows, drawn), {row["name"] for row in rows})


def _looked_at(member: Member, detectors: Mapping[str, Any]) -> bool:
    return all((member.folder / f"scan-{name}.json").exists() for name in detectors)


def evaluate(
    exam: Sequence[Scanned],
    reference: Sequence[Scanned],
    policy: Policy,
    *,
    zoo: Path,
    calibration: Calibration | None = None,
    max_fpr: float = 0.05,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The result, its rows, and what else the plots need."""
    facts = {
        data: population.read_cleanset(population.cleanset_of(zoo, member)).facts
        for data, member in {str(item.member.truth["data"]): item.member for item in exam}.items()
    }
    source = (
        "a calibration file"
        if calibration
        else "the rules without references; too few models to fit"
    )
    own: dict[str, float] = {}
    try:
        if calibration is None and reference:
            calibration = parse(canonical_json(calibrate.fit(reference, seed=seed, about=zoo.name)))
            source = f"a calibration fitted on the zoo's {len(reference)} other models"
        elif calibration is None:
            own = out_of_fold(exam, seed)
            source = "out of fold, the model's attack unseen in fitting"
    except InputError as error:
        source += f" ({error.sentence})"
    rows = rows_of(exam, policy, facts, calibration, max_fpr)
    for row in rows:
        if row["name"] in own:
            row["log_odds"] = own[row["name"]]
    who = "calibrated" if any("calibrated" in row for row in rows) else "rules"
    labels = [bool(row["backdoored"]) for row in rows]
    scored = [row for row in rows if "log_odds" in row]
    scores = {"rules": [row["rules_score"] for row in rows]}
    if len(scored) == len(rows):
        scores["calibrated"] = [row["log_odds"] for row in rows]
    result: dict[str, Any] = {
        "who": who,
        "scores_from": source,
        "policy": policy.to_dict(),
        "max_fpr": max_fpr,
        "calibration": calibrate.summary(calibration) if calibration else None,
        "models": {"honest": labels.count(False), "backdoored": labels.count(True)},
        "auroc": {"rules": numbers.auroc_with_interval(scores["rules"], labels), **_scored(scored)},
        "operating_point": _operating_point(scored, calibration, max_fpr),
        "verdicts": {name: numbers.verdicts(rows, name) for name in ("rules", who)},
        "detectors": numbers.detectors(rows),
        "attacks": numbers.attacks(rows, who),
        "attacks_not_in_zoo": sorted(
            {*ATTACKS.names()} - {row["attack"] for row in rows if row["backdoored"]}
        ),
        "asr_bounds": numbers.asr_bounds(rows, who),
        "levels": numbers.levels(rows),
    }
    everything = [*exam, *reference]
    every = [
        {"name": item.member.name, "backdoored": item.member.backdoored, "architecture": row}
        for item, row in zip(everything, _families(everything), strict=True)
    ]
    for key in ("attack", "architecture"):
        left_out = held_out(everything, key, seed)
        result[f"leave_one_{key}_out"] = numbers.split(left_out, every) if left_out else None
    probabilities = (
        [probability(row["log_odds"]) for row in scored],
        [bool(row["backdoored"]) for row in scored],
    )
    result["reliability"] = numbers.reliability(*probabilities) if scored else []
    return result, rows, {"scores": scores, "probabilities": probabilities if scored else None}


def write(
    name: str, result: dict[str, Any], rows: list[dict[str, Any]], drawn: Mapping[str, Any]
) -> Path:
    """The record: summary.json, README.md, two plots; its rows are kept from git."""
    folder = record.write(name, result, f"# Detection: {name}\n\n{page(result)}")
    record.write_bulk(folder, record.ROWS, rows)
    drawn_plots = plots.draw(
        folder, rows, result, drawn["scores"], drawn["probabilities"], result["who"]
    )
    record.write_plots(folder, drawn_plots)
    print(page(result))
    print(folder)
    return folder


def copy_zoo(zoo: Path, folder: Path, examined: Collection[str]) -> None:
    """The zoo's own account of the `examined` models, into the record's folder, kept from git.

    Not every zoo was built by `benchmarks.zoo`.
    """
    if not (zoo / record.ZOO).exists():
        return
    document = json.loads((zoo / record.ZOO).read_text())
    document["models"] = [model for model in document["models"] if model["name"] in examined]
    record.write_bulk(folder, record.ZOO, document)


def _scored(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not scored:
        return {}
    return {
        "calibrated": numbers.auroc_with_interval(
            [row["log_odds"] for row in scored], [row["backdoored"] for row in scored]
        )
    }


def _operating_point(
    scored: Sequence[Mapping[str, Any]], calibration: Calibration | None, max_fpr: float
) -> dict[str, Any] | None:
    """False alarms and detections at the conformal threshold.

    Without separate reference models, the threshold comes from the same honest models, each left
    out in turn.
    """
    honest = [row["log_odds"] for row in scored if not row["backdoored"]]
    threshold = calibration.threshold(max_fpr) if calibration else _threshold(honest, max_fpr)
    if threshold is None:
        return None
    over = [row["log_odds"] > threshold for row in scored if not row["backdoored"]]
    if calibration is None:
        cuts = [
            _threshold(honest[:place] + honest[place + 1 :], max_fpr)
            for place in range(len(honest))
        ]
        over = [cut is not None and score > cut for score, cut in zip(honest, cuts, strict=True)]
    strong = [row["log_odds"] > threshold for row in scored if numbers.strong_attack(row)]
    return {
        "max_fpr": max_fpr,
        "log_odds": threshold,
        "false_alarms": numbers.share(over),
        "detected": numbers.share(strong),
        "separate_references": calibration is not None,
    }


def _threshold(honest: Sequence[float], max_fpr: float) -> float | None:
    return (
        Calibration(
            digest="",
            methods={},
            covers=frozenset(),
            weights=(),
            intercept=0.0,
            slope=1.0,
            offset=0.0,
            honest=tuple(sorted(honest)),
        ).threshold(max_fpr)
        if honest
        else None
    )


def _families(scanned: Sequence[Scanned]) -> list[str]:
    from guard.policy.calibration import architecture_family

    return [architecture_family(item.architecture) for item in scanned]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument(
        "--part", help="judge only models of this part; the others fit the calibration"
    )
    parser.add_argument("--policy", type=Path, help="default: every detector with its defaults")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--max-fpr", type=float, default=0.05)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="detect")
    parser.add_argument(
        "--note", default="", help="a sentence for the record, such as an earlier use of the zoo"
    )
    parser.add_argument("--scan-only", action="store_true")
    parser.add_argument(
        "--scanned",
        action="store_true",
        help="judge only models that every detector has scanned already, and list the others",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
