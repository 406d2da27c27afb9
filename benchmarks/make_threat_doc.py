"""Write the table of docs/threat-model.md from the tests' markers; a test compares the two.

A test that fails without a control has the marker `threat` with the case's number. Cases and their
titles are in `threat_cases.toml`.

    python -m benchmarks.make_threat_doc
"""

from pathlib import Path

from benchmarks.case_table import ROOT, CaseTable

THREATS = CaseTable(
    cases_file=Path(__file__).parent / "threat_cases.toml",
    marker="threat",
    document=ROOT / "docs" / "threat-model.md",
    start="<!-- cases: made, not written -->\n",
    number=r"[ABC]\d\d",
    groups={
        "Getting a model served that was not vetted": lambda case: case.startswith("A"),
        "Passing the detectors": lambda case: case.startswith("B"),
        "Attacking the guard": lambda case: case.startswith("C"),
    },
    summary=(
        "{held} of {all} cases have a control and marked tests; {missing} are not in this release; "
        "{partly} leave something open, which their rows name."
    ),
    columns="| case | control | held by |",
)

if __name__ == "__main__":
    THREATS.document.write_text(THREATS.page())
    print(THREATS.document)
