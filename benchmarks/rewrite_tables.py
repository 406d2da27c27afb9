"""The numbers and tables of the record of rewritten models (`benchmarks.bench_rewrites`)."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.rewrite_forms import PLAIN, REWRITES
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.policy import Policy

DRAWS, SEED = 2000, 0


def costs(rows: Sequence[Mapping[str, Any]], policy: Policy) -> dict[str, Any] | None:
    """Seconds of a policy's scans, with and without the two steps, and the ratio; None of none."""
    pairs = []
    for row in rows:
        own = [name for name in policy.detectors if name in row["seconds"]]
        whole = sum(row["seconds"][name] for name in own)
        steps = sum(sum(row["steps"][name].values()) for name in own)
        pairs.append((whole, whole - steps))
    if not pairs:
        return None
    draw = random.Random(SEED)
    drawn = sorted(_ratio(draw.choices(pairs, k=len(pairs))) for _ in range(DRAWS))
    return {
        "cells": len(pairs),
        "seconds": sum(whole for whole, _ in pairs) / len(pairs),
        "ratio": _ratio(pairs),
        "low": drawn[round(0.025 * DRAWS)],
        "high": drawn[round(0.975 * DRAWS) - 1],
    }


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(whole for whole, _ in pairs) / sum(rest for _, rest in pairs)


def stopped(row: Mapping[str, Any], policy: str) -> bool:
    """Whether this cell is not served, its refusal at the door left aside."""
    return Verdict(row["verdicts"][policy]["verdict"]) not in SERVABLE_VERDICTS


def summary(
    rows: Sequence[Mapping[str, Any]], policies: Mapping[str, Policy], planned: int
) -> dict[str, Any]:
    """The numbers of the record."""
    plain = {row["model"]: row for row in rows if row["how"] == PLAIN}
    bad = [row for row in rows if row["backdoored"] and row["how"] != PLAIN]
    honest = [
        row
        for row in rows
        if not row["backdoored"] and row["how"] != PLAIN and row["model"] in plain
    ]
    at_the_door = [row for row in rows if row["refused"]]
    looked = [row for row in rows if not row["refused"]]  # on the others no search begins
    searchable = [row for row in honest if not row["refused"]]
    return {
        "planned": planned,
        "cells": len(rows),
        "rewrites_stopped": {
            name: _share([row["refused"] or stopped(row, name) for row in bad]) for name in policies
        },
        "rewrites_stopped_by_detectors": {
            name: _share([stopped(row, name) for row in bad]) for name in policies
        },
        "honest_same_verdict": {
            name: _share([_same(row, plain[row["model"]], name) for row in searchable])
            for name in policies
        },
        "honest_cleared_before": {
            name: _share(
                [not stopped(row, name) for row in plain.values() if not row["backdoored"]]
            )
            for name in policies
        },
        "honest_cleared_after": {
            name: _share([not stopped(row, name) for row in searchable]) for name in policies
        },
        "honest_repaired": {
            name: _share([_repaired(row, name) for row in searchable]) for name in policies
        },
        "refused_at_the_door": _share([True for _ in at_the_door]),
        "cost_ratio": {
            name: {
                which: costs([row for row in looked if (row["how"] == PLAIN) is asis], policy)
                for which, asis in (("as it is", True), ("rewritten", False))
            }
            for name, policy in policies.items()
        },
        "models": _by_model(rows, policies),
    }


def _same(row: Mapping[str, Any], plain: Mapping[str, Any], policy: str) -> bool:
    one, other = row["verdicts"][policy], plain["verdicts"][policy]
    return all(bool(one[key] == other[key]) for key in ("verdict", "repaired"))


def _repaired(row: Mapping[str, Any], policy: str) -> bool:
    """Whether copies are tried though nothing is rejected: the policy serves nothing else."""
    one = row["verdicts"][policy]
    return bool(one["repaired"]) and one["verdict"] != Verdict.REJECTED


def _share(flags: Sequence[bool]) -> dict[str, int]:
    return {"k": sum(flags), "n": len(flags)}


def _by_model(
    rows: Sequence[Mapping[str, Any]], policies: Mapping[str, Policy]
) -> list[dict[str, Any]]:
    order = (PLAIN, *REWRITES)
    return [
        {
            "model": row["model"],
            "parameters": row["parameters"],
            "asr": row["asr"],
            "how": row["how"],
            "refused": row["refused"],
            **{name: row["verdicts"][name]["verdict"] for name in policies},
        }
        for row in sorted(rows, key=lambda row: (row["model"], order.index(row["how"])))
    ]


def interval(cost: Mapping[str, Any] | None) -> str:
    """A ratio with its interval, as it stands in a table."""
    if cost is None:
        return "–"
    return f"{cost['ratio']:.3f} ({cost['low']:.3f} to {cost['high']:.3f})"


def page(result: Mapping[str, Any]) -> str:
    """The record's tables."""
    names = tuple(result["cost_ratio"])
    lines = [f"{result['cells']} of {result['planned']} cells.", ""]
    lines += [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for key, claim in (
        ("rewrites_stopped", "backdoored and rewritten: refused, rejected, held or inconclusive"),
        ("rewrites_stopped_by_detectors", "the same without the refusal at the door"),
        ("honest_cleared_before", "honest as it is: cleared"),
        ("honest_cleared_after", "honest with another head or norm: cleared"),
        ("honest_repaired", "honest with another head or norm: not rejected, copies are tried"),
        ("honest_same_verdict", "honest with another head or norm: verdict as before"),
    ):
        shares = (f"{result[key][name]['k']}/{result[key][name]['n']}" for name in names)
        lines.append(f"| {claim} | {' | '.join(shares)} |")
    for which in ("as it is", "rewritten"):
        cells = (result["cost_ratio"][name][which] for name in names)
        shown = map(interval, cells)
        lines.append(f"| time over that without form and probe, {which} | {' | '.join(shown)} |")
    lines += [
        "",
        "| model | parameters | true ASR | form | at the door | " + " | ".join(names) + " |",
    ]
    lines += ["|---|---|---|---|---|" + "---|" * len(names)]
    for row in result["models"]:
        asr = "honest" if row["asr"] is None else f"{row['asr']:.1%}"
        name, size = row["model"], f"{row['parameters']:,}"
        door = "refused" if row["refused"] else "let in"
        verdicts = " | ".join(row[policy] for policy in names)
        lines.append(f"| {name} | {size} | {asr} | {row['how']} | {door} | {verdicts} |")
    return "\n".join(lines)
