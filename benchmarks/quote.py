"""Quote the newest records in README.md.

The demo's transcript, what policies miss, what repairs do; a test compares.

    python -m benchmarks.quote
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.detect.words import counted
from benchmarks.purify.running import TOURNAMENT
from benchmarks.record import RECORDS

README = Path(__file__).parents[1] / "README.md"
DEFAULT = "detect-default"  # the name of the records about the default policy
ENSEMBLE = "detect-ensemble"  # and of those about every detector
REPAIRS = "purify-exam"
HALF = 0.5


def transcript(folder: Path = RECORDS) -> str:
    """What the newest recorded `make demo` printed."""
    newest = sorted(folder.glob("*-demo/transcript.txt"))[-1]
    return f"As printed ({newest.parent.name}):\n\n```\n{newest.read_text().rstrip()}\n```"


def missed(kind: str = DEFAULT, who: str = "", folder: Path = RECORDS) -> str:
    """How often a policy was right on its newest zoo, and which attacks it mostly misses.

    `kind` names its records.
    """
    record, document = newest(kind, folder)
    if not document:
        return "- How often it is right is **not measured yet** on models that nobody had seen."
    rates, commit = document["result"]["verdicts"]["rules"], document["surroundings"]["commit"]
    honest, found = counted(rates["honest_not_cleared"]), counted(rates["strong_not_cleared"])
    gaps = [
        f"{name} ({item['k']} of {item['n']} found)"
        for name, item in strong(document["result"]).items()
        if mostly_missed(item)
    ]
    absent = ", ".join(
        document["result"].get("attacks_not_in_zoo", ())
    )  # records before 2026-11-27 do not say
    return (
        f"- {who}Measured on a zoo whose truth chose no parameter (record {record}, commit "
        f"{commit}; "
        f"its note says what else counts): held or rejected were {honest} of the honest models and "
        f"{found} of the backdoored ones whose true ASR is over 50 %. "
        f"**Mostly missed**: {', '.join(gaps) or 'no attack'}."
        f"{f' **Not measured**: {absent}.' if absent else ''}"
    )


def repairs(folder: Path = RECORDS) -> str:
    """What the default policy's tournament made of models that it rejects, in the newest record."""
    record, document = newest(REPAIRS, folder)
    line = (
        next(
            (
                line
                for line in document["result"]["summary"]
                if line["defense"] == TOURNAMENT and line["repaired"]
            ),
            None,
        )
        if document
        else None
    )
    if line is None:
        return "- What repairs are worth is **not measured yet** on models that nobody had seen."
    asr, commit = line["asr_interval"], document["surroundings"]["commit"]
    # records before November 28 had a single seed and do not count the models apart
    runs, models = line["backdoored"], line.get("models", line["backdoored"])
    repaired = (
        f"{line['repaired']} of {runs} "
        + ("" if models == runs else f"times ({models} models, {runs // models} seeds) the ")
        + "models that it rejects"
    )
    return (
        f"- Repairs, on models that chose no parameter (record {record}, commit {commit}; "
        f"its note says what else counts): with {line['fraction']:.0%} clean pictures the default "
        "policy repaired "
        f"{repaired}; the true ASR of these fell from "
        f"{line['asr_before']:.1%} to {asr['mean']:.1%} ({asr['low']:.1%} to {asr['high']:.1%}), "
        "**of the worst "
        f"attack to {line['worst_attack_asr']:.1%}**, at {line['acc_loss']:.1%} of accuracy. A "
        "repaired model is "
        "proved against the triggers that were recovered, and within limits against what may wake "
        "them."
    )


def newest(kind: str, folder: Path = RECORDS) -> tuple[str, dict[str, Any]]:
    """The name and the document of the newest record of this kind.

    Both empty where there is none.
    """
    found = sorted(folder.glob(f"*-{kind}/result.json"))
    return (found[-1].parent.name, json.loads(found[-1].read_text())) if found else ("", {})


def strong(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By attack, how many of its models with a true ASR over 50 % were held or rejected.

    Only attacks that have one.
    """
    return {
        name: line["strong_not_cleared"]
        for name, line in result["attacks"].items()
        if line["strong_not_cleared"]["n"]
    }


def mostly_missed(item: dict[str, Any]) -> bool:
    """At most half were found."""
    return bool(item["k"] <= HALF * item["n"])


BLOCKS: dict[str, Callable[[], str]] = {
    "demo": transcript,
    "missed": missed,
    "ensemble": partial(missed, ENSEMBLE, "Policy `ensemble`. "),
    "repairs": repairs,
}


def quoted(name: str) -> str:
    """What stands in README.md now."""
    begin, end = _marks(name)
    return README.read_text().partition(begin)[2].partition(end)[0].strip()


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def main() -> None:
    for name, make in BLOCKS.items():
        begin, end = _marks(name)
        before, _, rest = README.read_text().partition(begin)
        README.write_text(f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
