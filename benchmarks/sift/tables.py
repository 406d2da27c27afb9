"""The summary and the tables of the sift's record."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.sift import carried, numbers, published
from benchmarks.sift.exam import CLEAN
from benchmarks.sift.formats import counted, head, interval, judged, line, short
from benchmarks.sift.numbers import REPLAY, STRONG, Row
from benchmarks.sift.speed import AIM_SECONDS, AIM_SHARE
from guard.core.sift import SiftVerdict

Result = Mapping[str, Any]
NAMES = {
    "clean_distance": "distance",
    "label_gap": "gap",
    "joined": "both",
    "fct": "FCT",
    "fct_upload": "FCT on the upload",
    "spectral": "spectral",
    "activation_clustering": "clustering",
    "early_loss": "early loss",
}
CLAIM = (
    "The share of poison that moves more than the median clean image, of all and of those with the "
    "same label; .5 would be like clean images. The claim is false in a cell where FCT's AUROC is "
    "under .5."
)
OWN = (
    "Means over cells with a true ASR of 50 % or more. The first three are the guard's own; the "
    "published ones are means over fewer cells, as many as the next table has."
)
REPLAYED = (
    "Replay: the share of mislabelled suspects of the proof part that the model still sends to "
    "their label. Clean-label suspects have no such image. The trigger estimated from suspects "
    "reads low where images carry different triggers."
)


def summary(rows: Sequence[Row], cells: int, sifts: int, note: str = "") -> dict[str, Any]:
    """All numbers of the record."""
    strong = numbers.strong(rows)
    often = numbers.of_rate(strong, rare=False)
    return {
        "note": note,
        "planned": {"cells": cells, "sifts": sifts},
        "done": {"cells": len({row["name"] for row in rows}), "sifts": len(rows)},
        "found": numbers.by_attack_and_rate(strong),
        "aims": _aims(rows, strong),
        "fdr": numbers.false_discoveries(strong),
        "honest": numbers.honest(rows),
        "sizes": numbers.sizes(rows),
        "methods": {
            "5 % and more": numbers.methods(often),
            "1 %": numbers.methods(numbers.of_rate(strong, rare=True)),
        },
        "claim": numbers.claim(strong),
        "replay": numbers.replay(strong),
        "carried": carried.summed(strong),
        "costs": numbers.costs(rows),
        "cells": [_cell(row) for row in sorted(rows, key=lambda row: (row["name"], row["clean"]))],
    }


def _cell(row: Row) -> dict[str, Any]:
    keys = (
        *("name", "clean", "acc", "asr", "poison", "joined_auroc", "flagged", "precision"),
        *("recall", "verdict", "replay"),
    )
    standing = [
        {key: one[key] for key in ("label", "poisoning", "obedience", "trigger_asr", "siblings")}
        for one in row["classes"]
    ]
    return {key: row[key] for key in keys} | {"classes": standing}


def _aims(rows: Sequence[Row], strong: Sequence[Row]) -> dict[str, Any]:
    """What was promised over all cells, and whether it holds; None where nothing was measured."""
    often = numbers.of_rate(strong, rare=False)
    promised = [row for row in often if any(aim is not None for aim in numbers.aim_of(row))]
    rare = [row for row in numbers.of_rate(strong, rare=True) if row["poison"] >= numbers.ENOUGH]
    mapped = [row for row in often if row["cell"]["attack"] == "all_to_all"]
    fdr, honest = numbers.false_discoveries(strong), numbers.honest(rows)
    close = [row for row in strong if row["replay"] is not None]
    within = sum(abs(row["replay"] - row["asr"]) <= REPLAY for row in close)
    return {
        "meet_5_percent": numbers.share(sum(map(numbers.meets, promised)), len(promised)),
        "meet_1_percent": numbers.share(sum(map(numbers.meets, rare)), len(rare)),
        "judged_poisoned": numbers.share(
            sum(row["verdict"] == SiftVerdict.POISONED for row in strong), len(strong)
        ),
        "all_to_all_by_map": numbers.share(sum(bool(row["map"]) for row in mapped), len(mapped)),
        "fdr_over": [f"{one['attack']} at {one['level']}" for one in fdr if one["over"]],
        "honest_accused": honest[-1]["accused"] if honest else numbers.share(0, 0),
        "honest_held": honest[-1]["held"] if honest else numbers.share(0, 0),
        "carried_within": carried.summed(strong)[-1]["planted"],
        "carried_covers": carried.summed(strong)[-1]["covered"],
        "replay_within": numbers.share(within, len(close)),
    }


def page(result: Result) -> str:
    """The record's tables."""
    done, planned = result["done"], result["planned"]
    lines = [
        f"{done['cells']} of {planned['cells']} cells, {done['sifts']} of {planned['sifts']} sifts "
        f"are done. {result['note']}".strip(),
        "",
    ]
    blocks = (
        _summing_up(result["aims"]),
        _found(result["found"]),
        _weak(result["cells"]),
        _fdr(result["fdr"]),
        _honest(result["honest"]),
        _methods(result["methods"]),
        _claim(result["claim"]),
        _replay(result["replay"]),
        carried.table(result["carried"]),
        _sizes(result["sizes"]),
        _costs(result["costs"], result.get("speed")),
        ["## Published numbers, not measured here", "", *published.table()],
    )
    for block in blocks:
        lines += [*block, ""]
    return "\n".join(lines)


