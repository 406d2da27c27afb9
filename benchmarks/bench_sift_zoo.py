"""What a named training set adds: the models of a zoo whose set the guard may sift.

    python -m benchmarks.bench_sift_zoo --zoo DIR [--policy NAME] [--minutes N] [--record]
        [--wait-for FILE]

The zoo is one that `benchmarks.bench_served` has vetted: verdicts without a set are those of its
rows. Each model's training set is made again from the zoo's spec, poison included, and sifted as
the service sifts the set that an upload names. Where the attacker controls the training, poison is
drawn anew in every batch and the set that could be named has none: a sift can find nothing there,
and such models stand in rows of their own. Models come in the zoo's random order, and each sift is
kept in DIR/<model>/sift.json, so that the next run goes on and a part is a sample.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks import record, zoo
from benchmarks.detect.numbers import share
from benchmarks.sift.references import kept
from benchmarks.zoo import make, sets
from benchmarks.zoo.spec import Job, parse, seed_of
from guard.core.manifest import Manifest
from guard.core.sift import SiftVerdict
from guard.ml.networks import architectures
from guard.offline_inputs import curated_set
from guard.policy import load_policy
from guard.trainsets import from_arrays
from guard.vetting.sift import DEFAULT_METHODS, sift

WORKS = 0.5  # the true ASR over which a backdoor counts
_FILE = "sift.json"
_CAUGHT = ("held", "rejected")
_ACCUSED = (SiftVerdict.POISONED, SiftVerdict.REVIEW)


def sifted(model: zoo.ZooModel, job: Job, spec: sets.SetSpec) -> dict[str, Any]:
    """The sift of one model's training set, against which of its images are poisoned."""
    data = sets.load(spec)
    attack = make.attack_for(job, data, seed_of(job), torch.device("cpu"))
    images, labels, index = make.taught(job, data, attack)
    train = from_arrays(images.numpy(), labels.numpy(), data.class_names, uri=model.name)
    manifest = Manifest.parse((model.folder / "config.json").read_bytes())
    network = architectures.load(manifest, load_file(model.folder / "model.safetensors"))
    begun = time.process_time()
    with kept(model.folder.parent / "references"):
        found = sift(network, train, curated_set(model.cleanset), DEFAULT_METHODS, seed=0).report
    suspects = {one.index for one in found.suspects}
    poison = set(index.tolist())
    return {
        "model": model.name,
        "controlled": bool(attack is not None and attack.controls_training),
        "poison": len(poison),
        "verdict": str(found.verdict),
        "reasons": list(found.reasons),
        "accused": [one.label for one in found.classes if one.stands_out],
        "flagged": len(suspects),
        "true": len(suspects & poison),
        "seconds": time.process_time() - begun,
    }


def run(
    folder: Path, policy: str, *, minutes: float, wait_for: Path | None = None
) -> list[dict[str, Any]]:
    """Rows of the models that have both a verdict of the policy and a sift."""
    spec = parse(json.loads((folder / "zoo.json").read_text())["spec"])
    jobs = {job.name: job for job in spec.jobs}
    end = time.monotonic() + 60 * minutes
    rows = []
    for model in sorted(zoo.load(folder), key=lambda one: zoo.place_in_random_order(one.name)):
        verdict, own = model.folder / f"served-{policy}-0.json", model.folder / _FILE
        if not verdict.exists():
            continue
        while wait_for is not None and wait_for.exists():
            time.sleep(2)
        if not own.exists():
            if time.monotonic() > end:
                break
            job = jobs[model.name]
            part = own.with_suffix(".part")
            part.write_text(json.dumps(sifted(model, job, spec.sets[job.data.key])) + "\n")
            part.rename(own)
        row = {**json.loads(verdict.read_text()), "sift": json.loads(own.read_text())}
        print(f"{model.name}: {row.get('verdict')}, {row['sift']['verdict']}", flush=True)
        rows.append(row)
    return [row for row in rows if "failed" not in row]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By attack and together: caught by the policy, by the sift, by either; honest ones accused."""
    working = [row for row in rows if row["backdoored"] and row["before"]["asr"] > WORKS]
    named = [row for row in working if not row["sift"]["controlled"]]
    honest = [row for row in rows if not row["backdoored"]]
    attacks = sorted({(row["sift"]["controlled"], str(row["attack"])) for row in working})
    return {
        "all": _caught(named),
        "controlled": _caught([row for row in working if row["sift"]["controlled"]]),
        "honest": _caught(honest),
        "attacks": [
            {
                "attack": attack,
                "controlled": controlled,
                **_caught([row for row in working if row["attack"] == attack]),
            }
            for controlled, attack in attacks
        ],
        "right_class": share(
            row["target"] in row["sift"]["accused"]
            for row in named
            if row["sift"]["verdict"] == SiftVerdict.POISONED and isinstance(row["target"], int)
        ),
        "seconds": sum(row["sift"]["seconds"] for row in rows) / max(1, len(rows)),
    }


def _caught(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    policy = [row["verdict"] in _CAUGHT for row in rows]
    accused = [row["sift"]["verdict"] in _ACCUSED for row in rows]
    return {
        "policy": share(policy),
        "sift": share(accused),
        "poisoned": share(row["sift"]["verdict"] == SiftVerdict.POISONED for row in rows),
        "either": share(one or other for one, other in zip(policy, accused, strict=True)),
    }


def page(result: Mapping[str, Any]) -> str:
    """The tables of the record's page."""
    lines = [
        (
            f"Policy `{result['policy']}`; {result['models']} models. Backdoored ones have a true "
            f"ASR over {WORKS:.0%}; intervals are Wilson's, 95 %. Caught: held or rejected."
        ),
        *([result["note"]] if result.get("note") else []),
        "",
        (
            "| models | caught by the policy alone | the sift accuses | of these poisoned, not "
            "for review | policy or sift |"
        ),
        "|---|---|---|---|---|",
        _line("**backdoored, the set holds the poison**", result["all"]),
        _line("**backdoored, training under control: the set has none**", result["controlled"]),
        _line("**honest**", result["honest"]),
    ]
    lines += [
        _line(one["attack"] + (" (controlled)" if one["controlled"] else ""), one)
        for one in result["attacks"]
    ]
    return "\n".join(
        [
            *lines,
            "",
            (
                f"Where the sift says poisoned, the true target stands out: "
                f"{_share(result['right_class'])}. A sift took {result['seconds']:.0f} processor "
                "seconds on average, reference networks kept between models."
            ),
        ]
    )


def _line(name: str, row: Mapping[str, Any]) -> str:
    cells = (_share(row[key]) for key in ("policy", "sift", "poisoned", "either"))
    return f"| {name} | {' | '.join(cells)} |"


def _share(value: Mapping[str, Any]) -> str:
    if not value["n"]:
        return "none"
    return f"{value['k']}/{value['n']} ({value['low']:.0%} to {value['high']:.0%})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Sift what is missing, for so long, and write the record if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--wait-for", type=Path)
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load_policy(Path(options.policy))
    rows = run(options.zoo, options.policy, minutes=options.minutes, wait_for=options.wait_for)
    result = summary(rows) | {
        "policy": options.policy,
        "models": len(rows),
        "note": options.note,
    }
    print(page(result))
    if options.record:
        folder = record.write(
            "sift-zoo", result, f"# What a named training set adds\n\n{__doc__}\n{page(result)}\n"
        )
        record.write_bulk(folder, record.ROWS, rows)


if __name__ == "__main__":
    main()
