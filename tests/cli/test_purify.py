"""`guard purify`: a repaired model in a folder, or nothing there at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard import load_model
from guard.cli.purify import parameters
from guard.core.errors import InputError
from guard.core.states import EXIT_CODES, Verdict
from tests import schemas
from tests.cli.conftest import Answer
from tests.cli.models import QUICK, clean_set, saved

Cli = Callable[..., Answer]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return clean_set(tmp_path / "clean.npz")


def test_a_named_defense_reports_accuracies_and_writes_only_what_passes(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "purified"
    answer = cli(
        "purify",
        saved(tmp_path / "bad", backdoored=True),
        "--cleanset",
        clean,
        "--out",
        out,
        "--policy",
        QUICK,
        "--defense",
        "fine_tune",
        "--format",
        "json",
    )
    document = json.loads(answer.out)

    assert document["defense"] == "fine_tune"
    assert 0 <= document["acc_after"] <= 1 >= document["acc_before"] >= 0
    assert document["parent"] != document["digest"]
    if document["verdict"] == "purified":
        assert answer.code == 0
        assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json"}
        assert load_model(out).manifest.num_classes == 6
    else:
        assert answer.code == EXIT_CODES[Verdict(document["verdict"])] != 0
        assert not out.exists()


def test_an_honest_model_needs_no_repair(cli: Cli, clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = cli(
        *("purify", saved(tmp_path / "honest"), "--cleanset", clean, "--policy", QUICK),
        *("--out", out, "--format", "html"),
    )

    assert answer.out.split()[0] not in {"inconclusive", "unvettable"}
    assert (out / "report.html").is_file()
    assert (out / "model.safetensors").is_file() == (answer.code == 0)


def test_without_a_place_it_is_beside_who_asks_and_named_after_the_model(
    cli: Cli, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli(
        "purify",
        saved(tmp_path / "bad", backdoored=True),
        "--cleanset",
        clean,
        "--policy",
        QUICK,
        "--defense",
        "fine_tune",
    )
    made = tmp_path / "bad-purified"

    assert made.is_dir() == (answer.code == 0)
    assert ("in bad-purified" in answer.err) == (answer.code == 0)
    assert "--out" not in answer.err


def test_what_cannot_be_vetted_is_not_written(cli: Cli, clean: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "model.onnx", tmp_path / "out"
    file.write_bytes(b"\x08\x07\x12\x07pytorch")
    answer = cli("purify", file, "--cleanset", clean, "--out", out, "--format", "json")

    assert answer.code == 3
    assert json.loads(answer.out)["verdict"] == "unvettable"
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--defense", "wonder"),
        ("--param", "epochs=1"),
        ("--set", "epochs=1"),
        ("--defense", "fine_tune", "--param", "epochs"),
        ("--defense", "fine_tune", "--param", "wonder=1"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(
    arguments: tuple[str, ...], cli: Cli, clean: Path, tmp_path: Path
) -> None:
    model = saved(tmp_path / "bad", backdoored=True)
    answer = cli("purify", model, "--cleanset", clean, "--out", tmp_path / "out", *arguments)

    assert (answer.code, answer.out) == (4, "")
    assert not (tmp_path / "out").exists()


def test_the_place_must_be_a_folder(cli: Cli, clean: Path, tmp_path: Path) -> None:
    assert cli("purify", "x", "--cleanset", clean, "--out", clean).code == 4


def test_set_changes_the_defense_and_is_recorded(cli: Cli, clean: Path, tmp_path: Path) -> None:
    answer = cli(
        "purify",
        saved(tmp_path / "bad", backdoored=True),
        "--cleanset",
        clean,
        "--out",
        tmp_path / "out",
        "--policy",
        QUICK,
        "--defense",
        "fine_tune",
        "--set",
        "rounds=1",
        "--set",
        "rate=1",
        "--format",
        "json",
    )
    document = json.loads(answer.out)
    last = document["candidates"][-1]

    assert schemas.faults("report.schema.json", document) == []
    assert last["parameters"]["rounds"] == 1, document
    assert (last["parameters"]["rate"], type(last["parameters"]["rate"])) == (1.0, float)
    if "failed" not in last:
        assert document["parameters"] == last["parameters"]
        assert document["defense_version"] >= 1


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("roh=0.1", "rho (float)"),
        ("rounds=2.5", "a whole number, not 2.5"),
        ("rho=true", "a number, not True"),
        ("rho=NaN", "a number, not nan"),
        ("norm=3", "a string, not 3"),
    ],
)
def test_a_wrong_parameter_is_one_sentence_before_any_search(
    pair: str, words: str, cli: Cli, clean: Path, tmp_path: Path
) -> None:
    answer = cli(
        "purify",
        saved(tmp_path / "bad", backdoored=True),
        "--cleanset",
        clean,
        "--out",
        tmp_path / "out",
        "--defense",
        "sau",
        "--set",
        pair,
    )

    assert (answer.code, answer.out) == (4, "")
    assert words in answer.err
    assert len(answer.err.splitlines()) == 1


def test_parameters_are_json_or_text() -> None:
    assert parameters(["epochs=3", "lr=1e-3", "name=sgd", "on=true", "text=a=b"]) == {
        "epochs": 3,
        "lr": 1e-3,
        "name": "sgd",
        "on": True,
        "text": "a=b",
    }
    for pair in (["epochs"], ["=1"], ["a b=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError):
            parameters(pair)
