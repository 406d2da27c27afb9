"""What the base installation can do: everything but read weights, serve the API and drive Celery.

The packages of the extras are hidden from a fresh process; nothing else is changed.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from guard.cli.main import EXTRAS, FAILED, run
from tests.house.dependencies import declared, extras, providers, third_party
from tests.house.sources import parsed, python_files

HIDING = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name in {hidden!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.argv[0] = "guard"
from guard.cli.main import main
main()
"""


def base_guard(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    paths = ":".join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", HIDING.format(hidden=set(EXTRAS)), *args],
        cwd=folder,
        env={"GUARD_DATA_DIR": str(folder / "data"), "PYTHONPATH": paths, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "args", [("--help",), ("--version",), ("policy", "check"), ("db", "upgrade")]
)
def test_the_guard_starts_with_the_base_alone(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = base_guard(tmp_path, *args)

    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_package_that_no_extra_brings_is_no_riddle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("guard.cli.")]:
        if name != "guard.cli.main":  # what another test has imported would not be imported again
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich.table", None)

    assert run(["policy", "check"]) == FAILED
    assert "install Registry Guard again" in capsys.readouterr().err


def test_a_scan_without_torch_names_the_extra_in_one_sentence(tmp_path: Path) -> None:
    save_file({"weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "preact_resnet18", "num_classes": 10}')

    done = base_guard(tmp_path, "scan", str(tmp_path), "--cleanset", "c.npz")

    assert done.stdout == ""
    assert done.stderr == (
        "guard: This needs torch, which is not installed; run: "
        "pip install 'registry-guard[worker]'.\n"
    )
    assert done.returncode == 2


def test_postgresql_without_its_driver_names_the_extra(tmp_path: Path) -> None:
    done = base_guard(tmp_path, "status", GUARD_DATABASE_URL="postgresql://localhost/guard")

    assert done.returncode == 2
    assert "pip install 'registry-guard[postgres]'" in done.stderr


def test_whatever_is_missing_from_the_base_has_an_extra_that_brings_it() -> None:
    base = set(declared())
    modules = {
        module for path in python_files("guard", "workers") for module in third_party(parsed(path))
    }
    missing = {module for module in modules if not providers(module) & base}

    assert missing - {"pydantic"} == set(EXTRAS) - {"psycopg"}  # loaded by name
    for module, extra in EXTRAS.items():
        assert extra in extras()
        assert providers(module) & set(declared(extra)), module
