"""The ASR of the trigger that suspects carry, beside the true one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.sift import numbers
from benchmarks.sift.formats import counted, head, line, short
from benchmarks.sift.numbers import Row

NOTE = (
    "The trigger is read off the suspects (`guard.ml.sifting.carried`), stamped on the hold-out, "
    "and stamped twice as strong: a set does not show how strongly an attacker stamps later, and "
    "SIG and Adaptive-Blend here do so twice and 2.7 times as strong. Planted: with the strength "
    "of the training images."
)


def summed(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """What the trigger that suspects carry does to the hold-out, beside the truth, by attack.

    `planted` counts cells where its rate is near the ASR of the trigger as it was planted, `within`
    those where it is near that of test time, and `covered` those where the latter is in the range
    of the rates as carried and twice as strong, or near it.
    """
    lines = []
    for attack, own in [
        *numbers.grouped(rows, lambda row: row["cell"]["attack"]),
        ("all", [*rows]),
    ]:
        known = [row for row in own if row["carried"] is not None]
        pairs = [(row["carried"]["rate"], row["carried"]["stronger"]) for row in known]
        ends = [(min(pair), max(pair)) for pair in pairs]
        lines.append(
            {
                "attack": attack,
                "n": len(own),
                "asr": numbers.mean([row["asr"] for row in known]),
                "asr_planted": numbers.mean([row["asr_planted"] for row in known]),
                "rate": numbers.mean([pair[0] for pair in pairs]),
                "stronger": numbers.mean([pair[1] for pair in pairs]),
                "width": numbers.mean([high - low for low, high in ends]),
                "planted": _near(zip(known, pairs, strict=True), "asr_planted"),
                "within": _near(zip(known, pairs, strict=True), "asr"),
                "covered": numbers.share(
                    sum(
                        low - numbers.REPLAY <= row["asr"] <= high + numbers.REPLAY
                        for row, (low, high) in zip(known, ends, strict=True)
                    ),
                    len(known),
                ),
            }
        )
    return lines


def _near(pairs: Iterable[tuple[Row, tuple[float, float]]], truth: str) -> dict[str, Any]:
    away = [abs(pair[0] - row[truth]) for row, pair in pairs]
    return numbers.share(sum(one <= numbers.REPLAY for one in away), len(away))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "## ASR of the trigger that suspects carry, on the hold-out",
        "",
        NOTE,
        "",
        *head(
            *("attack", "n", "ASR at test time", "as planted", "as carried", "twice as strong"),
            *("width", "within .10 of planted", "within .10 of test time", "range holds it"),
        ),
    ]
    lines += [
        line(
            *(row["attack"], row["n"], short(row["asr"]), short(row["asr_planted"])),
            *(short(row["rate"]), short(row["stronger"]), short(row["width"])),
            *(counted(row["planted"]), counted(row["within"]), counted(row["covered"])),
        )
        for row in rows
    ]
    return lines
