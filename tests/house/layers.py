"""Who may import whom.

The table of design.md section 3 as data, and the function that reads a file against it.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.house.sources import SHELVES, imports

TORCH = {"torch", "torchvision", "timm"}
SQL = {"sqlalchemy", "alembic", "psycopg"}
HTTP = {"httpx", "requests", "urllib3", "aiohttp"}
WEB = {"fastapi", "starlette", "uvicorn"}
BROKER = {"celery", "kombu", "redis"}
CLOUD = {"boto3", "botocore"}
SCREEN = {"typer", "click", "rich", "argparse"}
METRICS = {"prometheus_client"}
TRACES = {"opentelemetry"}
CHEMISTRY = {"rdkit"}
ONNX = {"onnx", "onnxruntime", "onnxscript"}
IDENTITY = {"authlib", "joserfc"}
OUTSIDE = TORCH | SQL | HTTP | WEB | BROKER | CLOUD | SCREEN | METRICS | TRACES | CHEMISTRY
OUTSIDE |= ONNX | IDENTITY


@dataclass(frozen=True)
class Row:
    """`ours`: packages of guard it may import beside itself.

    `outside`: which of `OUTSIDE` it may import.
    """

    ours: frozenset[str]
    outside: frozenset[str] = frozenset()
    stdlib_only: bool = False


def _row(ours: str = "", *outside: set[str], stdlib_only: bool = False) -> Row:
    return Row(frozenset(ours.split()), frozenset().union(*outside), stdlib_only)


_USE_CASES = (
    "core policy store attest blobs events cleansets trainsets ml formats detectors defenses "
    "sifters retrainers publishers registries reports notify"
)
TABLE = {
    "core": _row(stdlib_only=True),
    "policy": _row("core", stdlib_only=True),
    "settings": _row("core", stdlib_only=True),
    "logs": _row("core"),
    "traces": _row("core", TRACES),
    "attest": _row("core"),
    "reports": _row("core"),
    "cleansets": _row("core", CHEMISTRY),  # to check the molecules of a pair set
    "trainsets": _row("core cleansets"),  # `cleansets` for the decoding of images
    "formats": _row("core", TORCH, CHEMISTRY),  # in the jail
    "ml": _row("core", TORCH),
    "graphs": _row("core ml", TORCH, CHEMISTRY),
    "store": _row("core", SQL),
    "blobs": _row("core", CLOUD),
    "notify": _row("core"),
    "events": _row("core", CLOUD),
    "detectors": _row("core ml graphs", TORCH),
    "defenses": _row("core ml graphs", TORCH),
    "sifters": _row("core ml trainsets", TORCH),
    "retrainers": _row("core ml trainsets", TORCH),
    "publishers": _row("core attest", HTTP),
    "signon": _row("core", HTTP, IDENTITY),
    "registries": _row("core", HTTP),
    # `inference` for ONNX Runtime, which the exported file is compared with.
    "serving": _row("core attest ml graphs formats inference", TORCH),
    "inference": _row("core attest", WEB, ONNX),
    "vetting": _row(
        "core policy cleansets trainsets ml graphs formats detectors defenses sifters retrainers "
        "reports"
    ),
    # `settings` for the one setting that a job's process reads: the folder of plug-ins.
    "jobs": _row(
        "core policy cleansets trainsets ml formats detectors defenses sifters retrainers vetting "
        "settings",
        TORCH,
    ),
    # `settings` as the type of a field only; `sqlalchemy` for the type of a session.
    "flow": _row(f"{_USE_CASES} vetting jobs settings", SQL),
    "bootstrap": _row(f"{_USE_CASES} flow settings logs traces", SQL),
    "doctor": _row(
        "core policy store attest events flow settings logs traces", SQL, HTTP, BROKER, CLOUD
    ),
    "offline_inputs": _row(f"{_USE_CASES} vetting flow bootstrap settings logs"),
    "offline_sift": _row(f"{_USE_CASES} vetting flow bootstrap settings logs offline_inputs"),
    "offline": _row(
        f"{_USE_CASES} vetting flow bootstrap settings logs offline_inputs offline_sift"
    ),
    "offline_retrain": _row(
        f"{_USE_CASES} vetting settings logs offline_inputs offline_sift offline"
    ),
    "offline_estimate": _row("core policy ml vetting offline_inputs"),
    "": _row("offline offline_sift offline_retrain"),  # guard/__init__.py
    "api": _row(
        "core flow bootstrap store reports cleansets settings logs signon console", WEB, METRICS
    ),
    # `api` for who asks, and for the status of an error; the API mounts the console.
    "console": _row("core flow store reports api", WEB),
    # `policy` for `policy check`, `offline` for `scan`, `local` for `up`.
    "cli": _row(
        "core vetting flow bootstrap store reports cleansets settings logs policy offline "
        "offline_inputs offline_sift offline_retrain offline_estimate local doctor",
        SCREEN,
    ),
    # `events` for the SQS poller.
    "workers": _row(
        "core vetting jobs flow bootstrap store reports cleansets settings logs traces events",
        BROKER,
        SQL,
    ),
    "local": _row("core settings", HTTP, BROKER, CLOUD),
}
#: Nothing of these is ever imported by the guard or its workers.
NEVER = {"tests", "benchmarks", "migrations"}
#: Underscore files that packages other than their own may use, by reader: the canonical file is the
#: guard's own, and a contract's types are those of who fulfils it and of who asks.
PRIVATE = {
    "guard.formats._canonical": {"vetting", "serving"},
    "guard.formats._read": {"vetting"},
    "guard.formats._motifs": {"vetting"},
    "guard.sifters._base": {"vetting"},
}
#: Plug-ins that another file of their shelf builds on, with the readers: (what, reader).
BUILDS_ON = {
    ("guard.formats.safetensors", "_canonical"),  # the canonical file is a safetensors file
    (
        "guard.formats.safetensors",
        "pytorch_state_dict",
    ),  # the jail's answer is read by our strict parser
    ("guard.formats.safetensors", "legacy_checkpoint"),  # as above
    ("guard.formats.safetensors", "sharded_safetensors"),  # each shard is such a file
    ("guard.formats.safetensors", "sharded_pytorch"),  # the jail's answer
    ("guard.formats.pytorch_state_dict", "sharded_pytorch"),  # each shard is such a file
    ("guard.formats.legacy_checkpoint", "pickle_file"),  # a pickle is refused unless it claims it
    (
        "guard.formats.pytorch_state_dict",
        "zip_archive",
    ),  # a zip is refused unless that one claims it
}


def package_of(path: str) -> str:
    """`guard/store/scans.py` -> `store`; `guard/offline.py` -> `offline`.

    `guard/__init__.py` -> ``; workers as is.
    """
    parts = path.removesuffix(".py").split("/")
    if parts[0] != "guard":
        return parts[0]
    return "" if parts[1] == "__init__" else parts[1]


def violations(path: str, tree: ast.Module) -> Iterator[str]:
    """Each broken rule of the table in one file, as `path:line what`."""
    package = package_of(path)
    if package not in TABLE:
        yield f"{path}: {package!r} has no row in the layer table"
        return
    row = TABLE[package]
    for line, name in imports(tree):
        for problem in _problems(path, package, row, name):
            yield f"{path}:{line} {problem}"


def _problems(path: str, package: str, row: Row, name: str) -> Iterator[str]:
    parts = name.split(".")
    top = parts[0]
    if top == "":
        yield f"relative import {name}"
    elif top == "guard":
        yield from _ours(path, package, row, parts)
    elif top in NEVER | ({"workers"} - {package}) | (OUTSIDE - row.outside):
        yield f"{package or 'guard'} must not import {top}"
    elif row.stdlib_only and top not in sys.stdlib_module_names:
        yield f"{package} is standard library only, and imports {top}"


def _ours(path: str, package: str, row: Row, parts: list[str]) -> Iterator[str]:
    if len(parts) == 1 or parts[1].startswith("__"):
        return  # `import guard` itself, `guard.__version__`
    other = parts[1]
    if other != package and other not in row.ours:
        yield f"{package or 'guard'} must not import guard.{other}"
    if len(parts) < 3:
        return
    module = ".".join(parts[:3])
    if parts[2].startswith("_") and other != package and package not in PRIVATE.get(module, set()):
        yield f"{module} is private to guard.{other}"
    if (
        package in SHELVES
        and other == package
        and not parts[2].startswith("_")
        and parts[2].islower()
    ):
        mine = path.removesuffix(".py").split("/")[-1]
        if not mine.startswith("__") and parts[2] != mine and (module, mine) not in BUILDS_ON:
            yield f"plug-ins do not know each other: {module}"
