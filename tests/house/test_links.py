"""Links, anchors and paths in the documents lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
PROSE = [path for path in DOCUMENTS if "records" not in path.parts]
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: A path of the repository: it has a folder, and an ending or a slash at its end.
PATH = re.compile(
    r"`([\w.-]+(?:/[\w.*<>-]+)*/(?:[\w.*-]+\.(?:py|toml|json|md|sh|yaml|yml|txt|mako))?)`"
)
#: What a reader of a how-to adds, and folders that a run of the guard makes.
OF_THE_READER = re.compile(r"my_|<|\bDIR\b")


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    text = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(heading) for heading in HEADING.findall(FENCE.sub("", path.read_text()))}


def broken_links(path: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere in the world
        name, _, mark = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        if not place.exists() or (mark and (place.suffix != ".md" or mark not in anchors(place))):
            yield target


def missing_paths(text: str) -> Iterator[str]:
    for name in PATH.findall(text):
        if not OF_THE_READER.search(name) and not any(ROOT.glob(name)):
            yield name


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    assert not list(broken_links(path))


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_paths_that_a_document_names_exist(path: Path) -> None:
    assert not list(missing_paths(path.read_text()))


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# A `b` of c, d\n")
    (tmp_path / "a.md").write_text(
        "# Top\n[x](gone.md) [y](b.md#a-b-of-c-d) [z](b.md#e) [t](#top) [w](https://x.org/y)\n"
        "```\n[in code](gone)\n```\n"
    )

    assert list(broken_links(tmp_path / "a.md")) == ["gone.md", "b.md#e"]


def test_a_missing_path_is_found() -> None:
    text = "`guard/flow/inspect.py`, `guard/gone.py`, `flow/`, `guard/detectors/my_detector.py`"

    assert list(missing_paths(text)) == ["guard/gone.py", "flow/"]
