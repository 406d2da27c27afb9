"""Write docs/evidence.md from the newest detection records; a test compares the two. It quotes records, nothing else.

    python -m benchmarks.make_evidence_doc
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.detect.words import page as detection
from benchmarks.record import RECORDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "evidence.md"
HEAD = """# Evidence: how often verdicts are right

Made by `python -m benchmarks.make_evidence_doc` from `benchmarks/records/`; change nothing by hand. Each section quotes
one record, which also holds a row for each model, the plots, the hardware and the commit. A record speaks about its zoo
and about nothing else: attacks, architectures and data that are not in it were not measured.
"""
NONE = """
There is no record of the ensemble yet. `make bench-detect ZOO=DIR` writes one.
"""


def records(folder: Path = RECORDS) -> list[Path]:
    """The newest record of each name that `benchmarks.bench_detect` wrote, by name."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.glob("*/result.json")):
        document = json.loads(path.read_text())
        if {"who", "auroc", "attacks"} <= set(document.get("result", ())):
            newest[document["name"]] = path.parent
    return [newest[name] for name in sorted(newest)]


def page(folder: Path = RECORDS) -> str:
    """The whole document."""
    sections = [_section(path) for path in records(folder)]
    return HEAD + ("\n" + "\n".join(sections) if sections else NONE)


def _section(path: Path) -> str:
    document: dict[str, Any] = json.loads((path / "result.json").read_text())
    seen = document["surroundings"]
    pictures = " ".join(f"[{picture.stem}](../benchmarks/records/{path.name}/{picture.name})"
                        for picture in sorted(path.glob("*.png")))
    return (f"## {document['name']}\n\nRecord [{path.name}](../benchmarks/records/{path.name}/), {seen['date']}, "
            f"commit {seen['commit']}, {seen['processor']}, device {document['result'].get('device', 'default')}.\n"
            f"Plots: {pictures or 'none'}.\n\n{detection(document['result'])}\n")


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
