"""A plug-in from outside in real commands, jobs and workers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard.core import plugins
from guard.core.contract_versions import CONTRACTS
from guard.core.digests import sha256
from guard.core.evidence import Evidence
from guard.detectors import DETECTORS
from guard.jobs.run import Limits, run_job
from guard.ml.cleanset import CuratedSet
from guard.offline_inputs import curated_set
from guard.settings import child_environment
from guard.vetting import canary_trial, examine
from tests.cli.conftest import Answer
from tests.cli.models import clean_set, saved
from tests.plug_ins import DETECTOR, outside

Cli = Callable[..., Answer]
ROOT = Path(__file__).parents[2]
DIGEST = sha256(DETECTOR.encode())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of plug-ins, named by the setting."""
    path = outside(tmp_path / "mine")
    monkeypatch.setenv("GUARD_PLUGINS", str(path))
    yield path
    plugins.use(None)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return clean_set(tmp_path / "clean.npz")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text('[policy]\nname = "x"\n[detectors.from_outside]\n')
    return path


@pytest.mark.row(20)
def test_guard_scan_runs_a_detector_from_outside(
    cli: Cli, mine: Path, clean: Path, policy: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "model", backdoored=False)
    answer = cli("scan", model, "--cleanset", clean, "--policy", policy, "--format", "json")
    document = json.loads(answer.out)

    assert answer.code == 0, answer.err
    assert "It came from outside and saw 6 classes." in answer.out
    assert document["plug_ins"] == {"detectors/from_outside.py": DIGEST}
    assert document["contracts"] == {"detectors/from_outside.py": "1.0"}


def test_a_folder_that_others_can_write_ends_every_command_with_one_sentence(
    cli: Cli, mine: Path, clean: Path, policy: Path, tmp_path: Path
) -> None:
    mine.chmod(0o777)
    model = saved(tmp_path / "model", backdoored=False)
    answer = cli("scan", model, "--cleanset", clean, "--policy", policy)

    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("guard: GUARD_PLUGINS is refused: ")
    assert len(answer.err.splitlines()) == 1


def test_methods_list_shows_where_a_method_comes_from(cli: Cli, mine: Path) -> None:
    rows = json.loads(cli("methods", "list", "--kind", "detectors", "-f", "json").out)
    origins = {row["name"]: (row["origin"], row["digest"]) for row in rows}

    assert origins["from_outside"] == (f"from_outside.py {DIGEST[:12]}", DIGEST)
    assert origins["margin"] == ("built in", None)
    assert {row["contract"] for row in rows} == {CONTRACTS["detectors"]}
    assert DIGEST[:12] in cli("methods", "list", "--kind", "detectors").out


def evidence(folder: Path, model: Path, curated: CuratedSet) -> Evidence:
    plugins.use(None)
    plugins.use(folder)
    found = examine.examine(
        examine.open_model(model, device="cpu"), "0" * 64, curated, {"from_outside": {}}
    )
    return found.evidence[-1]


def test_a_changed_file_is_other_evidence_at_the_same_version(
    mine: Path, clean: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "model", backdoored=False) / "model.safetensors"
    curated = curated_set(clean)
    before, again = (evidence(mine, model, curated) for _ in range(2))
    (mine / "detectors/from_outside.py").write_text(DETECTOR + "# changed\n")
    after = evidence(mine, model, curated)

    assert before.parameters == {"steps": 1, "plug_in": DIGEST}
    assert before.key == again.key != after.key
    assert before.version == after.version
    assert DETECTORS.get("from_outside")().parameters() == after.parameters


def test_a_job_has_the_plug_ins_and_no_other_setting(mine: Path, tmp_path: Path) -> None:
    environment = child_environment()
    limits = Limits(seconds=120, memory_bytes=8 << 30, environment=environment)
    request = {"detectors": {"from_outside": {}}, "device": "cpu", "seconds": 100.0}
    (trial,) = run_job("canary", request, tmp_path, limits=limits)["trials"]

    assert {name for name in environment if name.startswith("GUARD_")} == {"GUARD_PLUGINS"}
    assert trial["passed"], trial
    assert trial["parameters"]["plug_in"] == DIGEST


def test_a_worker_does_not_start_with_a_folder_that_others_can_write(mine: Path) -> None:
    mine.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", "import workers.app"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "GUARD_PLUGINS is refused" in done.stderr.splitlines()[-1]


def test_a_detector_from_outside_that_flags_the_honest_model_fails_the_canary(mine: Path) -> None:
    file = mine / "detectors/from_outside.py"
    file.write_text(DETECTOR.replace("suspicious=False", "suspicious=True"))
    plugins.use(mine)
    (trial,) = canary_trial.try_all({"from_outside": {}}, device="cpu")

    assert not trial.passed
    assert "honest" in trial.sentence
