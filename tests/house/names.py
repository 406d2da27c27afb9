"""Rules for names and docstrings, as functions from a syntax tree to what is wrong with it."""

import ast
import re
from collections.abc import Iterator

#: Parts of a name that say less than the field's own terms: labels, logits, statement, message,
#: report, measure, find, image.
BANNED = frozenset({"told", "said", "heard", "word", "words", "picture", "pictures"})

#: Packages (folders or files, relative to the repository) whose names are not yet clean.
TO_DO: frozenset[str] = frozenset()
#: The same for docstring summaries.
SUMMARIES_TO_DO: frozenset[str] = TO_DO
#: Names that stay, by file, with the reason: stored under that name, or part of an interface.
KEPT: dict[str, dict[str, str]] = {}

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_TENSOR_FACTS = re.compile(
    r"\b[A-Z],\s?[A-Z]\b"  # a shape such as N,C,H,W or (T, C, H, W)
    r"|\b(?:float|int|uint)(?:8|16|32|64)?\b|\bbool\b"  # a type
    r"|\b[Ss]calar\b|\b[Ss]hapes?\b"
    r"|0\.\.1|\[0, 1\]"  # a range
)


def done(path: str, to_do: frozenset[str]) -> bool:
    """Whether this file is in none of the packages that are still to do."""
    return not any(path == part or path.startswith(f"{part}/") for part in to_do)


def summarises_badly(path: str, tree: ast.Module) -> Iterator[str]:
    """A docstring whose first paragraph is longer than a line or is not a whole sentence."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        summary, _, rest = (ast.get_docstring(node) or ".").partition("\n\n")
        line = getattr(node, "lineno", 1)
        if "\n" in summary or not summary.endswith((".", "?", ":")):
            yield f"{path}:{line} the summary {summary[:50]!r}... is not one sentence on one line"
        elif re.match(r"(And|Or|Which|Whose|But)\b", rest):
            yield f"{path}:{line} the summary {summary[:50]!r}... goes on in {rest[:30]!r}..."


def has_banned_names(path: str, tree: ast.Module) -> Iterator[str]:
    """A variable, function, class, argument or attribute defined under a banned name."""
    kept = KEPT.get(path, {})
    for node in ast.walk(tree):
        for name in defined(node):
            parts = {part.lower() for part in _PARTS.findall(name)}
            if parts & BANNED and name not in kept:
                line = getattr(node, "lineno", 1)
                yield f"{path}:{line} defines {name!r}; use the field's term for what it holds"


def defined(node: ast.AST) -> Iterator[str]:
    """The names that a node introduces, not those that it uses."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.alias) and node.asname:
        yield node.asname
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def hides_tensors(path: str, tree: ast.Module) -> Iterator[str]:
    """A public class, function or method whose docstring does not describe its tensors.

    It must name a shape, a type or a range. A method needs no docstring of its own if it implements
    one that a class of the same file describes, or if it is the `forward` of a described module.
    """
    documented = {
        member.name
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, ast.FunctionDef) and _states_facts(member)
    }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and _is_public(node) and _takes_tensors(node):
            yield from _complaint(path, node.name, node)
        if not isinstance(node, ast.ClassDef) or not _is_public(node):
            continue
        if any(_mentions_tensor(member.annotation) for member in _fields(node)):
            yield from _complaint(path, node.name, node)
        for member in node.body:
            if not isinstance(member, ast.FunctionDef) or not _is_public(member):
                continue
            inherited = ast.get_docstring(member) is None and (
                member.name in documented or (member.name == "forward" and _states_facts(node))
            )
            if _takes_tensors(member) and not inherited:
                yield from _complaint(path, f"{node.name}.{member.name}", member)


def _complaint(path: str, name: str, node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    if not _states_facts(node):
        yield (
            f"{path}:{node.lineno} the docstring of {name} names neither shape, type nor range of "
            "its tensors"
        )


def _is_public(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return not node.name.startswith("_")


def _fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    return [member for member in node.body if isinstance(member, ast.AnnAssign)]


def _takes_tensors(node: ast.FunctionDef) -> bool:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    arguments += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    annotations = [node.returns, *(argument.annotation for argument in arguments)]
    return any(_mentions_tensor(annotation) for annotation in annotations)


def _mentions_tensor(annotation: ast.expr | None) -> bool:
    return annotation is not None and bool(re.search(r"\bTensor\b", ast.unparse(annotation)))


def _states_facts(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return bool(_TENSOR_FACTS.search(ast.get_docstring(node) or ""))
