"""The pipelines of docs/how-to/examples: valid by their schemas, and their step gates."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.models import clean_set
from tests.reports.official import bom_faults, junit_faults, sarif_faults

EXAMPLES = Path(__file__).parents[2] / "docs" / "how-to" / "examples"
SCHEMAS = {"github-workflow.yml": "github-workflows", "gitlab-ci.yml": "gitlab-ci"}


def steps(name: str) -> list[str]:
    """The shell scripts of an example that call the guard."""
    document: Any = yaml.safe_load((EXAMPLES / name).read_text())
    if name.startswith("github"):
        found = [step.get("run", "") for step in document["jobs"]["vet"]["steps"]]
    else:
        found = document["vet-model"]["script"]
    return [one for one in found if "guard scan" in one]


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_example_keeps_to_the_schema_of_its_kind(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, f"vendor.{SCHEMAS[name]}", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_both_examples_run_the_same_step() -> None:
    assert steps("github-workflow.yml") == steps("gitlab-ci.yml")


def run(script: str, folder: Path, code: int | None = None) -> subprocess.CompletedProcess[str]:
    """The step as a runner runs it (`bash -e`), with `guard` on the path or one that ends so."""
    tools = folder / "bin"
    tools.mkdir()
    call = f"exec {sys.executable} -c 'from guard.cli.main import main; main()' \"$@\""
    body = call if code is None else f"exit {code}"
    (tools / "guard").write_text(f"#!/bin/sh\n{body}\n")
    (tools / "guard").chmod(0o755)
    own = {"PATH": f"{tools}:{os.environ['PATH']}", "MODEL": "model", "CLEANSET": "clean.npz"}
    environment = {**os.environ, **own, "GUARD_DATA_DIR": str(folder / "data")}
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.row(57)
def test_the_step_ends_with_the_verdict_and_leaves_every_report(tmp_path: Path) -> None:
    clean_set(tmp_path / "clean.npz")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pt").write_bytes(pickle.dumps([1]))
    (script,) = steps("github-workflow.yml")
    done = run(script, tmp_path)

    assert done.returncode == 3, done.stderr
    assert "was not judged (exit code 3)" in done.stdout
    assert sarif_faults(json.loads((tmp_path / "guard.sarif").read_text())) == []
    assert junit_faults((tmp_path / "guard.xml").read_text()) == []
    assert bom_faults(json.loads((tmp_path / "guard.cdx.json").read_text())) == []


@pytest.mark.parametrize(
    ("code", "shown"), [(0, "cleared"), (1, "rejected"), (5, "held"), (2, "not judged")]
)
def test_the_step_passes_a_cleared_model_only(tmp_path: Path, code: int, shown: str) -> None:
    (script,) = steps("gitlab-ci.yml")
    done = run(script, tmp_path, code)

    assert done.returncode == code
    assert shown in done.stdout
