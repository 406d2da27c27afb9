"""A plug-in's version is known without the packages that the plug-in needs."""

import sys
from pathlib import Path
from typing import Any

import pytest

from guard.core import shelf
from guard.core.errors import UnknownMethod
from guard.core.modality import Modality
from guard.core.shelf import Shelf, class_name
from guard.detectors import DETECTORS

FILES = {
    "__init__": "",
    "declared": "import a_package_that_nobody_has\nclass Declared:\n    version: int = 4\n",
    "computed": "class Other:\n    version: int = 9\nclass Computed:\n    version = 2 + 1\n",
}


@pytest.fixture
def shelf_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf[Any]:
    folder = tmp_path / "toy_shelf"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("toy_shelf")]:
        del sys.modules[name]
    return Shelf("toy_shelf")


def test_a_declared_version_is_read_and_nothing_imported(shelf_of: Shelf[Any]) -> None:
    assert shelf_of.version("declared") == 4
    assert "toy_shelf.declared" not in sys.modules


def test_any_other_is_asked_of_the_class(shelf_of: Shelf[Any]) -> None:
    assert shelf_of.version("computed") == 3
    assert shelf_of.version("computed") == 3, "now that it is imported"


def test_what_is_not_there_has_none(shelf_of: Shelf[Any]) -> None:
    with pytest.raises(UnknownMethod, match="declared"):
        shelf_of.version("missing")


@pytest.mark.parametrize("name", DETECTORS.names())
def test_every_detector_declares_its_version(name: str) -> None:
    declared = shelf._declared(f"guard.detectors.{name}", class_name(name))

    assert declared == DETECTORS.get(name).version == DETECTORS.version(name)


@pytest.mark.parametrize("package", ["guard.detectors", "guard.defenses", "guard.formats"])
def test_a_shelf_holds_its_names_and_nothing_that_is_no_name(package: str) -> None:
    one = Shelf[Any](package)
    others = ("", "_base", "__init__", "../core/shelf", "a/b", "a\0b", "a" * 5000, "Ünicode")

    assert all(name in one for name in one.names())
    assert not any(name in one for name in others)


def test_what_a_file_states_is_read_anew_where_the_file_is_another(shelf_of: Shelf[Any]) -> None:
    folder = shelf._folder("toy_shelf")
    assert folder is not None
    file = folder / "late.py"
    file.write_text("class Late:\n    version: int = 1\n    modality = Modality.IMAGES\n")
    first = shelf_of.version("late"), shelf_of.modality("late")

    file.write_text("class Late:\n    version: int = 2\n    modality = Modality.GRAPHS\n")

    assert first == (1, Modality.IMAGES)
    assert (shelf_of.version("late"), shelf_of.modality("late")) == (2, Modality.GRAPHS)
