"""The layer table holds, and the test of it would notice if it did not."""

import ast

import pytest

from tests.house import layers
from tests.house.sources import ROOT, SHELVES, parsed, python_files


def test_every_import_is_allowed_by_the_table() -> None:
    found = [
        problem
        for path in python_files("guard", "workers")
        for problem in layers.violations(path, parsed(path))
    ]

    assert found == []


def test_every_package_has_a_row_and_every_row_a_package() -> None:
    packages = {layers.package_of(path) for path in python_files("guard", "workers")}

    assert packages == set(layers.TABLE)
    assert all((ROOT / "guard" / shelf).is_dir() for shelf in SHELVES)


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("guard/core/x.py", "import numpy", "standard library only"),
        ("guard/core/x.py", "from guard.store import scans", "must not import guard.store"),
        ("guard/policy/x.py", "import torch", "policy must not import torch"),
        ("guard/flow/x.py", "def f():\n    import torch.nn as nn", "flow must not import torch"),
        ("guard/flow/x.py", "import celery", "flow must not import celery"),
        ("guard/flow/x.py", "from httpx import get", "flow must not import httpx"),
        (
            "guard/api/x.py",
            "from guard.detectors import DETECTORS",
            "must not import guard.detectors",
        ),
        ("guard/api/x.py", "import torch", "api must not import torch"),
        ("guard/store/x.py", "from guard.flow import submit", "must not import guard.flow"),
        ("guard/detectors/x.py", "from guard.detectors.y import Y", "do not know each other"),
        (
            "guard/detectors/x.py",
            "from guard.defenses import DEFENSES",
            "must not import guard.defenses",
        ),
        ("guard/cli/x.py", "from guard.store._read import many", "private to guard.store"),
        ("guard/cli/x.py", "from guard.store import _read", "private to guard.store"),
        ("guard/ml/x.py", "from . import seeds", "relative import"),
        ("guard/ml/x.py", "from ..core import errors", "relative import"),
        ("guard/ml/x.py", "from tests import toys", "must not import tests"),
        ("guard/ml/x.py", "import benchmarks.data", "must not import benchmarks"),
        ("guard/flow/x.py", "from workers.app import app", "must not import workers"),
        ("workers/x.py", "import fastapi", "workers must not import fastapi"),
        ("guard/wonder/x.py", "import json", "has no row"),
        ("guard/wonder.py", "import json", "has no row"),
    ],
)
def test_a_violation_is_noticed(path: str, source: str, said: str) -> None:
    found = list(layers.violations(path, ast.parse(source)))

    assert found
    assert all(said in problem for problem in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("guard/core/x.py", "import json\nfrom guard.core.errors import InputError"),
        ("guard/detectors/x.py", "import torch\nfrom guard.detectors._base import Detector"),
        ("guard/detectors/x.py", "from guard.ml import seeds"),
        ("guard/detectors/__init__.py", "from guard.core.shelf import Shelf"),
        (
            "guard/cli/x.py",
            "from guard import __version__\nfrom guard import offline\nimport typer",
        ),
        ("guard/serving/x.py", "from guard.formats._canonical import read_canonical"),
        ("workers/x.py", "from workers.app import app\nfrom guard.flow import receive"),
    ],
)
def test_what_is_allowed_is_not_noticed(path: str, source: str) -> None:
    assert list(layers.violations(path, ast.parse(source))) == []
