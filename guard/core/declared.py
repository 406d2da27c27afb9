"""What a plug-in's file states about itself, read from its text: nothing is imported or run."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guard.core.states import Family

_DEEPEST = 5  # base classes above each other
_CALLS = frozenset({"frozenset", "set", "str"})


class Unreadable(Exception):
    """A statement is no plain value: only an import could say what it is."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The facts of one plug-in, as `guard methods list` shows them.

    Attributes:
        version: None where the kind has none (formats, publishers).
        about: the first line of the file's docstring.
    """

    version: int | None = None
    families: frozenset[str] = frozenset()
    paper: str = ""
    about: str = ""


def declared(source: bytes, class_name: str) -> Declared:
    """The facts of the class `class_name` in a file, or in the bases that it has in this package.

    Raises:
        Unreadable: the file has no such class, or states a fact by more than a plain value.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise Unreadable(str(error)) from error
    version = _fact(tree, class_name, "version", _constant)
    paper = _fact(tree, class_name, "paper", _constant)
    return Declared(
        version=version if isinstance(version, int) else None,
        families=_fact(tree, class_name, "families", _names) or frozenset(),
        paper=paper if isinstance(paper, str) else "",
        about=(ast.get_docstring(tree) or "").strip().partition("\n")[0],
    )


def _fact(
    tree: ast.Module, class_name: str, name: str, read: Callable[[ast.expr], Any], depth: int = 0
) -> Any:
    found = next(
        (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == class_name), None
    )
    if found is None or depth > _DEEPEST:
        raise Unreadable(class_name)
    for target, value in _assigned(found):
        if target == name:
            return read(value)
    for base in found.bases:
        if (above := _imported(tree, base)) is not None:
            value = _fact(above, ast.unparse(base), name, read, depth + 1)
            if value is not None:
                return value
    return None


def _assigned(found: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for line in found.body:
        if isinstance(line, ast.AnnAssign) and line.value is not None:
            yield ast.unparse(line.target), line.value
        elif isinstance(line, ast.Assign):
            yield from ((ast.unparse(target), line.value) for target in line.targets)


def _imported(tree: ast.Module, base: ast.expr) -> ast.Module | None:
    """The file of this package that a base comes from; None for any other base."""
    if not isinstance(base, ast.Name):
        return None
    if any(isinstance(one, ast.ClassDef) and one.name == base.id for one in tree.body):
        return tree
    for line in tree.body:
        if not isinstance(line, ast.ImportFrom) or not (line.module or "").startswith("guard."):
            continue
        if any(alias.name == base.id and alias.asname is None for alias in line.names):
            spec = find_spec(str(line.module))
            if spec is not None and spec.origin is not None:
                return ast.parse(Path(spec.origin).read_bytes())
    return None


def _constant(value: ast.expr) -> Any:
    if isinstance(value, ast.Constant):
        return value.value
    raise Unreadable(ast.unparse(value))


def _names(value: ast.expr) -> frozenset[str]:
    """The members of a set of texts and of `Family`."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return frozenset({value.value})
    if isinstance(value, ast.Attribute) and value.attr in Family.__members__:
        return frozenset({str(Family[value.attr])})
    if isinstance(value, (ast.Set, ast.List, ast.Tuple)):
        return frozenset().union(*map(_names, value.elts))
    if isinstance(value, ast.Call) and ast.unparse(value.func) in _CALLS and len(value.args) <= 1:
        return frozenset().union(*map(_names, value.args))
    raise Unreadable(ast.unparse(value))
