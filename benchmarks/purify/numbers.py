"""Rows to tables: means by defense and clean fraction, by attack, and paired differences."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.purify import reported

DRAWS = 2000
BASELINE = "fine_tune"
UNREPAIRED = 0.5  # DER where neither ASR nor ACC has changed
Rows = Sequence[Mapping[str, Any]]


def repaired(row: Mapping[str, Any]) -> bool:
    """Whether this row is a model that a defense changed; a tournament may clear one, and serve it as it was."""
    return bool(row.get("after")) and ("verdict" not in row or row.get("winner") is not None)


def summary(rows: Rows) -> list[dict[str, Any]]:
    """One line a defense and fraction. Means are over the models that it repaired; how many it did not is in the line.

    `der_all` is over all backdoored models: one without a repair stands with 0.5, the DER of a model as it was.
    """
    found = []
    for fraction, name in sorted({(row["fraction"], row["defense"]) for row in rows}):
        own = [row for row in rows if (row["fraction"], row["defense"]) == (fraction, name)]
        bad = [row for row in own if row["backdoored"]]
        honest = [row["loss"] for row in own if not row["backdoored"] and repaired(row)]
        done = [row for row in bad if repaired(row)]
        line: dict[str, Any] = {"defense": name, "fraction": fraction, "backdoored": len(bad), "repaired": len(done),
                                "failed": _counts(row.get("failed") for row in own)}
        if bad:
            line["der_all"] = interval([row["der"] if repaired(row) else UNREPAIRED for row in bad])
        if done:
            line |= {"asr_before": fmean(row["before"]["asr"] for row in done),
                     "asr": fmean(row["after"]["asr"] for row in done),
                     "worst_attack_asr": max(by_attack(done).values()),
                     "acc_loss": fmean(row["loss"] for row in done),
                     "worst_class_loss": max(row["worst_class_loss"] for row in done),
                     "der": interval([row["der"] for row in done]),
                     "seconds": median(row["seconds"] for row in done),
                     "peak_mib": max(row["peak_mib"] for row in done)}
        if honest:
            line |= {"honest": len(honest), "honest_loss": fmean(honest), "honest_worst_loss": max(honest)}
        if any("verdict" in row for row in own):
            line |= {"verdicts": _counts(row.get("verdict") for row in own),
                     "winners": _counts(row.get("winner") for row in own),
                     "time_over_winner": _over_winner(own)}
        found.append(line)
    return found


def by_attack(rows: Rows) -> dict[str, float]:
    """Mean ASR after the repair, by attack."""
    attacks = sorted({str(row["attack"]) for row in rows})
    return {name: fmean(row["after"]["asr"] for row in rows if row["attack"] == name) for name in attacks}


def against(rows: Rows, baseline: str = BASELINE) -> list[dict[str, Any]]:
    """DER of each defense minus that of the baseline on the same models, with a paired interval."""
    known = {(row["fraction"], row["defense"], row["model"], row["seed"]): row["der"] for row in rows
             if row["backdoored"] and repaired(row)}
    found = []
    for fraction, name in sorted({key[:2] for key in known}):
        pairs = [(der, known[fraction, baseline, *key[2:]]) for key, der in known.items()
                 if key[:2] == (fraction, name) and (fraction, baseline, *key[2:]) in known]
        if name != baseline and pairs:
            found.append({"defense": name, "fraction": fraction, "models": len(pairs),
                          "der_gain": interval([one - other for one, other in pairs])})
    return found


def beside(rows: Rows, champion: str) -> list[dict[str, Any]]:
    """What `champion` has more than each other defense on the models that both repaired, with paired intervals.

    DER (more is better), ASR, loss of accuracy and the worst class's loss of recall (less is better).
    """
    done = {(row["fraction"], row["defense"], row["model"], row["seed"]): row for row in rows
            if row["backdoored"] and repaired(row)}
    found = []
    for fraction, name in sorted({key[:2] for key in done if key[1] != champion}):
        pairs = [(done[fraction, champion, *key[2:]], row) for key, row in done.items()
                 if key[:2] == (fraction, name) and (fraction, champion, *key[2:]) in done]
        if pairs:
            found.append({"defense": name, "fraction": fraction, "models": len(pairs),
                          "der": interval([one["der"] - other["der"] for one, other in pairs]),
                          "asr": interval([one["after"]["asr"] - other["after"]["asr"] for one, other in pairs]),
                          **{key: interval([one[key] - other[key] for one, other in pairs])
                             for key in ("loss", "worst_class_loss")}})
    return found


def interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Mean and its 95 % percentile bootstrap interval over models."""
    points = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).choice(points, (DRAWS, len(points))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": float(points.mean()), "low": float(low), "high": float(high)}


def _over_winner(rows: Rows) -> float | None:
    """Median over won tournaments: seconds of all candidates' repairs, over those of the winner's alone."""
    ratios = []
    for row in rows:
        spent = [item["seconds"] for item in row.get("candidates", []) if item.get("seconds")]
        won = [item["seconds"] for item in row.get("candidates", []) if item["defense"] == row.get("winner")]
        if won and won[0]:
            ratios.append(sum(spent) / won[0])
    return median(ratios) if ratios else None


def _counts(values: Any) -> dict[str, int]:
    known = [str(value) for value in values if value is not None]
    return {name: known.count(name) for name in sorted(set(known))}


def page(result: Mapping[str, Any]) -> str:
    """The tables, as Markdown."""
    columns = ("defense", "clean", "repaired", "ASR before", "ASR", "worst attack", "ACC loss", "worst class", "DER",
               "DER, unrepaired too", "honest: ACC loss (worst)", "seconds", "failed, or verdict")
    lines = [result["note"], ""] if result.get("note") else []
    lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for line in result["summary"]:
        der = line.get("der")
        honest = f"{_share(line['honest_loss'])} ({_share(line['honest_worst_loss'])})" if "honest" in line else "–"
        ends = line["failed"] | line.get("verdicts", {})
        failed = ", ".join(f"{name} {count}" for name, count in ends.items()) or "–"
        lines.append(
            f"| {line['defense']} | {line['fraction']:.0%} | {line['repaired']}/{line['backdoored']} | "
            f"{_share(line.get('asr_before'))} | {_share(line.get('asr'))} | {_share(line.get('worst_attack_asr'))} | "
            f"{_share(line.get('acc_loss'))} | {_share(line.get('worst_class_loss'))} | {_number(der)} | "
            f"{_number(line.get('der_all'))} | {honest} | "
            f"{line.get('seconds', '–')} | {failed} |")
    lines += ["", f"DER minus that of {BASELINE} on the same models:", "", "| defense | clean | models | gain |",
              "|---|---|---|---|"]
    lines += [f"| {line['defense']} | {line['fraction']:.0%} | {line['models']} | {_number(line['der_gain'])} |"
              for line in result["against"]]
    if result.get("tournament"):
        lines += ["", "The tournament minus each defense on the models that both repaired:", "",
                  "| defense | clean | models | DER | ASR | ACC loss | worst class |", "|" + "---|" * 7]
        lines += [f"| {line['defense']} | {line['fraction']:.0%} | {line['models']} | {_number(line['der'])} | "
                  f"{_number(line['asr'])} | {_number(line['loss'])} | {_number(line['worst_class_loss'])} |"
                  for line in result["tournament"]]
    beside_papers = reported.table(result["summary"])
    if len(beside_papers) > 2:
        lines += ["", f"Beside published numbers in percent (*reported*: {reported.WHERE}; *measured*: this zoo):", "",
                  *beside_papers]
    lines += ["", "Mean ASR after the repair, by attack:", ""]
    attacks = sorted({name for line in result["attacks"] for name in line["asr"]})
    lines += ["| defense | clean | " + " | ".join(attacks) + " |", "|---|---|" + "---|" * len(attacks)]
    lines += [f"| {line['defense']} | {line['fraction']:.0%} | "
              + " | ".join(_share(line["asr"].get(name)) for name in attacks) + " |" for line in result["attacks"]]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
