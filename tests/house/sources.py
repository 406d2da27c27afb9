"""The repository's own source files, parsed once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELVES = ("detectors", "defenses", "formats", "publishers", "sifters", "retrainers")


@cache
def parsed(path: str) -> ast.Module:
    """The syntax tree of a file, `path` relative to the repository."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


@cache
def python_files(*roots: str) -> tuple[str, ...]:
    """All Python files below `roots`, relative to the repository, sorted."""
    found = [
        file.relative_to(ROOT).as_posix() for root in roots for file in (ROOT / root).rglob("*.py")
    ]
    return tuple(sorted(found))


def plug_ins(shelf: str) -> list[str]:
    """The names on a shelf, read from its folder."""
    return sorted(
        file.stem for file in (ROOT / "guard" / shelf).glob("*.py") if not file.stem.startswith("_")
    )


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import anywhere in the tree.

    `from a import b` gives both `a` and `a.b`.

    A relative import comes with its leading dots.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def tracked_files() -> list[str]:
    """What git has, or would take: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return sorted(
        {name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    )


def fresh(script: str) -> str:
    """What a script prints in a new Python process that has imported nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
