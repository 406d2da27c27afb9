"""The public face is small and light, and no file knows the machine that it was written on."""

import json
import sys
from pathlib import Path

import pytest

import guard
from tests.house.sources import ROOT, fresh, python_files, tracked_files

#: Importing these must not load torch: they start fast, run in the API, or decide without looking
#: at a weight.
LIGHT = sorted(
    {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in python_files(
            "guard/api",
            "guard/attest",
            "guard/blobs",
            "guard/cleansets",
            "guard/cli",
            "guard/console",
            "guard/core",
            "guard/events",
            "guard/flow",
            "guard/inference",
            "guard/local",
            "guard/policy",
            "guard/publishers",
            "guard/reports",
            "guard/signon",
            "guard/store",
            "guard/vetting",
        )
    }
    | {
        "guard",
        "guard.bootstrap",
        "guard.logs",
        "guard.offline",
        "guard.offline_inputs",
        "guard.offline_retrain",
        "guard.offline_sift",
        "guard.settings",
        "workers.app",
    }
)


def test_light_modules_do_not_load_torch() -> None:
    script = (
        "import importlib, json, sys\n"
        "heavy = {}\n"
        f"for name in {LIGHT!r}:\n"
        "    if name.startswith('guard.local._child'):\n"
        "        continue\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "    if loaded:\n"
        "        heavy[name] = sorted(loaded)\n"
        "        break\n"
        "print(json.dumps(heavy))\n"
    )

    assert json.loads(fresh(script)) == {}


def test_listing_the_shelves_loads_no_plug_in() -> None:
    script = (
        "import sys\n"
        "from guard.core.shelf import Shelf\n"
        "names = [name for shelf in ('detectors', 'defenses', 'publishers', 'formats')"
        " for name in Shelf(f'guard.{shelf}').names()]\n"
        "print(len(names), 'torch' in sys.modules)\n"
    )
    count, loaded = fresh(script).split()

    assert (int(count) > 0, loaded) == (True, "False")


def test_the_public_surface_is_what_is_documented() -> None:
    assert guard.__all__ == sorted(["load_model", "purify", "retrain", "scan", "sift"])
    for name in guard.__all__:
        assert callable(getattr(guard, name))
        assert f"    {name}(" in (guard.__doc__ or "")
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = guard.nope


def test_no_file_holds_a_path_of_this_machine() -> None:
    homes = {str(ROOT), sys.prefix, str(Path.home())} - {"/", "/app", "/usr", "/usr/local"}
    found = []
    for name in tracked_files():
        data = (ROOT / name).read_bytes()
        found += [
            f"{name} holds {home}/"
            for home in homes
            if f"{home}/".encode() in data and not _legend(name, home)
        ]

    assert found == []


def _legend(name: str, home: str) -> bool:
    # In a container image the home of its root is the image's own, and no machine's.
    return name.startswith("docker/") and Path(home).name == "root"
