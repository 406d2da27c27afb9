"""`guard scan` on real files with no service running.

One document, the agreed keys, the agreed exit codes.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from guard.core.states import EXIT_CODES, Verdict
from guard.policy import known_gaps, load_policy
from tests import schemas
from tests.cli.conftest import Answer
from tests.cli.models import QUICK, clean_set, pictures, saved
from tests.reports.official import junit_faults, sarif_faults
from tests.reports.samples import AGREED

Cli = Callable[..., Answer]


class Payload:
    """Unpickling it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return clean_set(tmp_path / "clean.npz")


@pytest.mark.row(7)
def test_a_pickle_is_unvettable_and_never_runs(cli: Cli, clean: Path, tmp_path: Path) -> None:
    file, mark = tmp_path / "model.pkl", tmp_path / "it-ran"
    file.write_bytes(pickle.dumps(Payload(mark)))
    answer = cli("scan", file, "--cleanset", clean, "--format", "json")
    document = json.loads(answer.out)

    assert answer.code == 3
    assert set(document) >= AGREED
    assert schemas.faults("report.schema.json", document) == []
    assert document["verdict"] == "unvettable"
    assert "safetensors" in document["reasons"][0]
    assert not mark.exists()


def test_a_pipeline_gets_a_document_also_about_a_file_that_cannot_be_vetted(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    file, log = tmp_path / "model.pkl", tmp_path / "guard.sarif"
    file.write_bytes(pickle.dumps([1]))
    answer = cli("scan", file, "--cleanset", clean, "--format", "sarif", "--out", log)
    (run,) = json.loads(log.read_text())["runs"]
    junit = cli("scan", file, "--cleanset", clean, "--format", "junit")

    assert (answer.code, junit.code) == (3, 3)
    assert sarif_faults({"version": "2.1.0", "runs": [run]}) == []
    assert run["results"][0]["ruleId"] == "verdict/unvettable"
    assert run["artifacts"][0]["location"]["uri"] == file.as_uri()
    assert junit_faults(junit.out) == []
    assert 'errors="1"' in junit.out


def test_a_model_in_the_hub_s_cache_is_pinned_to_its_commit(
    cli: Cli, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hf" / "hub" / "models--org--net"
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    (snapshot / "model.safetensors").write_bytes(pickle.dumps([1]))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    document = json.loads(cli("scan", "hf://org/net", "--cleanset", clean, "--format", "json").out)
    log = cli("scan", "hf://org/net", "--cleanset", clean, "--format", "sarif").out

    assert schemas.faults("report.schema.json", document) == []
    assert (document["name"], document["verdict"]) == ("org/net", "unvettable")
    assert document["source"] == f"hf://org/net@{'a' * 40}"
    assert json.loads(log)["runs"][0]["artifacts"][0]["location"]["uri"] == "hf://org/net"
    assert sarif_faults(json.loads(log)) == []
    assert cli("scan", "hf://org/none", "--cleanset", clean).code == 4


def test_a_model_is_looked_at_by_every_required_detector(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "honest")
    answer = cli("scan", model, "--cleanset", clean, "--seed", 7, "--format", "json")
    document = json.loads(answer.out)

    assert schemas.faults("report.schema.json", document) == []
    assert document["verdict"] not in {"inconclusive", "unvettable"}, document["reasons"]
    assert answer.code == EXIT_CODES[Verdict(document["verdict"])]
    assert "patch" in document["coverage"]
    versions = {method["name"]: method["version"] for method in document["methods"]}
    assert document["known_gaps"] == known_gaps(load_policy(), versions)
    assert {"patch_inversion"} <= {method["name"] for method in document["methods"]}
    assert 0 <= document["score"] <= 1


def test_the_same_seed_gives_the_same_answer_twice(cli: Cli, clean: Path, tmp_path: Path) -> None:
    policy = tmp_path / "without-stops.toml"
    policy.write_text(STOPPING.replace("stop_early = true", ""))
    model = saved(tmp_path / "honest")
    first, second = (
        json.loads(
            cli(
                *("scan", model, "--cleanset", clean, "--policy", policy),
                *("--seed", 7, "--format", "json"),
            ).out
        )
        for _ in range(2)
    )

    same = ("digest", "verdict", "score", "asr", "target", "accuracy", "reasons", "triggers")
    assert [first[key] for key in same] == [second[key] for key in same]
    assert first["verdict"] not in {"inconclusive", "unvettable"}


def test_a_backdoored_model_is_never_cleared(cli: Cli, clean: Path, tmp_path: Path) -> None:
    model, page = saved(tmp_path / "bad", backdoored=True), tmp_path / "page.html"
    answer = cli("scan", model, "--cleanset", clean, "--format", "html", "--out", page)

    assert answer.code not in {0, 2, 4}
    assert answer.out.split()[0] in {"rejected", "held"}
    assert "data:image/png" in page.read_text()


STOPPING = """
[policy]
name = "stopping"
[time]
stop_early = true
[detectors.patch_inversion]
params = {steps = 120, natural_steps = 30, again = 0, reference_rounds = 0}
[detectors.margin]
[detectors.weight_statistics]
"""


def test_a_policy_that_stops_early_spares_detectors_on_proof_and_never_on_the_way_to_a_pass(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "stopping.toml"
    policy.write_text(STOPPING)
    bad, honest = (
        json.loads(
            cli(
                "scan",
                saved(tmp_path / name, backdoored=name == "bad"),
                "--cleanset",
                clean,
                "--policy",
                policy,
                "--format",
                "json",
            ).out
        )
        for name in ("bad", "honest")
    )

    assert bad["verdict"] == "rejected"
    assert [method["name"] for method in bad["methods"]] == ["clean_accuracy", "patch_inversion"]
    assert {"patch_inversion", "margin", "weight_statistics"} < {
        method["name"] for method in honest["methods"]
    }


def test_a_model_that_knows_nothing_is_inconclusive(cli: Cli, clean: Path, tmp_path: Path) -> None:
    answer = cli("scan", saved(tmp_path / "blank", steps=0), "--cleanset", clean)

    assert answer.code == 2
    assert "INCONCLUSIVE" in answer.out


@pytest.mark.row(48)
def test_in_a_pipe_stdout_is_one_document_and_stderr_json_lines(
    clean: Path, tmp_path: Path
) -> None:
    command = [
        str(Path(sys.executable).with_name("guard")),
        "scan",
        str(saved(tmp_path / "honest")),
        "--cleanset",
        str(clean),
        "--seconds",
        "1",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert json.loads(done.stdout)["name"] == "honest"
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    assert all(line["event"] for line in lines)


@pytest.mark.parametrize(
    "damage",
    ["truncated", "no config", "no model", "wrong classes", "no json", "unknown architecture"],
)
def test_a_broken_upload_is_a_verdict_or_a_sentence(
    damage: str, cli: Cli, clean: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "broken")
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "no config":
        config.unlink()
        weights.write_bytes(b"\x00" * 100)
    elif damage == "no model":
        weights.unlink()
    elif damage == "wrong classes":
        more = config.read_text().replace('"num_classes": 6', '"num_classes": 7')
        config.write_text(more.replace(', "plain"', ', "plain", "other"'))
    elif damage == "no json":
        config.write_text("{")
    else:
        config.write_text(config.read_text().replace("cifar_resnet", "wonder_net"))
    answer = cli("scan", folder, "--cleanset", clean, "--format", "json")

    assert answer.code == (4 if damage == "no model" else 3)
    if damage == "no model":
        assert answer.out == ""
        assert answer.err.startswith("guard: ")
    else:
        assert json.loads(answer.out)["reasons"][0]
    assert "Traceback" not in answer.err


def test_a_clean_set_that_does_not_fit_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 20, 20), np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 6)
    answer = cli("scan", saved(tmp_path / "honest"), "--cleanset", path, "--format", "json")

    assert (answer.code, answer.out) == (4, "")
    assert "20x20" in answer.err


def test_a_clean_set_that_nobody_knows_is_a_sentence(cli: Cli, tmp_path: Path) -> None:
    answer = cli("scan", saved(tmp_path / "honest"), "--cleanset", "never-added")

    assert (answer.code, answer.out) == (4, "")
    assert "guard cleanset add" in answer.err


def test_a_stored_clean_set_is_found_by_name(cli: Cli, clean: Path, tmp_path: Path) -> None:
    assert cli("cleanset", "add", "stripes", clean).code == 0
    answer = cli(
        "scan",
        saved(tmp_path / "honest"),
        "--cleanset",
        "stripes",
        "--seconds",
        1,
        "--format",
        "json",
    )
    document = json.loads(answer.out)

    assert document["cleanset"]["name"] == "stripes"


def test_a_policy_that_is_wrong_is_a_sentence(cli: Cli, clean: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[policy]\n")

    assert (
        cli("scan", saved(tmp_path / "honest"), "--cleanset", clean, "--policy", policy).code == 4
    )


def test_a_scan_says_that_config_json_leaves_mean_and_std_out(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "blank", steps=0)
    config = json.loads((model / "config.json").read_text())
    del config["pretrained_cfg"]["mean"], config["pretrained_cfg"]["std"]
    (model / "config.json").write_text(json.dumps(config))
    command = ("scan", model, "--cleanset", clean, "--policy", QUICK)

    document = json.loads(cli(*command, "--format", "json").out)

    assert "config.json gives no mean and no std" in document["reasons"][-1]
    assert "gives no mean and no std" in " ".join(cli(*command).out.split())


def test_a_grey_network_is_scanned_with_grey_images_that_were_stored_as_rgb(
    cli: Cli, tmp_path: Path
) -> None:
    images, labels = pictures(900, seed=1)
    copies = tmp_path / "copies.npz"
    np.savez(copies, images=images.repeat(3, axis=1), labels=labels)
    model = saved(tmp_path / "bad", backdoored=True)

    answer = cli("scan", model, "--cleanset", copies, "--policy", QUICK, "--format", "json")
    document = json.loads(answer.out)

    assert document["verdict"] == "rejected"
    assert "read as grey images" in document["reasons"][-1]
    assert document["triggers"]


def test_ctrl_c_ends_a_scan_with_one_sentence_and_130(clean: Path, tmp_path: Path) -> None:
    # Where tests run in the background, their shell has SIGINT ignored by all that they start.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from guard.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start, "scan", saved(tmp_path / "honest"), "--cleanset", clean],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "patch_inversion" in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    out, err = process.communicate(timeout=60)

    left = [line for line in err.splitlines() if not line.startswith("{")]
    assert left == ["guard: Stopped guard scan: no verdict was given and nothing was written."]
    assert (process.returncode, out) == (130, "")
    assert json.loads(lines[0])["note"] == "reading the clean set"
