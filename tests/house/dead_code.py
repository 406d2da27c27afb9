"""Dead code in what we ship: whatever only tests use, or nothing at all.

Vulture reads the paths of `[tool.vulture]` in pyproject.toml, which has no tests among them. Alive
without a caller are the plug-ins, which a folder lists, and what stands in `ALIVE`, each with its
reason.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vulture.config import make_config
from vulture.core import Vulture

from tests.house.sources import ROOT

#: Folders in which each file holds a plug-in: the class that has the file's name in CamelCase.
SHELVES = (
    "benchmarks/attacks",
    "guard/cleansets",
    "guard/defenses",
    "guard/detectors",
    "guard/formats",
    "guard/ml/networks/nets",
    "guard/ml/triggers",
    "guard/publishers",
    "guard/retrainers",
    "guard/sifters",
)

#: `file: name` of what no code of ours calls, and who does.
ALIVE: Mapping[str, str] = {
    "benchmarks/simulation/audit.py: row_factory": "sqlite3",
    "benchmarks/quote.py: quoted": "the test that README.md quotes the newest records",
    "guard/__init__.py: __getattr__": "Python: names are imported when they are asked for",
    "guard/api/answers.py: schema_": "the answer's field `schema`",
    "guard/api/answers.py: decided_anew": "a field of the answer about a waiver",
    "guard/api/app.py: from_settings": "uvicorn, by name",
    "guard/cli/main.py: format_commands": "Click",
    "guard/core/contracts.py: jailed": "the contract suite, about each format",
    "guard/core/plugins.py: get_source": "importlib: the contract of InspectLoader",
    "guard/core/plugins.py: get_code": "importlib: the contract of InspectLoader",
    "guard/formats/legacy_checkpoint.py: jailed": "as in core/contracts.py",
    "guard/formats/pytorch_state_dict.py: jailed": "as in core/contracts.py",
    "guard/formats/sharded_pytorch.py: jailed": "as in core/contracts.py",
    "guard/inference/__main__.py: capture_signals": "uvicorn",
    "guard/inference/__main__.py: should_exit": "uvicorn",
    "guard/inference/runtime.py: intra_op_num_threads": "ONNX Runtime",
    "guard/inference/runtime.py: inter_op_num_threads": "ONNX Runtime",
    "guard/inference/runtime.py: log_severity_level": "ONNX Runtime",
    "guard/ml/networks/torchvision_shim.py: autoload": "torch, by the entry point",
    "guard/ml/networks/torchvision_shim.py: torchvision": "the import itself is the point",
    "guard/policy/decide.py: natural_trojan": "part of a decision, for whoever asks the policy",
    "guard/publishers/_archive.py: create_system": "zipfile",
    "guard/publishers/_archive.py: external_attr": "zipfile",
    "guard/reports/charts.py: ghost": "the report's template",
    "guard/serving/handler.py: GuardHandler": "TorchServe, by the name of the file",
    "guard/serving/handler.py: initialize": "TorchServe",
    "guard/serving/onnx_export.py: doc_string": "a field of the file that is written",
    "guard/serving/onnx_export.py: producer_name": "as above",
    "guard/serving/onnx_export.py: producer_version": "as above",
    "guard/store/kept.py: STAYS": "the test that each table has a bound or a reason",
    "guard/store/methods.py: sync": "the store of which methods decide; nothing calls it yet",
    "guard/store/session.py: isolation_level": "sqlite3",
    "workers/transport.py: restore_at_shutdown": "kombu",
}


def findings() -> Iterator[tuple[str, int, str]]:
    """File, line and name of each piece of code without a use."""
    config: dict[str, Any] = make_config(["--config", str(ROOT / "pyproject.toml")])
    reader = Vulture(
        ignore_names=config["ignore_names"], ignore_decorators=config["ignore_decorators"]
    )
    reader.scavenge([str(ROOT / path) for path in config["paths"]])
    for item in reader.get_unused_code(min_confidence=config["min_confidence"]):
        path = Path(item.filename).resolve().relative_to(ROOT)
        if not is_plug_in(path, item.name):
            yield path.as_posix(), item.first_lineno, item.name


def is_plug_in(path: Path, name: str) -> bool:
    """Whether a class is what its file is on the shelf for."""
    return path.parent.as_posix() in SHELVES and name.lower() == path.stem.replace("_", "")


def complaints(
    found: Sequence[tuple[str, int, str]], alive: Mapping[str, str] = ALIVE
) -> list[str]:
    """A sentence for each piece of dead code, and for each entry of the list that is not needed."""
    keys = {f"{path}: {name}" for path, _, name in found}
    return [
        f"{path}:{line} nothing uses {name}"
        for path, line, name in found
        if f"{path}: {name}" not in alive
    ] + [f"{key} is in use or gone; take it from the list" for key in alive if key not in keys]


if __name__ == "__main__":
    wrong = complaints(list(findings()))
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    sys.exit(bool(wrong))
