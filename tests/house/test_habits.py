"""Rules of one file each hold, and each has a witness that a violation is seen."""

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.house import habits
from tests.house.sources import ROOT, parsed, python_files

Rule = Callable[[str, ast.Module], Iterator[str]]


def broken(rule: Rule, *roots: str) -> list[str]:
    return [problem for path in python_files(*roots) for problem in rule(path, parsed(path))]


@pytest.mark.parametrize("rule", [habits.reads_environment, habits.prints, habits.opens_badly])
def test_a_rule_of_the_product_holds(rule: Rule) -> None:
    assert broken(rule, "guard", "workers") == []


@pytest.mark.parametrize("rule", [habits.executes_data, habits.swallows])
def test_a_rule_of_everything_that_runs_holds(rule: Rule) -> None:
    assert broken(rule, "guard", "workers", "migrations") == []


def test_nothing_is_too_long() -> None:
    found = [
        problem
        for path in python_files("guard", "workers", "migrations")
        for problem in habits.too_long(path, (ROOT / path).read_text(), parsed(path))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (habits.reads_environment, "import os\nx = os.environ['A']"),
        (habits.reads_environment, "import os\nos.getenv('A')"),
        (habits.reads_environment, "from os import environ"),
        (habits.prints, "print('x')"),
        (habits.prints, "import sys\nsys.stdout.write('x')"),
        (habits.executes_data, "import pickle"),
        (habits.executes_data, "from cloudpickle import loads"),
        (habits.executes_data, "def f():\n    import marshal"),
        (habits.executes_data, "eval('1')"),
        (habits.executes_data, "exec(source)"),
        (habits.executes_data, "torch.load(path)"),
        (habits.executes_data, "np.load(path, allow_pickle=True)"),
        (habits.executes_data, "load(path, weights_only=False)"),
        (habits.executes_data, "subprocess.run(x, shell=True)"),
        (habits.swallows, "try:\n    f()\nexcept:\n    pass"),
        (habits.swallows, "try:\n    f()\nexcept Exception:\n    pass"),
        (habits.opens_badly, "import os"),
        (habits.opens_badly, '"""TODO"""'),
    ],
)
def test_a_violation_is_noticed(rule: Rule, source: str) -> None:
    assert list(rule("guard/ml/x.py", ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (
            habits.executes_data,
            "model.eval()\nimport pickletools\nnp.load(path, allow_pickle=False)",
        ),
        (habits.prints, "import sys\nsys.stderr.write('x')"),
        (habits.swallows, "try:\n    f()\nexcept ValueError:\n    pass"),
        (habits.opens_badly, '"""A file that says what it is."""'),
    ],
)
def test_what_is_allowed_is_not_noticed(rule: Rule, source: str) -> None:
    assert list(rule("guard/ml/x.py", ast.parse(source))) == []


def test_what_is_too_long_is_noticed() -> None:
    function = "def f():\n" + "    x = 1\n" * habits.MAX_FUNCTION_LINES
    file = "x = 1\n" * (habits.MAX_FILE_LINES + 1)

    assert list(habits.too_long("x.py", function, ast.parse(function)))
    assert list(habits.too_long("x.py", file, ast.parse(file)))


def test_every_exception_names_a_file_that_still_needs_it() -> None:
    for path in habits.ENVIRONMENT:
        assert "environ" in (ROOT / path).read_text()
    for path in habits.STDOUT:
        assert "stdout" in (ROOT / path).read_text()
    for path in habits.EXECUTES:
        assert "torch.load" in (ROOT / path).read_text()
    for path in habits.LONG_FILES:
        assert len((ROOT / path).read_text().splitlines()) > habits.MAX_FILE_LINES