def _summing_up(aims: Result) -> list[str]:
    accused, held = counted(aims["honest_accused"]), counted(aims["honest_held"])
    rows = (
        ("5 % and more: a cell by itself keeps its attack's aims below", "meet_5_percent"),
        ("1 %, 50 poisoned images or more: precision >= .85, recall >= .75", "meet_1_percent"),
        ("all-to-all is found by its map where it was learnt", "all_to_all_by_map"),
        ("the rate of replayed proof suspects is within .10 of the true ASR", "replay_within"),
        ("the trigger that suspects carry has its planted ASR within .10", "carried_within"),
        ("the range of that trigger has the ASR at test time within .10", "carried_covers"),
        ("(no aim) judged poisoned", "judged_poisoned"),
    )
    return [
        "## Aims",
        "",
        f"Cells with a true ASR of 50 % or more and {CLEAN} clean images.",
        "",
        *head("aim", "measured"),
        *(line(aim, f"{counted(aims[key])} cells") for aim, key in rows),
        line(
            "true false discoveries exceed their estimate by at most .05, pooled by attack",
            f"all but: {', '.join(aims['fdr_over']) or 'none'}",
        ),
        line(
            "at most 1 of 30 honest sets is accused",
            f"{accused} judged poisoned; {held} poisoned or for a person",
        ),
    ]


def _found(found: Sequence[Result]) -> list[str]:
    lines = [
        f"## What is found: cells with a true ASR of 50 % or more, {CLEAN} clean images",
        "",
        "Aims stand in brackets.",
        "",
        *head(
            *("attack", "rate", "n", "ASR", "AUROC: mean, least", "precision", "recall"),
            *("keep their aims", "judged"),
        ),
    ]
    for row in found:
        auroc, precision, recall = (f" [{aim:.2f}]" if aim else "" for aim in row["aim"])
        lines.append(
            line(
                row["attack"],
                f"{row['rate']:.0%}",
                row["n"],
                short(row["asr"]),
                f"{short(row['auroc'], 3)}, {short(row['least_auroc'], 3)}{auroc}",
                interval(row["precision"]) + precision,
                interval(row["recall"]) + recall,
                f"{row['meet']['k']}/{row['meet']['n']}",
                judged(row["verdicts"]),
            )
        )
    return lines


def _weak(cells: Sequence[Result]) -> list[str]:
    return [
        "## Cells whose backdoor was not learnt (true ASR under 50 %)",
        "",
        *head("cell", "ASR", "poison", "AUROC", "accused", "precision", "recall", "judged"),
        *(
            line(
                *(row["name"], short(row["asr"]), row["poison"], short(row["joined_auroc"], 3)),
                *(row["flagged"], short(row["precision"]), short(row["recall"]), row["verdict"]),
            )
            for row in cells
            if row["asr"] is not None and row["asr"] < STRONG and row["clean"] == CLEAN
        ),
    ]


def _fdr(rows: Sequence[Result]) -> list[str]:
    levels = sorted({row["level"] for row in rows})
    lines = [
        "## True rate of false discoveries, pooled by attack, at estimates of",
        "",
        *head("attack", *(f"{level:.0%}" for level in levels)),
    ]
    for attack in dict.fromkeys(row["attack"] for row in rows):
        own = [row for row in rows if row["attack"] == attack]
        shown = (interval(row["true"]) + (" **over**" if row["over"] else "") for row in own)
        lines.append(line(attack, *shown))
    return lines


