"""Every error code that the sources can raise, found in their syntax trees.

A code is a class's own (`code = "..."`), an argument (`code="..."`), or the `code` of a function
that makes an error of it (`reject`, `refuse`, `problem`), whose prefix is read from that function.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("guard", "workers")
PARAMETER = "code"
#: Codes that a file computes, by the expression there.
COMPUTED: dict[str, dict[str, tuple[str, ...]]] = {
    "guard/core/manifest.py": {"f'bad_{name}'": ("bad_mean", "bad_std")},
    "guard/formats/_jail.py": {
        "code": (
            "unsafe_pickle",
            "checkpoint_unreadable",
            "no_state_dict",
            "ambiguous_checkpoint",
            "tensor_kind",
            "dtype_not_allowed",
            "output_too_large",
            "over_memory_budget",
        )
    },
}


@dataclass(frozen=True, order=True)
class Place:
    """Where a code is raised: a file of the repository and a line of it."""

    path: str
    line: int


@dataclass(frozen=True)
class Maker:
    """A function that makes an error of its `code`: which argument, and what it puts before it."""

    position: int
    prefix: str


class Unreadable(Exception):
    """A code is computed in a way that this module cannot follow."""


def error_codes(root: Path = ROOT) -> dict[str, list[Place]]:
    """Each code, with every place that can raise it.

    Raises:
        Unreadable: a place computes its code.
    """
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text())
        for folder in SOURCES
        for path in sorted((root / folder).rglob("*.py"))
    }
    makers = _makers(trees)
    found: dict[str, list[Place]] = {}
    for path, tree in trees.items():
        for line, code in _codes(path, tree, makers):
            found.setdefault(code, []).append(Place(path, line))
    return dict(sorted(found.items()))


def _makers(trees: Mapping[str, ast.Module]) -> dict[str, dict[str, Maker]]:
    """By file, the functions that make an error of a code, by the name they have there."""
    own = {path: dict(_own_makers(tree)) for path, tree in trees.items()}
    known = {
        (path.removesuffix(".py").replace("/", "."), name): maker
        for path, makers in own.items()
        for name, maker in makers.items()
    }
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (maker := known.get((node.module, alias.name))) is not None:
                        own[path][alias.asname or alias.name] = maker
    return own


def _own_makers(tree: ast.Module) -> Iterator[tuple[str, Maker]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        names = [argument.arg for argument in node.args.args]
        if PARAMETER not in names or names[0] == "self":
            continue
        for prefix in filter(None, map(_prefix, ast.walk(node))):
            yield node.name, Maker(names.index(PARAMETER), prefix.removesuffix("*"))


def _prefix(node: ast.AST) -> str | None:
    """What `code=` puts before the parameter, and a star; None where it is not passed on."""
    if isinstance(node, ast.Dict):  # the body of a problem document
        pairs = zip(node.keys, node.values, strict=True)
        passed = any(
            isinstance(key, ast.Constant) and key.value == PARAMETER and _is_parameter(value)
            for key, value in pairs
        )
        return "*" if passed else None
    if not isinstance(node, ast.Call):
        return None
    for keyword in node.keywords:
        if keyword.arg == PARAMETER and _is_parameter(keyword.value):
            return "*"
        if keyword.arg == PARAMETER and isinstance(keyword.value, ast.JoinedStr):
            first, *rest = keyword.value.values
            if isinstance(first, ast.Constant) and len(rest) == 1:
                return f"{first.value!s}*"
    return None


def _is_parameter(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == PARAMETER


def _codes(
    path: str, tree: ast.Module, makers: Mapping[str, Mapping[str, Maker]]
) -> Iterator[tuple[int, str]]:
    computed = COMPUTED.get(path, {})
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from _class_code(node)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and (maker := makers[path].get(node.func.id)):
                for code in _literal(path, node.args[maker.position], computed):
                    yield node.lineno, maker.prefix + code
            for keyword in node.keywords:
                if keyword.arg == PARAMETER and not _is_passed_on(keyword.value):
                    for code in _literal(path, keyword.value, computed):
                        yield node.lineno, code


def _is_passed_on(node: ast.expr) -> bool:
    """Another error's code, a maker's own argument, or a process's exit status."""
    return isinstance(
        node, ast.Attribute | ast.Subscript | ast.Call | ast.JoinedStr
    ) or _is_parameter(node)


def _class_code(node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for item in node.body:
        if (
            isinstance(item, ast.Assign)
            and any(isinstance(name, ast.Name) and name.id == PARAMETER for name in item.targets)
            and isinstance(item.value, ast.Constant)
        ):
            yield item.lineno, str(item.value.value)


def _literal(path: str, node: ast.expr, computed: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(node, ast.Constant):  # a number is an HTTP or exit status
        return (node.value,) if isinstance(node.value, str) else ()
    if isinstance(node, ast.Attribute) and node.attr == PARAMETER:
        return ()  # passed on from another error
    if (codes := computed.get(ast.unparse(node))) is not None:
        return codes
    raise Unreadable(f"{path}:{node.lineno} computes its code: {ast.unparse(node)}")
