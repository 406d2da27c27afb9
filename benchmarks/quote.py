"""Quote the newest demo record in README.md; a test compares the two."""

from pathlib import Path

from benchmarks.record import RECORDS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- demo: begin -->", "<!-- demo: end -->"


def transcript() -> str:
    """What the newest recorded `make demo` printed."""
    newest = sorted(RECORDS.glob("*-demo/transcript.txt"))[-1]
    return f"\nAs printed ({newest.parent.name}):\n\n```\n{newest.read_text().rstrip()}\n```\n"


def quoted() -> str:
    """What stands in README.md now."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    text = README.read_text()
    README.write_text(text.partition(BEGIN)[0] + BEGIN + transcript() + END + text.partition(END)[2])
