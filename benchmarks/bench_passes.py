"""What a scan passes through the network, and its verdict: one version of the guard beside another.

    PYTHONPATH=CHECKOUT python benchmarks/bench_passes.py scan ROWS --zoo DIR [DIR ...]
    python -m benchmarks.bench_passes compare OLD NEW [--note TEXT] [--record NAME]

`scan` examines the models of development zoos by the default policy of the checkout on the path,
with one seed, and appends a row for each to ROWS; those that are there are not scanned again.
Images are counted as they enter a network, whatever for: searches, clean accuracy and the probe of
speed (which count for the first detector), the hold-out under triggers. What a clean set alone
gives is prepared first and counted apart. `compare` sets the rows of two versions side by side;
only `scan` needs torch.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SEED = 0
KINDS = ("honest", "working backdoor", "backdoor that does not work")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    scan = commands.add_parser("scan")
    scan.add_argument("rows", type=Path)
    scan.add_argument("--zoo", type=Path, nargs="+", required=True)
    compare = commands.add_parser("compare")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    compare.add_argument("--note", default="")
    compare.add_argument("--record", metavar="NAME")
    options = parser.parse_args()
    if options.command == "scan":
        with options.rows.open("a") as file:
            for row in scanned(options.zoo, known=set(read(options.rows))):
                file.write(json.dumps(row) + "\n")
                file.flush()
        return
    result = compared(read(options.old), read(options.new)) | {"note": options.note}
    print(page(result))
    if options.record:
        from benchmarks.record import write

        print(write(options.record, result, f"# Images through the network\n\n{page(result)}"))


def read(path: Path) -> dict[str, Row]:
    """Rows by name; those of clean sets have names of their own."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def scanned(zoos: list[Path], known: set[str]) -> Iterator[Row]:
    """A row for each model, and for each clean set before the first model that needs it."""
    import torch

    from guard.detectors import DETECTORS
    from guard.policy import load_policy
    from guard.vetting import population

    torch.set_num_threads(1)
    policy = load_policy()
    wanted = population.detectors_of(policy)
    with counting() as count:
        for member in (one for zoo in zoos for one in population.members(zoo)):
            if member.name in known:
                continue
            path = population.cleanset_of(member.folder.parent, member)
            curated = population.read_cleanset(path)
            start = begun(count)
            for name, parameters in wanted.items():
                DETECTORS.get(name)(**parameters).prepare(curated.visible(), torch.device("cpu"))
            if (spent := since(count, start))["searched"]:
                yield {"name": f"clean set {path.stem} of {path.parents[1].name}", **spent}
            yield _row(member, curated, policy, count)


