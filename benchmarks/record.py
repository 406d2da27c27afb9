"""Records: what was measured, on what, from which commit.

Documents quote these files and nothing else. A record is a folder with `README.md` (the numbers as
tables), `summary.json` (the same numbers for programs) and at most two plots. A row for each model
or run is bulk: `rows.json` and `zoo.json` lie in the folder on the machine that measured, and git
ignores them.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
SUMMARY = "summary.json"
ROWS = "rows.json"
ZOO = "zoo.json"
BULK = (ROWS, ZOO)  # as in .gitignore
MAX_SUMMARY_BYTES = 50_000
MAX_PLOTS = 2
DIGITS = (6, 4)  # significant ones of a number in a summary; fewer only where it is too large
COLOURS = 64  # of a plot's palette, which makes it a third as large
DPI = 90
PACKAGES = ("torch", "timm", "numpy", "scipy", "torchserve", "celery", "sqlalchemy")


def surroundings() -> dict[str, Any]:
    """Hardware, versions and commit."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    """None where it is not installed: a bare GPU machine has no services."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write(name: str, result: dict[str, Any], readme: str) -> Path:
    """Write `records/<date>-<name>/{summary.json,README.md}`; returns the folder.

    Raises:
        ValueError: the result is too large for a summary; pass its rows to `write_bulk`.
    """
    folder = RECORDS / f"{datetime.now(UTC):%Y-%m-%d}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    document = {"name": name, "surroundings": surroundings(), "result": result}
    (folder / SUMMARY).write_text(summary_text(document))
    (folder / "README.md").write_text(readme.strip() + "\n")
    return folder


def write_bulk(folder: Path, name: str, content: Any) -> None:
    """Write what git ignores, one of `BULK`, into a record's folder."""
    if name not in BULK:
        raise ValueError(f"{name} is not one of {', '.join(BULK)}, which git ignores")
    (folder / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_plots(folder: Path, names: Sequence[str]) -> None:
    """Show the plots that lie in the folder on its page.

    Raises:
        ValueError: more plots than a record may have.
    """
    if len(names) > MAX_PLOTS:
        raise ValueError(f"a record has at most {MAX_PLOTS} plots, not {', '.join(names)}")
    with (folder / "README.md").open("a") as file:
        file.write("\n" + "".join(f"![{Path(name).stem}]({name})\n" for name in names))


def save_plot(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as a small PNG and close it."""
    from matplotlib import pyplot as plt
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=DPI)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def summary_text(document: dict[str, Any]) -> str:
    """A summary as JSON: indented, or without spaces where that would be too large.

    Raises:
        ValueError: too large in every layout.
    """
    for digits in DIGITS:
        rounded = _rounded(document, digits)
        text = json.dumps(rounded, allow_nan=False, indent=1) + "\n"
        if len(text.encode()) > MAX_SUMMARY_BYTES:
            text = json.dumps(rounded, allow_nan=False, separators=(",", ":")) + "\n"
        if len(text.encode()) <= MAX_SUMMARY_BYTES:
            return text
    raise ValueError(f"{len(text)} bytes of summary, and {MAX_SUMMARY_BYTES} are the most")


def load(folder: Path) -> dict[str, Any]:
    """The summary of the record in this folder."""
    document: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    return document


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: _rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item, digits) for item in value]
    return value


def _commit() -> str:
    """The short commit hash, with "+changes" if files differ from it.

    For a copy of the tree without git, `GUARD_BENCH_COMMIT` gives the commit.
    """
    given = os.environ.get("GUARD_BENCH_COMMIT")
    return given or _git("rev-parse", "--short", "HEAD") + (
        "+changes" if _git("status", "--porcelain") else ""
    )


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, cwd=RECORDS.parent
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
