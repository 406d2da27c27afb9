"""How often another seed gives another verdict, when one policy scans the same zoo twice.

    python -m benchmarks.bench_seeds --zoo DIR [--policy P] [--seeds 0 1] [--jobs N] [--only TEXT]
        [--note TEXT]

Each seed's scans are kept in DIR/seeds/<seed>/, and an interrupted run continues. The first
`--again` models are scanned again with the first seed, and must agree to the bit.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.detect import numbers
from benchmarks.detect.rows import rows_of
from benchmarks.detect.scanning import scan_zoo
from guard.core.manifest import MANIFEST_FILE
from guard.detectors import DETECTORS
from guard.policy import Policy, load_policy
from guard.vetting import population
from guard.vetting.population import MODEL, TRUTH, Member

FILES = (MODEL, MANIFEST_FILE, TRUTH)


def mirror(zoo: Path, out: Path, chosen: Sequence[Member]) -> list[Member]:
    """Link the same models into another folder, so that each seed keeps its own scans."""
    out.mkdir(parents=True, exist_ok=True)
    links = [(out / "cleansets", zoo / "cleansets")]
    for member in chosen:
        (out / member.name).mkdir(exist_ok=True)
        links += [(out / member.name / name, member.folder / name) for name in FILES]
    for link, target in links:
        if not link.exists():
            link.symlink_to(target.resolve())
    return [Member(out / member.name, member.truth) for member in chosen]


def verdicts(
    zoo: Path,
    name: str,
    chosen: Sequence[Member],
    policy: Policy,
    seed: int,
    jobs: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Row and plain evidence of each model, scanned with this seed."""
    out = zoo / "seeds" / name
    scanned, failed = scan_zoo(
        out,
        mirror(zoo, out, chosen),
        population.detectors_of(policy),
        jobs=jobs,
        seed=seed,
        device=None,
    )
    for model, why in failed.items():
        print(f"{model} is left out: {why}")
    facts = {
        data: population.read_cleanset(zoo / "cleansets" / f"{data}.npz").facts
        for data in {str(item.member.truth["data"]) for item in scanned}
    }
    rows = {row["name"]: row for row in rows_of(scanned, policy, facts, None, 0.05)}
    evidence = {
        item.member.name: [timeless(one.to_dict()) for one in item.evidence] for item in scanned
    }
    return rows, evidence


def timeless(item: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence without its times."""
    return {key: value for key, value in item.items() if key != "seconds"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--name", default="seeds")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    parser.add_argument(
        "--scanned", action="store_true", help="only models that both seeds have scanned already"
    )
    options = parser.parse_args()
    policy = load_policy(options.policy)
    chosen = [member for member in population.members(options.zoo) if options.only in member.name]
    if options.scanned:
        chosen = [
            member
            for member in chosen
            if all(
                (
                    options.zoo
                    / "seeds"
                    / f"{policy.name}-{seed}"
                    / member.name
                    / f"scan-{name}.json"
                ).exists()
                for seed in options.seeds
                for name in policy.detectors
            )
        ]
    (one, own), (two, _) = (
        verdicts(options.zoo, f"{policy.name}-{seed}", chosen, policy, seed, options.jobs)
        for seed in options.seeds
    )
    _, same = verdicts(
        options.zoo,
        f"{policy.name}-{options.seeds[0]}-again",
        chosen[: options.again],
        policy,
        options.seeds[0],
        options.jobs,
    )
    both = sorted(set(one) & set(two))
    flips = [
        name for name in both if one[name]["rules"]["verdict"] != two[name]["rules"]["verdict"]
    ]
    result = {
        "models": len(both),
        "policy": policy.to_dict(),
        "zoo": options.zoo.resolve().name,
        "seeds": list(options.seeds),
        "note": options.note,
        "versions": {name: DETECTORS.get(name).version for name in policy.detectors},
        "flips": numbers.share(name in flips for name in both),
        "same_to_the_bit": numbers.share(own[name] == item for name, item in same.items()),
        "flipped": {
            name: {
                "backdoored": one[name]["backdoored"],
                "asr": one[name]["asr"],
                "verdicts": [rows[name]["rules"]["verdict"] for rows in (one, two)],
            }
            for name in flips
        },
    }
    print(result["flips"], result["same_to_the_bit"], record.write(options.name, result, README))


README = """
# Two seeds, one verdict?

Made by `python -m benchmarks.bench_seeds`. `flips`: models whose verdict differs between the two
seeds. `flipped` names them. `same_to_the_bit`: models whose evidence is the same to the bit, times
apart, when scanned again with the first seed on the same machine.
"""

if __name__ == "__main__":
    main()
