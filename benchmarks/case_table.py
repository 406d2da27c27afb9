"""Tables of cases and what holds each: tests with a marker, or a reason why nothing does.

A table of cases is a TOML file, a marker on tests, and the part of a document between two comments.
Test files are parsed and not imported.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORDS = Path("benchmarks/records")
END = "<!-- end of cases -->"
KEYS = {"title", "control", "open", "missing", "records"}
Places = dict[str, list[tuple[str, str]]]


@cache
def held_by(marker: str, folder: Path = ROOT / "tests") -> Places:
    """The tests that hold each case: (path from the root, name), as the markers have it.

    Raises:
        ValueError: a marker is anywhere but on a test, or its arguments are not plain.
    """
    found: Places = {}
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text()
        if f"mark.{marker}(" not in text:
            continue
        tree = ast.parse(text)
        on_tests = set()
        for test in ast.walk(tree):
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
                continue
            for mark in (mark for item in test.decorator_list for mark in _marks(item, marker)):
                on_tests.add(mark)
                for argument in mark.args:
                    case = str(ast.literal_eval(argument))
                    place = path.relative_to(folder.parent).as_posix(), test.name
                    found.setdefault(case, []).append(place)
        if astray := set(_marks(tree, marker)) - on_tests:
            lines = sorted(mark.lineno for mark in astray)
            raise ValueError(f"{path}: markers of cases that are on no test: lines {lines}")
    return found


def _marks(node: ast.AST, marker: str) -> Iterator[ast.Call]:
    for part in ast.walk(node):
        if (
            isinstance(part, ast.Call)
            and isinstance(part.func, ast.Attribute)
            and part.func.attr == marker
            and ast.unparse(part.func.value) == "pytest.mark"
        ):
            yield part


@dataclass(frozen=True)
class CaseTable:
    """One table: where its cases are, how they are marked, and where it is written."""

    cases_file: Path
    marker: str
    document: Path
    start: str  # the comment before the made part
    number: str  # what a case's number looks like, as an expression
    groups: Mapping[str, Callable[[str], bool]]  # which cases stand under a title
    summary: str  # filled with `all`, `held`, `missing`, `partly` (of those held), `whole`
    columns: str
    in_part: str = ""  # before what there is of a case that leaves something open

    def cases(self) -> dict[str, dict[str, str]]:
        """What is known of each case by its number."""
        return tomllib.loads(self.cases_file.read_text())

    def held(self, folder: Path = ROOT / "tests") -> Places:
        """The tests that hold each case; raises ValueError as `held_by`."""
        return held_by(self.marker, folder)

    def problems(
        self, known: Mapping[str, Mapping[str, str]], held: Mapping[str, object]
    ) -> list[str]:
        """What the document cannot be made from, one sentence each."""
        wrong = [f"{case}: a marker names a case that is not known" for case in held.keys() - known]
        for case, facts in known.items():
            proved = case in held or "records" in facts
            if not re.fullmatch(self.number, case) or facts.keys() - KEYS:
                wrong.append(f"{case}: its number or a key of its table is not known")
            if ("missing" in facts) == proved:
                wrong.append(f"{case}: it needs either a marked test or a reason why it is missing")
            if ("control" in facts) != proved:
                wrong.append(f"{case}: it needs a control where tests hold it, and only there")
            wrong += [
                f"{case}: there is no record {name}"
                for name in facts.get("records", "").split()
                if not (ROOT / RECORDS / name).is_dir()
            ]
        return sorted(wrong)

    def table(self) -> str:
        """The part of the document between its two comments.

        Raises:
            ValueError: the cases and the markers do not fit together.
        """
        known, held = self.cases(), self.held()
        if wrong := self.problems(known, held):
            raise ValueError("\n".join(wrong))
        missing = sum("missing" in facts for facts in known.values())
        partly = sum("open" in facts for facts in known.values())
        counts = {
            "all": len(known),
            "missing": missing,
            "held": len(known) - missing,
            "partly": partly,
            "whole": len(known) - missing - partly,
        }
        parts = [f"\n{self.summary.format(**counts)}\n"]
        for title, belongs in self.groups.items():
            parts += [f"\n### {title}\n\n{self.columns}\n|---|---|---|\n"]
            parts += [
                self._row(case, facts, held.get(case, []))
                for case, facts in sorted(known.items(), key=_order)
                if belongs(case)
            ]
        return "".join(parts) + "\n"

    def page(self) -> str:
        """The whole document, with the table made anew."""
        head, _, rest = self.document.read_text().partition(self.start)
        return head + self.start + self.table() + END + rest.partition(END)[2]

    def _row(self, case: str, facts: Mapping[str, str], places: list[tuple[str, str]]) -> str:
        if "missing" in facts:
            return f"| {case} {facts['title']} | **not in this release**: {facts['missing']} | |\n"
        control = facts["control"]
        if "open" in facts:
            control = f"{self.in_part}{control}. Open: {facts['open']}"
        holds = [
            f"{name.removeprefix('test_').replace('_', ' ')} ([{Path(path).stem}](../{path}))"
            for path, name in places
        ]
        holds += [
            f"record [{name}](../{RECORDS.as_posix()}/{name}/README.md)"
            for name in facts.get("records", "").split()
        ]
        return f"| {case} {facts['title']} | {control} | {'; '.join(holds)} |\n"


def _order(item: tuple[str, object]) -> tuple[int, str]:
    case, _ = item
    return (int(case), "") if case.isdigit() else (0, case)
