"""The pages about adding a plug-in are followed to the letter, in one copy."""

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
from tests.cli.sets import training_set

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "docs/how-to" / name
    for name in ("add-a-defense.md", "add-a-detector.md", "add-a-retrainer.md")
]
BLOCK = re.compile(r"^( *)```(python|sh|toml)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CREATE = re.compile(r"Create `([^`]+)`")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Everything that Python and `make lint` read; what runs there finds no other copy."""
    for name in ("guard", "workers", "benchmarks", "migrations", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "records")
        )
    for name in ("pyproject.toml", "setup.py", "constraints.txt", "Makefile"):
        shutil.copy2(ROOT / name, tmp_path)
    # The types of these pages' files and of what they import: a fifth of the time that all take,
    # which `make lint` checks in the tree itself.
    settings = (tmp_path / "pyproject.toml").read_text()
    ours, all_packages = f"files = {json.dumps(list(files()))}", 'packages = ["guard", "workers"'
    (line,) = (line for line in settings.splitlines() if line.startswith(all_packages))
    # Nobody will read what mypy keeps for its next run.
    ours += "\nincremental = false"
    (tmp_path / "pyproject.toml").write_text(settings.replace(line, ours))
    (tmp_path / "ready").touch()
    return tmp_path


def blocks(kind: str) -> list[str]:
    """The blocks of all pages, in order."""
    return [
        dedent(found[2])
        for page in PAGES
        for found in BLOCK.findall(page.read_text())
        if found[1] == kind
    ]


def files() -> dict[str, str]:
    """What the pages say to create: text by path."""
    paths = [path for page in PAGES for path in CREATE.findall(page.read_text())]
    return dict(zip(paths, blocks("python"), strict=True))


@pytest.mark.row(20)
@pytest.mark.timeout(900)
def test_plug_ins_are_added_by_two_files_each_and_used_by_name(
    sources: Path, tmp_path: Path
) -> None:
    assert len(files()) == 2 * len(PAGES)
    for path, text in files().items():
        assert not (sources / path).exists()
        (sources / path).write_text(text)
    (policy,) = blocks("toml")
    (tmp_path / "policy.toml").write_text(policy)
    placeholders = {
        "MODEL": str(saved(tmp_path / "model", backdoored=True)),
        "OUT": str(tmp_path / "out"),
        # No more than the pages' policy asks for: the fewer, the sooner a sift ends.
        "CLEANSET": str(clean_set(tmp_path / "clean.npz", 360)),
        "POLICY": str(tmp_path / "policy.toml"),
        "TRAINSET": str(training_set(tmp_path / "taught.npz", poisoned=True)),
        "ANEW": str(tmp_path / "anew"),
    }
    commands = [line for block in blocks("sh") for line in block.splitlines()]

    # The pages end the same way, so that what they share is run once, with all plug-ins there.
    answers = {line: run(line, placeholders, sources) for line in dict.fromkeys(commands)}

    tests = [line for line in answers if line.startswith("python -m pytest")]
    assert len(tests) == len(PAGES)
    for line in tests:
        named = [argument for argument in line.split() if argument.startswith("tests/")]
        assert len(named) == 3
        for file in named:
            assert re.search(rf"^{re.escape(file)}::.* PASSED", answers[line], re.MULTILINE), file
        assert " passed" in answers[line]
    assert "no issues found" in answers["make lint"]
    assert {"my_defense", "my_detector", "my_retrainer"} <= set(
        answers["guard methods list"].split()
    )
    repaired, scanned, anew = (json.loads(answers[line]) for line in answers if "MODEL" in line)
    assert repaired["defense"] == "my_defense"
    assert repaired["parameters"]["rounds"] == 1
    assert "my_detector" in json.dumps(scanned["methods"])
    assert anew["retraining"]["method"] == "my_retrainer"


def run(line: str, placeholders: dict[str, str], folder: Path) -> str:
    """Standard output of a command of the page.

    A model may be blocked by the policy, everything else must work.
    """
    command = [placeholders.get(word, word) for word in line.split()]
    program = {
        "python": [sys.executable],
        "guard": [sys.executable, "-c", "from guard.cli.main import main; main()"],
        # The tools of this environment, which is as good as one made for the copy.
        "make": ["make", f"BIN={Path(sys.executable).parent}", "READY=ready"],
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GUARD_", "COVERAGE_", "MAKE"))
    }
    # One thread: at this size a second one only waits, the more so where other tests want the
    # cores.
    own = {
        "PYTHONPATH": str(folder),
        "GUARD_DATA_DIR": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [*program[command[0]], *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=kept | own,
    )
    allowed = {0, 1} if command[0] == "guard" and "MODEL" in line.split() else {0}
    assert done.returncode in allowed, f"{line}: {done.stdout}\n{done.stderr}"
    return done.stdout
