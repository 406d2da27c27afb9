"""Write docs/evidence.md from the newest records of a kind; a test compares the two.

It quotes records, nothing else.

    python -m benchmarks.make_evidence_doc
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import speed_words
from benchmarks.detect.words import counted
from benchmarks.detect.words import page as detection
from benchmarks.purify import claims_words, mesa_words
from benchmarks.purify.words import page as purification
from benchmarks.record import RECORDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence.md"
HEAD = """# Evidence: how often verdicts are right, and what repairs are worth

Made by `python -m benchmarks.make_evidence_doc` from `benchmarks/records/`; change nothing by hand.
Each section quotes one record, which also holds a row for each model, the plots, the hardware and
the commit. A record speaks about its zoo and about nothing else: attacks, architectures and data
that are not in it were not measured.
"""
NONE = """
There is no record of the ensemble yet. `make bench-detect ZOO=DIR` writes one.
"""


def seeds(result: dict[str, Any]) -> str:
    """What another seed changes."""
    flips = "; ".join(
        f"{name} ({' then '.join(item['verdicts'])})" for name, item in result["flipped"].items()
    )
    name, same = result["policy"]["name"], counted(result["same_to_the_bit"])
    versions = ", ".join(
        f"{method} {version}" for method, version in result.get("versions", {}).items()
    )
    said = (
        f"Verdict of policy {name} changed with the seed: {counted(result['flips'])}. Evidence "
        "the same to the bit "
        f"with the same seed: {same}. Versions of methods: {versions or 'not recorded'}."
    )
    parts = (said, f"Changed: {flips}." if flips else "", result.get("note", ""))
    return "\n\n".join(part for part in parts if part)


def claims(result: dict[str, Any]) -> str:
    """What two papers say, and what was seen here."""
    return (
        "Whether TSBD's and SAU's claims hold (what each letter stands for: the record's own "
        "page); "
        f"{result['clean_fraction']:.0%} clean pictures.\n\n{claims_words.page(result)}"
    )


#: What a record of a kind has, and how it is told.
KINDS: tuple[tuple[set[str], Callable[[dict[str, Any]], str]], ...] = (
    ({"who", "auroc", "attacks"}, detection),
    ({"summary", "against", "attacks"}, purification),
    ({"flips", "same_to_the_bit"}, seeds),
    ({"summary", "clean_fraction", "neurons"}, claims),
    ({"summary", "levels", "stamped"}, mesa_words.page),
    ({"totals", "bfloat16"}, speed_words.ensemble),
    ({"ratios", "quality"}, speed_words.inversion),
    ({"ratios", "detector"}, speed_words.classes),
    ({"sau_ratio", "peak_over_fine_tuning"}, speed_words.repairs),
    ({"compile_seconds", "step_ratio"}, speed_words.compiling),
    ({"layouts", "rows"}, speed_words.layouts),
    ({"limit", "proofs"}, speed_words.proofs),
)


def records(folder: Path = RECORDS) -> list[tuple[Path, Callable[[dict[str, Any]], str]]]:
    """The newest record of each name, with how it is told, by kind and name."""
    newest: dict[tuple[int, str], Path] = {}
    for path in sorted(folder.glob("*/result.json")):
        document = json.loads(path.read_text())
        for place, (words, _) in enumerate(KINDS):
            if words <= set(document.get("result", ())):
                newest[place, document["name"]] = path.parent
    return [(newest[place, name], KINDS[place][1]) for place, name in sorted(newest)]


def page(folder: Path = RECORDS) -> str:
    """The whole document."""
    sections = [_section(path, tell) for path, tell in records(folder)]
    return HEAD + ("\n" + "\n".join(sections) if sections else NONE)


def _section(path: Path, tell: Callable[[dict[str, Any]], str]) -> str:
    document: dict[str, Any] = json.loads((path / "result.json").read_text())
    seen = document["surroundings"]
    pictures = " ".join(
        f"[{picture.stem}](../benchmarks/records/{path.name}/{picture.name})"
        for picture in sorted(path.glob("*.png"))
    )
    return (
        f"## {document['name']}\n\nRecord [{path.name}](../benchmarks/records/{path.name}/), "
        f"{seen['date']}, "
        f"commit {seen['commit']}, {seen['processor']}, device "
        f"{document['result'].get('device', 'default')}.\n"
        f"Plots: {pictures or 'none'}.\n\n{tell(document['result'])}\n"
    )


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
