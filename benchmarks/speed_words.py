"""Records of speed in words, for docs/evidence.md."""

from statistics import median
from typing import Any


def inversion(result: dict[str, Any]) -> str:
    """All classes at once against class by class, and Neural Cleanse."""
    ratios = result["ratios"]
    told = [
        ("the same search, class by class", "one_by_one_over_together"),
        ("the same search, class by class as one would first write it", "plainly_over_together"),
        ("Neural Cleanse until it is as good", "neural_cleanse_over_together"),
        ("Neural Cleanse, all steps of its paper", "paper_over_together"),
        ("Neural Cleanse, all steps, over the whole detector", "paper_over_detector"),
        (
            "Neural Cleanse, all steps, over the first scan with a clean set",
            "paper_over_first_scan",
        ),
    ]
    lines = [
        f"| {words} | {ratios[f'{name}_cpu_seconds']:.2f} |"
        for words, name in told
        if f"{name}_cpu_seconds" in ratios
    ]
    flagged = "; ".join(
        f"seed {row['seed']}: Neural Cleanse {row['paper']['flagged']}, the detector "
        f"{row['detector']['flagged']}"
        for row in result["runs"]
        if "paper" in row
    )
    return (
        f"Patch inversion of {result['classes']} classes at once, {result['threads']} thread(s), "
        f"{result['n']} "
        "seed(s); processor time of another way over it:\n\n| way | times as long |\n|---|---|\n"
        + "\n".join(lines)
        + (
            f"\n\nClasses flagged (true target {result['model']['target']}): {flagged}."
            if flagged
            else ""
        )
    )


def ensemble(result: dict[str, Any]) -> str:
    """What every detector together costs."""
    totals, device = result["totals"], result.get("device", "cpu")
    kind = "processor" if device == "cpu" else "wall clock"
    # records before November 27 were of processor seconds alone
    seconds = totals.get("seconds_a_model", totals.get("cpu_seconds_a_model"))
    told = (
        f"Every detector on {', '.join(result['models'])}, {result.get('named') or device}, "
        f"{result['threads']} "
        f"thread(s), {result['n']} run(s): {seconds:.0f} {kind} seconds a model. The network's "
        "own passes, run bare, "
        f"take {totals['throughput']:.0%} of that. One pass over the clean pictures a detector "
        "takes "
        f"{totals['clean_share']:.1%}. Searches multiply bfloat16: "
        f"{'yes' if result['bfloat16'] else 'no'}."
    )
    if "same_flags" not in totals:
        return told
    return told + (
        f" In float32 they take {totals['float32_over_default']:.2f} times as long; flags were "
        "the same in "
        f"{totals['same_flags']} runs of a detector."
    )


def classes(result: dict[str, Any]) -> str:
    """What more classes cost."""
    counts = sorted({row["classes"] for row in result["runs"]})
    ratios = result["ratios"]
    return (
        f"{result['detector']}, {counts[-1]} classes over {counts[0]}, {result['threads']} "
        "thread(s): processor "
        f"time {ratios['honest_cpu_seconds']:.2f} times without and "
        f"{ratios['rule_cpu_seconds']:.2f} times with a "
        f"planted rule; pictures through the model {ratios['honest_pictures']:.2f} and "
        f"{ratios['rule_pictures']:.2f} times."
    )


def repairs(result: dict[str, Any]) -> str:
    """Ways beside straightforward loops.

    And memory beside plain fine-tuning where it was measured.
    """
    # records before November 28 were of a quarter of the width, by processor time, and told only
    # SAU's
    kind = (
        "processor time"
        if result.get("device", "cpu") == "cpu"
        else f"time on one {result['named']}"
    )
    told = (
        f"SAU's pass over {result['images']} pictures takes {result['sau_ratio']:.2f} of the "
        f"{kind} of a "
        "straightforward implementation (the same formulas, every pass of both networks in every "
        "inner step); "
        f"first layers of {result.get('width', 16)} channels."
    )
    if ratios := result.get("ratios"):
        told += (
            f"\n\nThe same of others: Neural Polarizer {ratios['neural_polarizer']:.2f}, "
            "conditional "
            f"{ratios['conditional_polarizer']:.2f}; a step of TSBD's last stage "
            f"{ratios['tsbd']:.2f}."
        )
    if trained := result.get("trained"):
        each = [spent["ours"] / spent["plain"] for spent in trained.values()]
        told += (
            f"\n\nOn {len(each)} backdoored models of zoo {result['zoo']}, drawn at random, with "
            "clean pictures: "
            f"{min(each):.2f} to {max(each):.2f}, median {median(each):.2f}."
        )
    lines = [
        f"| {name} | {'–' if value is None else f'{value:.2f}'} |"
        for name, value in result["peak_over_fine_tuning"].items()
    ]
    if not lines:
        return told
    return (
        f"{told}\n\nPeak memory over that of plain fine-tuning, {result['batch']} pictures a "
        "step:\n\n"
        "| defense | times |\n|---|---|\n" + "\n".join(lines)
    )


def proofs(result: dict[str, Any]) -> str:
    """How long a proof takes."""
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


def compiling(result: dict[str, Any]) -> str:
    """Whether `torch.compile` pays."""
    even = (
        "it is never even"
        if result["even_after"] is None
        else f"it is even after {result['even_after']:.0f} steps; a scan has about "
        f"{result['scan_steps']}"
    )
    return (
        f"Patch inversion with a compiled network: a step takes {result['step_ratio']:.2f} of the "
        "processor time, "
        f"compiling {result['compile_seconds']:.0f} s ({result['steps']} steps as it is: "
        f"{result['plain_seconds']:.1f} s): {even}."
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
