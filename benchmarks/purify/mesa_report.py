"""The results of a test of MESA's claim, as numbers and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

REPAIRS = ("before", "fine-tuning", "point", "ensemble")
LEAST = 0.5  # ASR of an attack that worked
MANY = 2  # the number of models from which each is listed
#: Mean and worst ASR in percent: Qiao et al., NeurIPS 2019, poster; CIFAR-10, ResNet-18, 51 patches
#: of two colours.
REPORTED = {"before": "98.7 / –", "point": "10.5 / 51.4", "ensemble": "3.6 / 8.2"}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and worst ASR and mean ACC after each repair, over the patterns whose attack worked."""
    worked = [row for row in rows if row["before"]["asr"] >= LEAST]
    found: dict[str, Any] = {"patterns": len(rows), "worked": len(worked)}
    for name in REPAIRS:
        rates = [row[name]["asr"] for row in worked]
        found[name] = (
            {
                "asr": sum(rates) / len(rates),
                "worst_asr": max(rates),
                "acc": sum(row[name]["acc"] for row in worked) / len(worked),
            }
            if worked
            else None
        )
    return found


def page(result: Mapping[str, Any]) -> str:
    """Measured beside reported, as Markdown."""
    found = result["summary"]
    who = (
        f"{found['worked']} of {found['patterns']} attacks on {result['model']} (mean ACC "
        f"{result['acc']:.1%}) "
        f"reached an ASR of {LEAST:.0%}; others are left out. {result['clean']} clean images, "
        f"{result['stamped']:.0%} of them under a trigger."
    )
    lines = [
        who,
        "",
        (
            "| repair | *measured*: mean ASR | worst ASR | mean ACC | *reported*: mean / worst "
            "ASR, % |"
        ),
        "|---|---|---|---|---|",
    ]
    lines.extend(
        f"| {name} | {found[name]['asr']:.1%} | {found[name]['worst_asr']:.1%} | "
        f"{found[name]['acc']:.1%} | {REPORTED.get(name, '–')} |"
        for name in REPAIRS
        if found[name]
    )
    return "\n".join([*lines, *_by_model(result.get("models", {}))])


def _by_model(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Worst ASR on each model, which the claim is about; empty for one model, shown already."""
    if len(models) < MANY:
        return []
    lines = [
        "",
        "Worst ASR on each:",
        "",
        "| model | attacks | before | fine-tuning | point | ensemble |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in models.items():
        rates = " | ".join(
            f"{found[repair]['worst_asr']:.1%}" if found[repair] else "–" for repair in REPAIRS
        )
        lines.append(f"| {name} | {found['worked']}/{found['patterns']} | {rates} |")
    return lines
