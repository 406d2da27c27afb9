"""Rules of one file each, as functions from a syntax tree to what is wrong with it."""

import ast
from collections.abc import Iterator

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70

#: Files that may read the environment, with the reason.
ENVIRONMENT = {
    "guard/settings/__init__.py": "the one reader of settings",
    "guard/cli/_environment.py": "hands the caller's environment on to the processes that `guard "
    "up` starts",
    "guard/inference/runtime.py": "switches the telemetry of ONNX Runtime off",
}
#: Files that may write to stdout, with the reason; everything under guard/cli may.
STDOUT = {
    "guard/jobs/child.py": "its stdout is the pipe to the process that started it",
    "guard/serving/onnx_export.py": "as above",
}
#: Files that may use what can execute data, with the reason.
EXECUTES = {"guard/formats/_jail_child.py": "torch.load(weights_only=True) in the jail"}
#: Longer than the limits, with the reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

_PICKLES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
}
_EXECUTING_CALLS = {"eval", "exec", "compile", "__import__"}
_EXECUTING_METHODS = {
    ("torch", "load"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("os", "system"),
    ("os", "popen"),
}
_EXECUTING_ARGUMENTS = {
    ("allow_pickle", True),
    ("weights_only", False),
    ("shell", True),
    ("trust_remote_code", True),
}
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def reads_environment(path: str, tree: ast.Module) -> Iterator[str]:
    """`os.environ` and its friends outside the listed files."""
    if path in ENVIRONMENT:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _dotted(node) in {
            ("os", name) for name in _ENVIRONMENT
        }:
            yield f"{path}:{node.lineno} reads the environment; add a setting instead"
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & _ENVIRONMENT
        ):
            yield f"{path}:{node.lineno} reads the environment; add a setting instead"


def prints(path: str, tree: ast.Module) -> Iterator[str]:
    """`print` and `sys.stdout` outside the command line."""
    if path.startswith("guard/cli/") or path in STDOUT:
        return
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ):
            yield f"{path}:{node.lineno} prints; only guard/cli does"
        if isinstance(node, ast.Attribute) and _dotted(node) == ("sys", "stdout"):
            yield f"{path}:{node.lineno} uses stdout; only guard/cli does"


def executes_data(path: str, tree: ast.Module) -> Iterator[str]:
    """Whatever turns bytes into running code outside the jail."""
    if path in EXECUTES:
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                {alias.name.split(".")[0] for alias in node.names}
                if isinstance(node, ast.Import)
                else {(node.module or "").split(".")[0]}
            )
            for name in names & _PICKLES:
                yield f"{path}:{node.lineno} imports {name}"
        if isinstance(node, ast.Call):
            yield from (f"{path}:{node.lineno} {what}" for what in _executing(node))


def _executing(call: ast.Call) -> Iterator[str]:
    if isinstance(call.func, ast.Name) and call.func.id in _EXECUTING_CALLS:
        yield f"calls {call.func.id}"
    if isinstance(call.func, ast.Attribute) and _dotted(call.func) in _EXECUTING_METHODS:
        yield f"calls {'.'.join(_dotted(call.func))}"
    for keyword in call.keywords:
        if (
            isinstance(keyword.value, ast.Constant)
            and (keyword.arg, keyword.value.value) in _EXECUTING_ARGUMENTS
        ):
            yield f"passes {keyword.arg}={keyword.value.value!r}"


def too_long(path: str, source: str, tree: ast.Module) -> Iterator[str]:
    """Files and functions over the limits."""
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES and path not in LONG_FILES:
        yield f"{path} has {lines} lines, the limit is {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES and f"{path}:{node.name}" not in LONG_FUNCTIONS:
                yield (
                    f"{path}:{node.lineno} {node.name} has {length} lines, the limit is "
                    f"{MAX_FUNCTION_LINES}"
                )


def opens_badly(path: str, tree: ast.Module) -> Iterator[str]:
    """A file opens with one sentence that says what is in it."""
    text = (ast.get_docstring(tree) or "").strip()
    paragraph = " ".join(text.split("\n\n")[0].split())
    if not paragraph:
        yield f"{path} has no opening sentence"
    elif not paragraph.endswith((".", ":", "?", "`")):
        yield f"{path} opens with {paragraph!r}, which is no sentence"


def swallows(path: str, tree: ast.Module) -> Iterator[str]:
    """An exception that is caught whole and then forgotten without a word."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        whole = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
        )
        if whole and all(isinstance(line, ast.Pass) for line in node.body):
            yield f"{path}:{node.lineno} swallows every exception"


def _dotted(node: ast.Attribute) -> tuple[str, str]:
    return (node.value.id if isinstance(node.value, ast.Name) else "", node.attr)
