"""What is imported is declared, what is declared is used, and the base stays light."""

import ast
import re

import pytest

from tests.house.dependencies import (
    LOADED_BY_NAME,
    declared,
    extras,
    pins,
    providers,
    third_party,
)
from tests.house.sources import ROOT, parsed, python_files

PRODUCT = ("guard", "workers", "migrations")
OFFERED = (
    "api",
    "worker",
    "graphs",
    "serving",
    "export",
    "postgres",
    "otel",
    "embedded",
)
#: Hundreds of megabytes, or gigabytes with CUDA: only for machines that read weights.
HEAVY = {"torch", "torchvision", "timm", "scipy", "torchserve"}


def undeclared(roots: tuple[str, ...], allowed: set[str]) -> list[str]:
    return [
        f"{path}: {module}"
        for path in python_files(*roots)
        for module in sorted(third_party(parsed(path)))
        if not providers(module) & allowed
    ]


def test_whatever_the_product_imports_is_declared_for_its_users() -> None:
    assert undeclared(PRODUCT, set(declared(*OFFERED))) == []


def test_whatever_tests_and_benchmarks_import_is_declared() -> None:
    assert undeclared(("benchmarks", "tests"), set(declared(*extras()))) == []


@pytest.mark.parametrize("source", ["import requests", "def f():\n    from flask import Flask"])
def test_an_undeclared_import_is_noticed(source: str) -> None:
    (module,) = third_party(ast.parse(source))

    assert not providers(module) & set(declared(*extras()))


def test_whatever_users_install_is_imported_or_loaded_by_name() -> None:
    modules = {module for path in python_files(*PRODUCT) for module in third_party(parsed(path))}
    used = {name for module in modules for name in providers(module)}

    offered = set(declared(*OFFERED))

    assert offered - used == set(LOADED_BY_NAME)


def test_what_the_benchmarks_install_is_imported() -> None:
    modules = {m for path in python_files("benchmarks") for m in third_party(parsed(path))}
    used = {name for module in modules for name in providers(module)}

    assert set(declared("demo")) - set(declared()) <= used


@pytest.mark.parametrize("names", [(), ("api",), ("postgres",), ("serving",)])
def test_the_base_and_the_api_install_no_torch(names: tuple[str, ...]) -> None:
    assert not HEAVY & set(declared(*names))


def test_every_dependency_is_a_range_that_holds_the_pinned_version() -> None:
    pinned = pins()

    for name, requirement in declared(*extras()).items():
        assert requirement.specifier, f"{name} is a bare name"
        assert name in pinned, f"{name} has no line in constraints.txt"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}: {pinned[name]}"


def test_nothing_is_pinned_that_nobody_declares() -> None:
    assert set(pins()) <= set(declared(*extras()))


@pytest.mark.parametrize("path", ["Makefile", "docker/Dockerfile", "guard/cli/main.py"])
def test_every_extra_that_is_named_exists(path: str) -> None:
    lists = re.findall(r"(?:'\.|registry-guard)\[([a-z,]+)\]", (ROOT / path).read_text())
    named = {name for text in lists for name in text.split(",")}

    assert named <= set(extras())
    assert named or path.startswith("guard")
