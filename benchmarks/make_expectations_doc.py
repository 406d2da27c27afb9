"""Write docs/expectations.md: what users of a model registry's guard expect, and what holds it.

A test that shows a row has the marker `row` with its number. Rows are in `expectation_rows.toml`.

    python -m benchmarks.make_expectations_doc
"""

from collections.abc import Callable
from pathlib import Path

from benchmarks.case_table import ROOT, CaseTable


def _rows(first: int, last: int) -> Callable[[str], bool]:
    return lambda case: first <= int(case) <= last


ROWS = CaseTable(
    cases_file=Path(__file__).parent / "expectation_rows.toml",
    marker="row",
    document=ROOT / "docs" / "expectations.md",
    start="<!-- rows: made, not written -->\n",
    number=r"[1-9]|[1-5]\d|60",
    groups={
        "Uploads": _rows(1, 6),
        "Reading files": _rows(7, 14),
        "Detection": _rows(15, 20),
        "Repair": _rows(21, 25),
        "Verdicts and policy": _rows(26, 29),
        "Quarantine": _rows(30, 32),
        "People": _rows(33, 36),
        "Signed statements": _rows(37, 39),
        "Serving": _rows(40, 44),
        "Scanning again": _rows(45, 47),
        "Reports": _rows(48, 50),
        "Operation": _rows(51, 60),
    },
    summary=(
        "Of {all} rows {whole} work, {partly} work in part, and {missing} is not in this release; "
        "those name what is missing."
    ),
    columns="| what is expected | what there is | held by |",
    in_part="**in part**: ",
)

if __name__ == "__main__":
    ROWS.document.write_text(ROWS.page())
    print(ROWS.document)
