"""Tables and sentences on speed for the pages of records."""

from statistics import median
from typing import Any


def repairs(result: dict[str, Any]) -> str:
    """Time relative to plain loops, and memory relative to plain fine-tuning where measured."""
    # Records before November 28 measured SAU only, at a quarter of the width, by processor time.
    kind = (
        "processor time"
        if result.get("device", "cpu") == "cpu"
        else f"time on one {result['named']}"
    )
    text = (
        f"SAU's pass over {result['images']} images takes {result['sau_ratio']:.2f} of the "
        f"{kind} of a straightforward implementation (the same formulas, every pass of both "
        "networks in every inner step); "
        f"first layers of {result.get('width', 16)} channels."
    )
    if ratios := result.get("ratios"):
        text += (
            f"\n\nThe same of others: Neural Polarizer {ratios['neural_polarizer']:.2f}, "
            "conditional "
            f"{ratios['conditional_polarizer']:.2f}; a step of TSBD's last stage "
            f"{ratios['tsbd']:.2f}."
        )
    if trained := result.get("trained"):
        each = [spent["ours"] / spent["plain"] for spent in trained.values()]
        text += (
            f"\n\nOn {len(each)} backdoored models of zoo {result['zoo']}, drawn at random, with "
            "clean images: "
            f"{min(each):.2f} to {max(each):.2f}, median {median(each):.2f}."
        )
    lines = [
        f"| {name} | {'–' if value is None else f'{value:.2f}'} |"
        for name, value in result["peak_over_fine_tuning"].items()
    ]
    if not lines:
        return text
    return (
        f"{text}\n\nPeak memory over that of plain fine-tuning, {result['batch']} images a "
        "step:\n\n"
        "| defense | times |\n|---|---|\n" + "\n".join(lines)
    )


def proofs(result: dict[str, Any]) -> str:
    """The time that the probes of a repair take."""
    lines = [
        f"| {run['width']} | {run['triggers']} | {run['seconds']:.0f} | "
        f"{run['seconds'] / result['limit']:.0%} | "
        f"{'; '.join(run['unproved']) or '–'} |"
        for run in result["proofs"]
    ]
    return (
        f"One proof on {result['device']}, {result['threads']} thread(s); {result['limit']:.0f} s "
        "are allowed:\n\n"
        "| channels of the first layer | classes with a patch | seconds | of what is allowed | "
        "not answered |\n"
        "|---|---|---|---|---|\n" + "\n".join(lines)
    )


def layouts(result: dict[str, Any]) -> str:
    """Whether channels-last weights and bfloat16 change a verdict."""
    lines = [
        f"| {way} | {item['same_verdict']}/{item['models']} | "
        f"{item['same_flags']}/{item['models']} | "
        f"{item['time_ratio']:.2f} |"
        for way, item in result["layouts"].items()
    ]
    return (
        f"Policy {result['policy']} on models of zoo {result['zoo']}, beside scans as shipped:\n\n"
        "| way | same verdict | same flags of all methods | processor time over the shipped way's "
        "|\n"
        "|---|---|---|---|\n" + "\n".join(lines)
    )
