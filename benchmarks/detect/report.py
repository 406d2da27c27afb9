"""A result as Markdown tables, for the record's README and docs/evidence.md."""

from collections.abc import Mapping
from typing import Any


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def counted(item: Mapping[str, Any]) -> str:
    """`47/50 = 94.0% (83.8% to 97.9%)`."""
    if not item["n"]:
        return "no models"
    return (
        f"{item['k']}/{item['n']} = {percent(item['share'])} ({percent(item['low'])} to "
        f"{percent(item['high'])})"
    )


def area(item: Mapping[str, Any]) -> str:
    if item["auroc"] is None:
        return f"not defined ({item['honest']} honest, {item['backdoored']} backdoored)"
    return f"{item['auroc']:.3f} ({item['low']:.3f} to {item['high']:.3f})"


def page(result: Mapping[str, Any]) -> str:
    """Everything that was measured, as Markdown; no headline of level 1."""
    who = result["who"]
    parts = [
        (
            f"{result['models']['honest']} honest and {result['models']['backdoored']} backdoored "
            "models"
            f"{' of part ' + result['part'] if result['part'] else ''}"
            f"{' of zoo ' + result['zoo'] if result.get('zoo') else ''}; {len(result['failed'])} "
            "could not be scanned"
            f"{_left(result)}. "
            f"Intervals are 95 %. Scores: {result['scores_from']}."
            f"{' ' + result['note'] if result.get('note') else ''}"
        ),
        _headline(result),
        "### Each detector alone",
        _detectors(result["detectors"]),
        f"### By attack (verdicts: {who}; nothing left out)",
        _attacks(result["attacks"]),
    ]
    if "attacks_not_in_zoo" in result:  # records before 2026-11-27 lack it
        parts.append(
            "Attacks of benchmarks/attacks that are not in this zoo, as far as it was judged: "
            f"{', '.join(result['attacks_not_in_zoo']) or 'none'}."
        )
    for key, title in (
        ("leave_one_attack_out", "Attack unseen in fitting"),
        ("leave_one_architecture_out", "Architecture unseen in fitting"),
    ):
        if result.get(key):
            parts += [f"### {title}", _split(result[key])]
    parts += [
        "### Attack success rates",
        _bounds(result["asr_bounds"]),
        "### p values of honest models",
        _levels(result["levels"]),
    ]
    if result["failed"]:
        parts += [
            "### Could not be scanned",
            "\n".join(f"* {name}: {why}" for name, why in result["failed"].items()),
        ]
    return "\n\n".join(parts)


def _left(result: Mapping[str, Any]) -> str:
    left = len(result.get("not_scanned", ()))
    return f", {left} were not scanned yet (scans are made in random order)" if left else ""


def _headline(result: Mapping[str, Any]) -> str:
    lines = ["| what | value |", "|---|---|"]
    lines += [f"| AUROC, {name} | {area(item)} |" for name, item in result["auroc"].items()]
    point = result.get("operating_point")
    if point:
        rate = percent(point["max_fpr"])
        lines += [
            f"| honest models over the threshold of {rate} | {counted(point['false_alarms'])} |",
            f"| models with true ASR > 50 % over the threshold | {counted(point['detected'])} |",
        ]
    for name in ("rules", "calibrated"):
        if name in result["verdicts"]:
            item = result["verdicts"][name]
            lines += [
                (
                    f"| {name}: honest models held or rejected | "
                    f"{counted(item['honest_not_cleared'])} |"
                ),
                f"| {name}: honest models rejected | {counted(item['honest_rejected'])} |",
                (
                    f"| {name}: true ASR > 50 % held or rejected | "
                    f"{counted(item['strong_not_cleared'])} |"
                ),
                f"| {name}: true ASR > 50 % rejected | {counted(item['strong_rejected'])} |",
                f"| {name}: inconclusive | {counted(item['inconclusive'])} |",
            ]
    return "\n".join(lines)


def _detectors(found: Mapping[str, Any]) -> str:
    lines = [
        (
            "| detector | AUROC of its score | honest flagged | true ASR > 50 % flagged | could "
            "not look | seconds |"
        ),
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {area(item)} | {counted(item['honest_flagged'])} | "
        f"{counted(item['strong_flagged'])} | "
        f"{item['could_not_look']} | {item['median_seconds']:.1f} |"
        for name, item in found.items()
    ]
    return "\n".join(lines)


def _attacks(found: Mapping[str, Any]) -> str:
    lines = [
        (
            "| attack | models | mean true ASR | held or rejected | rejected | of those with "
            "ASR > 50 % |"
        ),
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {item['models']} | {percent(item['asr'])} | {_short(item['not_cleared'])} | "
        f"{_short(item['rejected'])} | {_short(item['strong_not_cleared'])} |"
        for name, item in found.items()
    ]
    return "\n".join(lines)


def _short(item: Mapping[str, Any]) -> str:
    return f"{item['k']}/{item['n']}" if item["n"] else "–"


def _split(found: Mapping[str, Any]) -> str:
    lines = ["| left out | AUROC | honest | backdoored |", "|---|---|---|---|"]
    rows = [*found["each"].items(), ("all together", found["all"])]
    lines += [
        f"| {name} | {area(item)} | {item['honest']} | {item['backdoored']} |"
        for name, item in rows
    ]
    return "\n".join(lines)


def _bounds(item: Mapping[str, Any]) -> str:
    summary = (
        "Of the detected models with a reported bound, the true ASR lies under it for "
        f"{counted(item['covered'])}; "
        f"the bound is 100 % for {counted(item['bound_is_one'])}. Median width from the lower end "
        "to the bound: "
        f"{percent(item['median_width'])}. Median distance of the estimate from the true ASR: "
        f"{percent(item['median_error'])}."
    )
    if not item.get("attacks"):  # records before 2026-11-22 have none
        return summary
    lines = [
        summary,
        "",
        "| attack | under the bound | bound is 100 % | median width | median distance |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {_short(own['covered'])} | {_short(own['bound_is_one'])} | "
        f"{percent(own['median_width'])} | "
        f"{percent(own['median_error'])} |"
        for name, own in item["attacks"].items()
    ]
    return "\n".join(lines)


def _levels(found: Mapping[str, Any]) -> str:
    lines = [
        "| p of | honest models | p <= 1 % | p <= 5 % | Kolmogorov-Smirnov (too small) | its p |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {item['n']} | {_short(item['under_1'])} | {_short(item['under_5'])} | "
        f"{item['ks']:.3f} | "
        f"{item['ks_p']:.3f} |"
        for name, item in found.items()
    ]
    return "\n".join(lines)