def _row(member: Any, curated: Any, policy: Any, count: Counter[str]) -> Row:
    from guard.core.contracts import Budget
    from guard.core.evidence import Outcome
    from guard.core.manifest import MANIFEST_FILE
    from guard.policy import decide
    from guard.policy.combine import combine
    from guard.vetting import examine, modalities, population
    from guard.vetting.case import make_case

    with TemporaryDirectory() as folder:
        upload = member.folder / population.MODEL
        manifest = (member.folder / MANIFEST_FILE).read_bytes()
        found = examine.inspect_upload(
            upload, population.MODEL, manifest, Path(folder), budget=Budget()
        )
        curated = modalities.fitted(found.manifest, curated)
        model = examine.open_model(found.canonical, device="cpu")
    per: dict[str, Any] = {}
    start = begun(count)
    parts = [start]

    def after(evidence: tuple[Any, ...]) -> bool:
        per[evidence[-1].method] = since(count, parts[-1])
        parts.append(begun(count))
        return False

    evidence = examine.examine(
        model,
        found.digest,
        curated,
        population.detectors_of(policy),
        seed=SEED,
        settled=after,
    ).evidence
    total = since(count, start)
    case = make_case(
        policy, found.digest, curated.facts, evidence, None, found.manifest.architecture
    )
    decision = decide(policy, case)
    looked = [one for one in evidence if one.families and one.outcome != Outcome.COULD_NOT_LOOK]
    together = combine(looked).accord
    return {
        "name": member.name,
        "truth": {key: member.truth.get(key) for key in ("backdoored", "works", "target")},
        "verdict": str(decision.verdict),
        "target": decision.facts.target,
        "accord": None if together is None else [together.target, together.p],
        "per": per,
        "total": total,
        "patch": [
            {"t": one.target, "s": one.suspicious, **one.numbers}
            for item in looked
            if item.method == "patch_inversion"
            for one in item.findings
        ],
    }


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count images that enter any network, `searched` with a backward pass to them."""
    from torch import Tensor, is_grad_enabled
    from torch.nn.modules import module as hooks

    count, depth = Counter[str](), Counter[str]()

    def enters(_module: Any, given: tuple[Any, ...]) -> None:
        if not depth["now"] and given and isinstance(given[0], Tensor):
            searched = is_grad_enabled() and given[0].requires_grad
            count["searched" if searched else "forward"] += len(given[0])
        depth["now"] += 1

    def leaves(_module: Any, _given: Any, _found: Any) -> None:
        depth["now"] -= 1

    both = (
        hooks.register_module_forward_pre_hook(enters),
        hooks.register_module_forward_hook(leaves, always_call=True),
    )
    try:
        yield count
    finally:
        for hook in both:
            hook.remove()


def begun(count: Counter[str]) -> tuple[float, Counter[str]]:
    return time.process_time(), count.copy()


def since(count: Counter[str], start: tuple[float, Counter[str]]) -> dict[str, float]:
    seconds = round(time.process_time() - start[0], 2)
    return {"cpu": seconds} | {key: count[key] - start[1][key] for key in ("forward", "searched")}


def kind(row: Mapping[str, Any]) -> str:
    """Honest, or whether the backdoor works."""
    if not row["truth"]["backdoored"]:
        return KINDS[0]
    return KINDS[1] if row["truth"]["works"] else KINDS[2]


def images(row: Mapping[str, Any]) -> float:
    """All images of a scan, however they go through."""
    return float(row["total"]["forward"] + row["total"]["searched"])


def compared(old: Mapping[str, Row], new: Mapping[str, Row]) -> dict[str, Any]:
    """The models that both have: totals by kind, and each with both verdicts."""
    names = [name for name in sorted(old) if name in new and "verdict" in old[name]]
    kinds = {}
    for one in KINDS:
        pairs = [(old[name], new[name]) for name in names if kind(old[name]) == one]
        if pairs:
            kinds[one] = _kind(pairs)
    every = [(old[name], new[name]) for name in names]
    honest = [
        finding["p_class"]
        for name in new
        if "verdict" in new[name] and kind(new[name]) == KINDS[0]
        for finding in new[name]["patch"]
        if "p_class" in finding
    ]
    return {
        "kinds": kinds | {"all": _kind(every)},
        "models": [_pair(name, old[name], new[name]) for name in names],
        "honest_p": {
            "classes": len(honest),
            **{str(a): sum(p <= a for p in honest) / len(honest) for a in (0.01, 0.03, 0.1, 0.2)},
        },
        "prepared": [
            {"name": name, "old": old[name], "new": new[name]}
            for name in sorted(old)
            if name in new and "verdict" not in old[name]
        ],
    }


def _kind(pairs: list[tuple[Row, Row]]) -> dict[str, Any]:
    sums = [sum(images(pair[side]) for pair in pairs) for side in (0, 1)]
    cpu = [sum(pair[side]["total"]["cpu"] for pair in pairs) for side in (0, 1)]
    return {
        "n": len(pairs),
        "images": [round(total / len(pairs)) for total in sums],
        "times_fewer": sums[0] / sums[1],
        "seconds": [total / len(pairs) for total in cpu],
        "times_faster": cpu[0] / cpu[1],
        "same_verdict": sum(one["verdict"] == two["verdict"] for one, two in pairs),
        "verdicts": [dict(Counter(pair[side]["verdict"] for pair in pairs)) for side in (0, 1)],
    }


def _pair(name: str, old: Row, new: Row) -> dict[str, Any]:
    searches = [finding.get("searches", 1) for finding in new["patch"]]
    return {
        "name": name,
        "kind": kind(old),
        "target": old["truth"]["target"],
        "verdict": [old["verdict"], new["verdict"]],
        "accused": [old["target"], new["target"]],
        "class_p": [one["accord"][1] if one["accord"] else 1.0 for one in (old, new)],
        "images": [images(old), images(new)],
        "seconds": [old["total"]["cpu"], new["total"]["cpu"]],
        "again": sum(count > min(searches) for count in searches),
    }


def page(result: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    lines = [
        result["note"],
        "",
        "| models | n | images, old | new | times fewer | processor s, old | new | same verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in result["kinds"].items():
        before, after = one["images"]
        lines.append(
            f"| {name} | {one['n']} | {before:,} | {after:,} | {one['times_fewer']:.2f} "
            f"| {one['seconds'][0]:.1f} | {one['seconds'][1]:.1f} "
            f"| {one['same_verdict']}/{one['n']} |"
        )
    lines += [
        "",
        "| model | kind | verdict, old | new | class p, old | new | times fewer | searched again |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in result["models"]:
        shown = [
            text if accused is None else f"{text} {accused}"
            for text, accused in zip(one["verdict"], one["accused"], strict=True)
        ]
        lines.append(
            f"| {one['name']} | {one['kind']} | {shown[0]} | {shown[1]} "
            f"| {one['class_p'][0]:.2g} | {one['class_p'][1]:.2g} "
            f"| {one['images'][0] / one['images'][1]:.2f} | {one['again']} |"
        )
    honest = result["honest_p"]
    levels = ", ".join(f"{share:.3f} at {a}" for a, share in honest.items() if a != "classes")
    about = f"`p_class` of the {honest['classes']} classes of honest models, new: at most so much"
    return "\n".join([*lines, "", f"{about} in a share of {levels}."])


if __name__ == "__main__":
    main()
