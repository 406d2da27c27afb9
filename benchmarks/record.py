"""Records: what was measured, on what, from which commit.

Documents quote these files and nothing else.
"""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
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
    """Write `records/<date>-<name>/{result.json,README.md}`; returns the folder."""
    folder = RECORDS / f"{datetime.now(UTC):%Y-%m-%d}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    document = {"name": name, "surroundings": surroundings(), "result": result}
    (folder / "result.json").write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    (folder / "README.md").write_text(readme.strip() + "\n")
    return folder


def _commit() -> str:
    """Short, "+changes" if files differ.

    A copy of the tree without git is told its commit by `GUARD_BENCH_COMMIT`.
    """
    told = os.environ.get("GUARD_BENCH_COMMIT")
    return told or _git("rev-parse", "--short", "HEAD") + (
        "+changes" if _git("status", "--porcelain") else ""
    )


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, check=False, cwd=RECORDS.parent
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
