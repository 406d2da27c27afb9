"""The wheel holds the product and nothing else, and works where no repository is."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.sources import ROOT

#: What a build reads; there is no Git folder, as in a source archive.
SOURCES = ("guard", "workers", "migrations", "benchmarks", "tests/packaging")
FILES = ("pyproject.toml", "setup.py", "README.md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that nothing is left in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__", "records", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", *command, "-w", str(out), str(source)], check=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_guard_and_workers_stand_at_the_top_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"guard", "workers"}


def test_every_file_of_the_product_is_in_it(wheel: zipfile.ZipFile) -> None:
    def files(folder: str) -> set[str]:
        every = (ROOT / folder).rglob("*")
        return {
            path.relative_to(ROOT).as_posix()
            for path in every
            if path.is_file() and "__pycache__" not in path.parts
        }

    wanted = files("guard") | files("workers") | {f"guard/{name}" for name in files("migrations")}

    assert wanted - set(wheel.namelist()) == set()


def test_a_database_is_made_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    script = (
        "import guard\nfrom guard.store import migrate\n"
        f"migrate.upgrade('sqlite:///{tmp_path}/guard.db')\n"
        f"print(guard.__file__, migrate.current('sqlite:///{tmp_path}/guard.db') == migrate.head())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == f"{tmp_path}/site/guard/__init__.py True\n", done.stderr


def test_a_source_archive_without_git_has_a_version(wheel: zipfile.ZipFile) -> None:
    assert "registry_guard-0.1.0.dev0-" in str(wheel.filename)
