"""Write docs/troubleshooting.md: every error code, its cause and its mend; a test compares.

The codes and where they are raised come from the sources (`benchmarks.error_codes`), causes and
mends from `benchmarks/error_table.toml`.

    python -m benchmarks.make_error_doc
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.error_codes import Place, error_codes

DOCUMENT = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
TABLE = Path(__file__).with_name("error_table.toml")
SHOWN = 3  # files of a code; a common one is raised in many
HEAD = """# Troubleshooting: every error code

Made by `python -m benchmarks.make_error_doc` from the sources and `benchmarks/error_table.toml`;
change nothing by hand.

Every deliberate error has a sentence for people and a `code` for programs. The code stands in the
`code` of the API's problem documents, in log events, in the reason of a refused upload, and in
evidence of a method that could not look. Errors form one tree (`guard/core/errors.py`), which says
whose fault it is and what is tried again: input and rejected bytes never, what is away later, the
guard's own faults three times, then a dead letter ([operating](operating.md)).
"""


def table(path: Path = TABLE) -> dict[str, dict[str, list[str]]]:
    """By section, by code: its cause and its mend."""
    return tomllib.loads(path.read_text())


def page() -> str:
    """The whole document."""
    codes = error_codes()
    sections = table()
    parts = [HEAD]
    for title, entries in sections.items():
        parts.append("\n".join(_section(title, entries, codes)) + "\n")
    return "\n".join(parts)


def _section(
    title: str, entries: dict[str, list[str]], codes: dict[str, list[Place]]
) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield "| code | cause | what to do | raised in |"
    yield "|---|---|---|---|"
    for code, (cause, mend) in sorted(entries.items()):
        yield f"| `{code}` | {cause} | {mend} | {_where(codes.get(code, ()))} |"


def _where(places: Sequence[Place]) -> str:
    paths = list(dict.fromkeys(place.path for place in sorted(places)))
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(f"`{path}`" for path in paths[:SHOWN]) + more


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
