"""A user's own script imports timm and torchvision beside the guard, in any order."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.sources import ROOT

GROUP = "torch.backends"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the entry points that pyproject.toml declares, as an installer writes them.

    So the test does not hang on when this environment was last installed.
    """
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [f"{name} = {target}" for name, target in declared[GROUP].items()]
    folder = tmp_path / "site" / "registry_guard-9.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: registry-guard\nVersion: 9\n")
    (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    return folder.parent


def answer(script: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join([*map(str, paths), *(path for path in sys.path if path)])
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "imports",
    [
        "import timm",
        "import torchvision",
        "import guard, guard.ml.networks.torchvision_shim as shim; shim.install(); import timm",
    ],
)
def test_it_imports_them_without_a_word_about_the_guard(installed: Path, imports: str) -> None:
    script = f"{imports}\nimport torchvision\nprint(torchvision.models.resnet18().fc.out_features)"

    done = answer(script, installed)

    assert done.stdout == "1000\n", done.stderr


def test_the_hook_declares_nothing_where_torchvision_is_of_the_same_build(
    installed: Path, tmp_path: Path
) -> None:
    package = tmp_path / "other" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "version.py").write_text("__version__ = '0.28.0+cpu'\n")
    script = (
        "import torch\nfrom guard.ml.networks import torchvision_shim as shim\nprint(shim._kept)"
    )

    done = answer(script, package.parent, installed)

    assert done.stdout == "[]\n", done.stderr


def test_torch_imports_beside_a_torchvision_that_cannot_be_read_and_imports_it_not(
    installed: Path, tmp_path: Path
) -> None:
    package = tmp_path / "other" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "version.py").write_bytes(b"\xff")

    done = answer(
        "import sys, torch; print('torchvision' in sys.modules)", package.parent, installed
    )

    assert done.stdout == "False\n", done.stderr
