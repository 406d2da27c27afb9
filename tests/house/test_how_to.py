"""The page about adding a defense is followed to the letter, in a copy of the sources."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.models import clean_set, saved

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/add-a-defense.md"
BLOCK = re.compile(r"^( *)```(python|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CREATE = re.compile(r"Create `([^`]+)`")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Everything that Python reads; what it runs there finds no other copy."""
    for name in ("guard", "workers", "benchmarks", "migrations", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "records")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def blocks(kind: str) -> list[str]:
    return [dedent(found[2]) for found in BLOCK.findall(PAGE.read_text()) if found[1] == kind]


@pytest.mark.timeout(600)
def test_a_defense_is_added_by_two_files_and_used_by_name(sources: Path, tmp_path: Path) -> None:
    paths = CREATE.findall(PAGE.read_text())
    assert len(paths) == len(blocks("python")) == 2
    for path, text in zip(paths, blocks("python"), strict=True):
        (sources / path).write_text(text)
    words = {
        "MODEL": str(saved(tmp_path / "model", backdoored=True)),
        "OUT": str(tmp_path / "out"),
        "CLEANSET": str(clean_set(tmp_path / "clean.npz")),
    }
    commands = [line for block in blocks("sh") for line in block.splitlines()]

    answers = {line: run(line, words, sources) for line in commands}

    assert [line for line in commands if "passed" in answers[line]] == commands[:2]
    assert "my_defense" in answers["guard methods list"]
    document = json.loads(answers[commands[-1]])
    assert document["defense"] == "my_defense"
    assert document["parameters"]["rounds"] == 1


def run(line: str, words: dict[str, str], folder: Path) -> str:
    """Standard output of a command of the page.

    A repair may be refused by the policy, everything else must work.
    """
    command = [words.get(word, word) for word in line.split()]
    program = {
        "python": [sys.executable],
        "guard": [sys.executable, "-c", "from guard.cli.main import main; main()"],
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GUARD_", "COVERAGE_"))
    }
    # One thread: at this size a second one only waits, the more so where other tests want the
    # cores.
    own = {
        "PYTHONPATH": str(folder),
        "GUARD_DATA_DIR": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*program[command[0]], *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=kept | own,
    )
    assert done.returncode in ({0, 1} if "purify" in command else {0}), (
        f"{line}: {done.stdout}\n{done.stderr}"
    )
    return done.stdout
