"""Write docs/evidence.md from the newest records of a kind; a test compares the two.

It quotes records, nothing else: one row for each claim.

    python -m benchmarks.make_evidence_doc
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence_rows import KINDS
from benchmarks.record import RECORDS, SUMMARY, load

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence.md"
HEAD = """# Evidence: how often verdicts are right, and what repairs are worth

Made by `python -m benchmarks.make_evidence_doc` from `benchmarks/records/`; change nothing by hand.
Each row quotes one record, whose page holds all other numbers, the hardware, the commit and what
else counts; records of development models, on which parameters were chosen, claim nothing and are
not here. Intervals are 95 %; `n` counts models or runs. A record speaks about its models and
about nothing else: attacks, architectures and data that are not in it were not measured.
`policy-N` is the policy's N-th defense as that sets it, `tournament` is `guard purify` by the
policy.
"""
#: Records of models that parameters were chosen on claim nothing.
DEVELOPMENT = "-dev"
NONE = """
There is no record yet. `make bench-detect ZOO=DIR` writes one.
"""
DETECTION = "Detection"
TITLES = tuple(dict.fromkeys(title for title, _, _ in KINDS))


def records(folder: Path = RECORDS) -> list[tuple[int, Path, dict[str, Any]]]:
    """The newest record of each name, with the place of its kind in `KINDS`, in that order."""
    newest: dict[tuple[int, str], tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"*/{SUMMARY}")):
        if DEVELOPMENT in path.parent.name:
            continue
        document = load(path.parent)
        for place, (_, keys, _) in enumerate(KINDS):
            if keys <= set(document.get("result", ())):
                newest[place, document["name"]] = path.parent, document["result"]
                break
    return [(place, *newest[place, name]) for place, name in sorted(newest)]


def page(folder: Path = RECORDS) -> str:
    """The whole document."""
    found = records(folder)
    if not found:
        return HEAD + NONE
    parts = [HEAD]
    for title in TITLES:
        own = [item for item in found if KINDS[item[0]][0] == title]
        if own:
            parts.append("\n".join(["", f"## {title}", "", *_claims(own)]) + "\n")
        if own and title == DETECTION:
            parts.append("\n".join(["", "## Detection by attack", "", *_attacks(own)]) + "\n")
    return "".join(parts)


def _claims(own: Sequence[tuple[int, Path, dict[str, Any]]]) -> Iterator[str]:
    yield "| claim | n | measured | record |"
    yield "|---|---|---|---|"
    for place, path, result in own:
        for claim, count, measured in KINDS[place][2](result):
            yield f"| {claim} | {count} | {measured} | {_link(path)} |"


def _attacks(own: Sequence[tuple[int, Path, dict[str, Any]]]) -> Iterator[str]:
    """Held or rejected of each attack's models whose true ASR is over 50 %."""
    yield "Held or rejected, of the models of each attack whose true ASR is over 50 %:"
    yield ""
    yield f"| attack | {' | '.join(_link(path) for _, path, _ in own)} |"
    yield "|---|" + "---|" * len(own)
    tables = [result["attacks"] for _, _, result in own]
    for name in sorted({name for table in tables for name in table}):
        items = [table.get(name, {}).get("strong_not_cleared") for table in tables]
        if any(item and item["n"] for item in items):
            cells = (f"{item['k']}/{item['n']}" if item and item["n"] else "–" for item in items)
            yield f"| {name} | {' | '.join(cells)} |"


def _link(path: Path) -> str:
    return f"[{path.name}](../benchmarks/records/{path.name}/README.md)"


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
