"""The numbers and tables of the record of repairs and retrainers (`benchmarks.bench_retrain`)."""

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

from benchmarks.detect.report import percent
from benchmarks.retrain.methods import (
    CONTROL,
    D_BR,
    D_ST,
    FINE_TUNING,
    ORACLE,
    PUBLISHED,
    RELABELLING,
    SIFTED,
    TRAP,
)
from guard.ml.statistics import wilson

INFORMED = "relabelling, else bounded D-BR"
TRAP_CONTROL = f"{TRAP}, {CONTROL}"
ORDER = (
    FINE_TUNING,
    RELABELLING,
    D_BR,
    PUBLISHED,
    INFORMED,
    SIFTED,
    ORACLE,
    D_ST,
    TRAP,
    TRAP_CONTROL,
)
LEARNT = 0.5  # ASR of the upload; a weaker backdoor is shown, and counts for no aim
SEEDS = 3  # with fewer, an aim is at best met so far
NEAR = 0.1  # proof images that may still be obeyed where relabelling is kept


class Aim(NamedTuple):
    """What a method shall reach: `asr` at most, `points` of ACC lost at most.

    ACC is compared with that of the upload or of the oracle. `upper`: the upper end of the pooled
    interval counts, not the rate.
    """

    method: str
    asr: float
    points: float
    against: str = "upload"
    upper: bool = False


AIMS = (
    Aim(INFORMED, 0.10, 2.0, upper=True),
    Aim(RELABELLING, 0.10, 2.0, upper=True),
    Aim(D_BR, 0.10, 2.0, upper=True),
    Aim(SIFTED, 0.05, 1.0, against=ORACLE),
    Aim(D_ST, 0.10, 3.0),
    Aim(TRAP, 0.10, 6.0),
)
#: What papers and others report, on CIFAR-10 with ResNet-18 at 10 % poison; nothing of it is ours.
PUBLISHED_NUMBERS = (
    ("D-BR", "Chen et al. 2022, mean of 7 attacks", "92.5/97.3", "92.4/0.3"),
    ("D-BR", "BackdoorBench leaderboard, mean of 7 attacks (PreAct-18)", "91.3/97.6", "30.3/42.8"),
    ("D-ST", "Chen et al. 2022, mean of 7 attacks", "from scratch", "91.7/1.2"),
    ("D-ST", "BackdoorBench leaderboard, GTSRB, mean of 7 attacks", "98.1/92.6", "85.9/88.0"),
)


def rate(item: Mapping[str, int]) -> str:
    """`k` of `n` as a percentage."""
    return percent(item["k"] / item["n"])


