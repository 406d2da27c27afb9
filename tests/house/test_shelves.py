"""One plug-in, one file, one test: names agree, and nothing lies on a shelf unproven."""

import ast
from collections.abc import Iterator

import pytest

from guard.core.shelf import Shelf, class_name
from tests.house.sources import ROOT, SHELVES, parsed, plug_ins, python_files

EVERY = [(shelf, name) for shelf in SHELVES for name in plug_ins(shelf)]


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_shelf_lists_its_files(shelf: str) -> None:
    assert Shelf[object](f"guard.{shelf}").names() == plug_ins(shelf)
    assert plug_ins(shelf)


@pytest.mark.parametrize(("shelf", "name"), EVERY)
def test_the_class_is_named_after_its_file(shelf: str, name: str) -> None:
    tree = parsed(f"guard/{shelf}/{name}.py")

    assert class_name(name) in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize(("shelf", "name"), EVERY)
def test_every_plug_in_has_a_test_file(shelf: str, name: str) -> None:
    assert (ROOT / "tests" / shelf / f"test_{name}.py").is_file(), (
        f"write tests/{shelf}/test_{name}.py"
    )


def test_no_test_or_benchmark_holds_a_table_of_methods_that_grows_with_a_shelf() -> None:
    tables = [
        f"{path}:{line}"
        for path in python_files("tests", "benchmarks")
        for shelf in ("defenses", "detectors")
        for line in _tables(parsed(path), set(plug_ins(shelf)))
    ]

    assert tables == [], "what a method needs for a fast run is declared on it: `quick`"


def test_a_table_of_methods_is_noticed() -> None:
    table = ast.parse("QUICK = {'sau': {'rounds': 1}, 'fst': {}, 'other': {}}")

    assert list(_tables(table, {"sau", "fst", "nad"})) == [1]
    assert list(_tables(table, {"sau", "tsbd", "nad"})) == []


def _tables(tree: ast.Module, methods: set[str]) -> Iterator[int]:
    """Lines of dictionaries that give something to most of these methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if len(keys & methods) > len(methods) / 2:
                yield node.lineno


@pytest.mark.parametrize("name", [name for name in plug_ins("cli") if name != "main"])
def test_every_command_has_a_test_file_and_an_app(name: str) -> None:
    names = {
        target.id
        for node in parsed(f"guard/cli/{name}.py").body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    assert "app" in names
    assert (ROOT / "tests" / "cli" / f"test_{name}.py").is_file(), f"write tests/cli/test_{name}.py"


@pytest.mark.parametrize("name", ["../os", "os", "_base", "", "PatchInversion", "a.b"])
def test_a_name_from_a_request_imports_nothing(name: str) -> None:
    with pytest.raises(Exception, match=r"is not in guard\.detectors"):
        Shelf[object]("guard.detectors").get(name)


def test_every_test_asserts_something() -> None:
    functions = [
        (path, node)
        for path in python_files("tests")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
    ]
    helpers = {
        node.name
        for _, node in functions
        if not node.name.startswith("test_") and _asserts(node, set())
    }
    empty = [
        f"{path}:{node.lineno} {node.name}"
        for path, node in functions
        if node.name.startswith("test_") and not _asserts(node, helpers)
    ]

    assert empty == []


def test_a_test_that_only_runs_is_noticed() -> None:
    idle, busy = (
        ast.parse(f"def test_x():\n    {line}").body[0] for line in ("run()", "assert run()")
    )

    assert isinstance(idle, ast.FunctionDef)
    assert isinstance(busy, ast.FunctionDef)
    assert [_asserts(idle, set()), _asserts(idle, {"run"}), _asserts(busy, set())] == [
        False,
        True,
        True,
    ]


def _asserts(function: ast.FunctionDef, helpers: set[str]) -> bool:
    """Whether it holds an `assert`, expects an exception, or calls a helper that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if called in {"raises", "warns", "fail"} | helpers:
                return True
    return False
