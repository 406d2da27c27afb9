"""Write the table of docs/threat-model.md from the tests' markers; a test compares the two.

A test that fails without a control has the marker `threat` with the case's number. Cases and their
titles are in `threat_cases.toml`. Test files are parsed and not imported.

    python -m benchmarks.make_threat_doc
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "threat-model.md"
CASES = Path(__file__).parent / "threat_cases.toml"
MARKER = "threat"
START, END = "<!-- cases: made, not written -->\n", "<!-- end of cases -->"
GROUPS = {
    "A": "Getting a model served that was not vetted",
    "B": "Passing the detectors",
    "C": "Attacking the guard",
}
Places = dict[str, list[tuple[str, str]]]


def cases(file: Path = CASES) -> dict[str, dict[str, str]]:
    """What is known of each case by its number."""
    return tomllib.loads(file.read_text())


def _marks(node: ast.AST) -> Iterator[ast.Call]:
    for part in ast.walk(node):
        if (
            isinstance(part, ast.Call)
            and isinstance(part.func, ast.Attribute)
            and part.func.attr == MARKER
            and ast.unparse(part.func.value) == "pytest.mark"
        ):
            yield part


def held_by(folder: Path = ROOT / "tests") -> Places:
    """The tests that hold each case: (path from the root, name), as the markers have it.

    Raises:
        ValueError: a marker is anywhere but on a test, or its arguments are not plain texts.
    """
    found: Places = {}
    for path in sorted(folder.rglob("test_*.py")):
        text = path.read_text()
        if f"mark.{MARKER}" not in text:
            continue
        tree = ast.parse(text)
        on_tests = set()
        for test in ast.walk(tree):
            if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
                continue
            for mark in (mark for item in test.decorator_list for mark in _marks(item)):
                on_tests.add(mark)
                for argument in mark.args:
                    case = ast.literal_eval(argument)
                    place = path.relative_to(folder.parent).as_posix(), test.name
                    found.setdefault(case, []).append(place)
        if astray := set(_marks(tree)) - on_tests:
            lines = sorted(mark.lineno for mark in astray)
            raise ValueError(f"{path}: markers of cases that are on no test: lines {lines}")
    return found


def problems(known: Mapping[str, Mapping[str, str]], held: Mapping[str, object]) -> list[str]:
    """What the document cannot be made from, one sentence each."""
    wrong = [f"{case}: a marker names a case that is not known" for case in held.keys() - known]
    for case, facts in known.items():
        if not re.fullmatch(r"[ABC]\d\d", case) or facts.keys() - {
            "title",
            "control",
            "open",
            "missing",
        }:
            wrong.append(f"{case}: its number or a key of its table is not known")
        if ("missing" in facts) == (case in held):
            wrong.append(f"{case}: it needs either a marked test or a reason why it is missing")
        if ("control" in facts) != (case in held):
            wrong.append(f"{case}: it needs a control where tests hold it, and only there")
    return sorted(wrong)


def _row(case: str, facts: Mapping[str, str], places: list[tuple[str, str]]) -> str:
    if not places:
        return f"| {case} {facts['title']} | **not in this release**: {facts['missing']} | |\n"
    control = facts["control"] + (f". Open: {facts['open']}" if "open" in facts else "")
    tests = "; ".join(
        f"{name.removeprefix('test_').replace('_', ' ')} ([{Path(path).stem}](../{path}))"
        for path, name in places
    )
    return f"| {case} {facts['title']} | {control} | {tests} |\n"


def table() -> str:
    """The part of the document between its two comments.

    Raises:
        ValueError: the cases and the markers do not fit together.
    """
    known, held = cases(), held_by()
    if wrong := problems(known, held):
        raise ValueError("\n".join(wrong))
    tested = sum(case in held for case in known)
    partly = sum("open" in facts for facts in known.values())
    parts = [
        (
            f"\n{tested} of {len(known)} cases have a control and marked tests; "
            f"{len(known) - tested} are not in this release; {partly} leave something open, "
            "which their rows name.\n"
        )
    ]
    for letter, title in GROUPS.items():
        parts += [f"\n### {title}\n\n| case | control | held by |\n|---|---|---|\n"]
        parts += [
            _row(case, facts, held.get(case, []))
            for case, facts in sorted(known.items())
            if case.startswith(letter)
        ]
    return "".join(parts) + "\n"


def page() -> str:
    """The whole document, with the table made anew."""
    head, _, rest = DOCUMENT.read_text().partition(START)
    return head + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