def _honest(rows: Sequence[Result]) -> list[str]:
    return [
        f"## Honest sets, {CLEAN} clean images",
        "",
        *head("kind", "judged", "judged poisoned", "poisoned or for a person"),
        *(
            line(row["kind"], judged(row["verdicts"]), *map(counted, (row["accused"], row["held"])))
            for row in rows
        ),
    ]


def _methods(tables: Result) -> list[str]:
    lines = [
        "## Each statistic by itself: AUROC / precision at the true number of poisoned images",
        "",
        OWN,
    ]
    for rate, rows in tables.items():
        have = [name for name in NAMES if any(name in row for row in rows)]
        if rows:
            lines += ["", *head(rate, "n", *(NAMES[name] for name in have))]
        for row in rows:
            lines.append(line(row["attack"], row["n"], *(_both(row.get(name)) for name in have)))
    return lines


def _both(pair: Sequence[float | None] | None) -> str:
    if pair is None:
        return "-"
    auroc, precision = pair
    return short(auroc, 3) if precision is None else f"{short(auroc)} / {short(precision)}"


def _claim(rows: Sequence[Result]) -> list[str]:
    lines = [
        "## FCT's claim: poisoned images move more under transformations",
        "",
        CLAIM,
        "",
        *head(
            *("attack", "FCT with", "n", "AUROC: mean, range", "AUROC in the label"),
            *("above the clean median", "above that of the label", "false in"),
        ),
    ]
    for row in rows:
        low, high = row["range"]
        lines.append(
            line(
                row["attack"],
                "its own network" if row["statistic"] == "fct" else "the upload",
                row["n"],
                f"{short(row['auroc'])}, {short(low)} to {short(high)}",
                short(row["auroc_same_label"]),
                short(row["moved"]),
                short(row["moved_same_label"]),
                f"{row['false']['k']}/{row['false']['n']}",
            )
        )
    return lines


def _replay(rows: Sequence[Result]) -> list[str]:
    lines = [
        "## ASR that suspects show, beside the true one",
        "",
        REPLAYED,
        "",
        *head(
            *("attack", "n", "true ASR", "replay", "farthest", "within .10"),
            "estimated trigger minus ASR",
        ),
    ]
    for row in rows:
        traced = row["trigger_minus_asr"]
        lines.append(
            line(
                *(row["attack"], row["n"], short(row["asr"]), short(row["replay"])),
                *(short(row["farthest"]), counted(row["within"])),
                "-" if traced is None else f"{traced[0]:+.2f} to {traced[1]:+.2f}",
            )
        )
    return lines


def _sizes(rows: Sequence[Result]) -> list[str]:
    lines = [
        "## Size of the clean set, on the same cells",
        "",
        *head(
            *("clean images", "methods see a class", "poisoned cells", "AUROC", "precision"),
            *("recall", "judged", "honest sets accused or for a person"),
        ),
    ]
    lines += [
        line(
            *(row["clean"], row["seen_per_class"], row["n"], short(row["auroc"], 3)),
            *(interval(row["precision"]), interval(row["recall"])),
            *(judged(row["verdicts"]), counted(row["honest"])),
        )
        for row in rows
        if row["n"]
    ]
    return lines


def _costs(costs: Result, speed: Result | None) -> list[str]:
    training, whole, kept, others = (
        short(costs[key], 0)
        for key in ("training", "sift", "sift_with_kept_references", "published")
    )
    text = (
        f"Processor seconds of a cell on average: training {training}, a sift {whole} ({kept} with "
        "reference networks kept from another cell with the same clean images), the published "
        f"statistics {others}. In a sift that trains its references, networks compute "
        f"{short(costs['network_share'])} of the time [{AIM_SHARE:.2f}]."
    )
    if speed is None:
        return ["## Time", "", text]
    seconds, passes = f"{speed['seconds']:.0f} s", f"{speed['network_share']:.0%}"
    setting = f"{speed['images']:,} images, width {speed['width']}, {speed['threads']} threads"
    timed = (
        f"{setting}: {seconds} [{AIM_SECONDS} s], {speed['cpu_seconds']:.0f} of the processor; in "
        f"{passes} of the time networks compute [{AIM_SHARE:.0%}]."
    )
    return ["## Time", "", text, "", timed]