def informed(methods: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a tournament that sees no truth would keep of the two informed repairs.

    Relabelling, unless it failed or the proof images are still obeyed; None where one is missing.
    """
    if RELABELLING not in methods or D_BR not in methods:
        return None
    first = methods[RELABELLING]
    near = "proof" not in first or first["proof"]["k"] <= NEAR * first["proof"]["n"]
    return dict(first if "failed" not in first and near else methods[D_BR])


def summary(rows: Sequence[Mapping[str, Any]], planned: int) -> dict[str, Any]:
    """The numbers of the record; `rows` are one for each cell, as `collected` gives them."""
    cells = []
    for row in rows:
        methods = dict(row["methods"])
        both = informed(methods)
        if both is not None:
            methods[INFORMED] = both
        cells.append({**row, "methods": methods})
    strong = [cell for cell in cells if _rate(cell["before"]["asr"]) >= LEARNT]
    return {
        "planned": planned,
        "retrained": len(cells),
        "learnt": len(strong),
        "seeds": sorted({cell["cell"]["seed"] for cell in cells}),
        "by_method": {name: _pooled(strong, name) for name in ORDER},
        "aims": [_held(aim, strong) for aim in AIMS],
        "trap_helps": _trap(strong),
        "replay": _replay(strong),
        "cells": [_short(cell) for cell in cells],
    }


def _rate(item: Mapping[str, int]) -> float:
    return item["k"] / item["n"]


def _after(cell: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A method's row; the upload's own numbers where the method failed, None where it is missing.

    A repair that fails leaves the upload as it is.
    """
    row = cell["methods"].get(name)
    return cell["before"] if row is not None and "failed" in row else row


def _pooled(cells: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    """One method over all cells that have it; None where none has."""
    pairs = [(cell, after) for cell in cells if (after := _after(cell, name)) is not None]
    if not pairs:
        return None
    change = [100 * (_rate(after["acc"]) - _rate(cell["before"]["acc"])) for cell, after in pairs]
    spent = [after["seconds"] for _, after in pairs if "seconds" in after]
    return {
        "cells": len(pairs),
        "failed": sum("failed" in cell["methods"][name] for cell, _ in pairs),
        "acc": mean(_rate(after["acc"]) for _, after in pairs),
        "acc_change": mean(change),
        "acc_worst": min(change),
        "asr": _interval([after["asr"] for _, after in pairs]),
        "asr_worst": max(_rate(after["asr"]) for _, after in pairs),
        "seconds": median(spent) if spent else None,
    }


def _interval(items: Sequence[Mapping[str, int]]) -> dict[str, float]:
    k, n = sum(item["k"] for item in items), sum(item["n"] for item in items)
    low, high = wilson(k, n)
    return {"k": k, "n": n, "share": k / n, "low": low, "high": high}


def _held(aim: Aim, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An aim beside what was measured, over all cells together and by cell."""
    pairs = []
    for cell in cells:
        after = _after(cell, aim.method)
        other = cell["before"] if aim.against == "upload" else cell["methods"].get(aim.against)
        if after is not None and other is not None:
            points = 100 * (_rate(other["acc"]) - _rate(after["acc"]))
            pairs.append((after, round(points, 6)))  # 1.0000000000000009 points are one
    if not pairs:
        return {**aim._asdict(), "cells": 0, "met": None}
    pooled = _interval([after["asr"] for after, _ in pairs])
    lost = mean(points for _, points in pairs)
    reached = [
        _interval([after["asr"]])["high" if aim.upper else "share"] <= aim.asr
        and points <= aim.points
        for after, points in pairs
    ]
    return {
        **aim._asdict(),
        "cells": len(pairs),
        "asr_measured": pooled,
        "points_lost": lost,
        "met": pooled["high" if aim.upper else "share"] <= aim.asr and lost <= aim.points,
        "cells_met": sum(reached),
    }


def _trap(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The trap against its control: differences of ACC and ASR in points, and the PSNR."""
    pairs = [
        (cell["methods"][TRAP], cell["methods"][TRAP_CONTROL])
        for cell in cells
        if TRAP_CONTROL in cell["methods"]
    ]
    if not pairs:
        return None
    asr = [100 * (_rate(own["asr"]) - _rate(other["asr"])) for own, other in pairs]
    return {
        "cells": len(pairs),
        "asr_difference": mean(asr),
        "asr_differences": asr,
        "lower_asr": sum(one < 0 for one in asr),
        "acc_difference": mean(
            100 * (_rate(own["acc"]) - _rate(other["acc"])) for own, other in pairs
        ),
        "psnr": [own["numbers"]["psnr"] for own, _ in pairs],
        "bait_held": sum(bool(own["numbers"]["bait_held"]) for own, _ in pairs),
    }


def _replay(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """How far the share of proof images that are obeyed is from the true ASR, in points."""
    rows = [cell["before"] for cell in cells]
    rows += [row for cell in cells for name, row in cell["methods"].items() if name != INFORMED]
    apart = [100 * (_rate(row["proof"]) - _rate(row["asr"])) for row in rows if "proof" in row]
    if not apart:
        return None
    near = sum(abs(points) <= 100 * NEAR for points in apart)
    return {"networks": len(apart), "within_10": near, "lowest": min(apart), "highest": max(apart)}


def _short(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell as it stands in the summary."""
    kept = ("acc", "asr", "proof", "seconds", "failed")
    return {
        **{key: cell[key] for key in ("name", "poison", "accused", "precision", "recall")},
        "before": cell["before"],
        "methods": {
            name: {key: row[key] for key in kept if key in row}
            for name, row in cell["methods"].items()
        },
    }


def page(result: Mapping[str, Any]) -> str:
    """The record's tables."""
    seeds = ", ".join(map(str, result["seeds"])) or "none"
    lines = [
        f"{result['retrained']} of {result['planned']} cells, seeds {seeds}. In {result['learnt']}",
        f"the ASR of the upload is at least {LEARNT:.0%}: only those count but in the last of our",
        "tables. The machine was shared with other work, so times are of the processor.",
        *([result["note"]] if result.get("note") else []),
        "",
        *_aims(result),
        "",
        *_methods(result),
        "",
        *_trap_words(result["trap_helps"]),
        "",
        *_replay_words(result["replay"]),
        "",
        *_cells(result),
        "",
        "Published, for comparison, on other data and networks; ACC/ASR in %:",
        "",
        "| method | source | before | after |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in PUBLISHED_NUMBERS),
    ]
    return "\n".join(lines)


def _aims(result: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            "| aim | ASR at most | measured, 95 % | ACC points lost at most | measured | met | "
            "cells that meet it alone |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for aim in result["aims"]:
        name, most = aim["method"], f"{aim['points']:g} against the {aim['against']}"
        limit = f"{aim['asr']:.0%}{' (upper end)' if aim['upper'] else ''}"
        if not aim["cells"]:
            lines.append(f"| {name} | {limit} | – | {most} | – | not measured | – |")
            continue
        enough = len(result["seeds"]) >= SEEDS
        met = ("yes" if enough else "yes so far") if aim["met"] else "**no**"
        alone = f"{aim['cells_met']}/{aim['cells']}"
        measured = f"{_ends(aim['asr_measured'])} | {most} | {aim['points_lost']:.1f}"
        lines.append(f"| {name} | {limit} | {measured} | {met} | {alone} |")
    return lines


def _ends(item: Mapping[str, float]) -> str:
    low, high = percent(item["low"]), percent(item["high"])
    return f"{percent(item['share'])} ({low} to {high}, n {item['n']})"


def _methods(result: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            "| method | cells | failed | ACC | change, points | worst | ASR, pooled | worst cell | "
            "CPU seconds, median |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ORDER:
        row = result["by_method"][name]
        if row is None:
            continue
        spent = "–" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(
            f"| {name} | {row['cells']} | {row['failed']} | {percent(row['acc'])} | "
            f"{row['acc_change']:+.1f} | {row['acc_worst']:+.1f} | {_ends(row['asr'])} | "
            f"{percent(row['asr_worst'])} | {spent} |"
        )
    return lines


def _trap_words(trap: Mapping[str, Any] | None) -> list[str]:
    if trap is None:
        return ["Whether the trap helps over its control is not measured."]
    signals = ", ".join(f"{one:.1f}" for one in trap["psnr"])
    each = ", ".join(f"{one:+.1f}" for one in trap["asr_differences"])
    return [
        "**Does the trap help?** Against its control, the same without a decoder, its ASR differs",
        f"by {trap['asr_difference']:+.1f} points on average ({each}; lower in",
        f"{trap['lower_asr']} of {trap['cells']} cells), its ACC by {trap['acc_difference']:+.1f}.",
        f"PSNR of the reconstruction: {signals} dB; the bait held in {trap['bait_held']} of",
        f"{trap['cells']}.",
    ]


def _replay_words(replay: Mapping[str, Any] | None) -> list[str]:
    if replay is None:
        return ["No cell has proof images."]
    return [
        "**The proof part.** The share of accused images kept for the proof that a network still",
        f"sends to their label is within 10 points of its true ASR in {replay['within_10']} of",
        f"{replay['networks']} networks ({replay['lowest']:+.1f} to {replay['highest']:+.1f}).",
    ]


def _cells(result: Mapping[str, Any]) -> list[str]:
    lines = ["ACC / ASR in % of each cell, with the sift's precision and recall:", ""]
    lines += [
        f"| cell | sift | before | {' | '.join(ORDER)} |",
        "|---|---|---|" + "---|" * len(ORDER),
    ]
    for cell in result["cells"]:
        sift = f"{_two(cell['precision'])}, {_two(cell['recall'])}"
        shown = [_pair(cell["methods"].get(name)) for name in ORDER]
        lines.append(f"| {cell['name']} | {sift} | {_pair(cell['before'])} | {' | '.join(shown)} |")
    return lines


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _pair(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    if "failed" in row:
        return "failed"
    return f"{100 * _rate(row['acc']):.1f} / {100 * _rate(row['asr']):.1f}"
