"""`guard policy check`: as strict as the service."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.policy import load_policy
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def test_the_policy_in_force_is_printed_with_its_digest(cli: Cli) -> None:
    answer = cli("policy", "check", "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out)["digest"] == load_policy().digest
    assert load_policy().digest in cli("policy", "check").out


def test_the_setting_names_the_policy_in_force(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[policy]\nname = "mine"\n[detectors.patch_inversion]\n')
    monkeypatch.setenv("GUARD_POLICY_FILE", str(file))

    assert json.loads(cli("policy", "check", "-f", "json").out)["name"] == "mine"


def test_what_the_service_retrains_with_is_printed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "retrain.toml"
    head = '[policy]\nname = "x"\n[detectors.patch_inversion]\n'
    file.write_text(head)
    assert "nothing" in cli("policy", "check", file).out
    file.write_text(head + '[retrain]\nmethods = ["sifted"]\nbudget_seconds = 60\n')
    assert "with sifted, for at most 60 s each" in " ".join(
        cli("policy", "check", file).out.split()
    )
    file.write_text(head + '[retrain]\nmethods = ["wonder"]\n')
    assert "the retrainers are: d_st" in cli("policy", "check", file).err


def test_a_chain_is_named_and_one_that_hangs_in_the_air_exits_4(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "chain.toml"
    head = '[policy]\nname = "x"\n[detectors.patch_inversion]\n'
    start, end = (
        '[[purify.defenses]]\nname = "sau"\n',
        '[[purify.defenses]]\nname = "fine_tune"\nafter = "sau"\n',
    )
    file.write_text(head + start + end)

    assert "sau, fine_tune (after sau)" in cli("policy", "check", file).out
    assert (
        json.loads(cli("policy", "check", file, "-f", "json").out)["defenses"][1]["after"] == "sau"
    )

    file.write_text(head + end + start)
    answer = cli("policy", "check", file)

    assert (answer.code, len(answer.err.splitlines())) == (4, 1)
    assert "purify.defenses.after: 'fine_tune' continues from 'sau'" in answer.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[policy",
        '[policy]\nname = "x"\nunknown = 1\n[detectors.patch_inversion]\n',
        '[policy]\nname = "x"\n',
        '[policy]\nname = "x"\n[detectors.wonder]\n',
        '[policy]\nname = "x"\n[detectors.patch_inversion]\n[[purify.defenses]]\nname = "wonder"\n',
    ],
)
def test_a_policy_that_is_wrong_exits_4(text: str, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    answer = cli("policy", "check", file)

    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("guard: ")


def test_a_policy_that_is_not_there_exits_4(cli: Cli, tmp_path: Path) -> None:
    assert cli("policy", "check", tmp_path / "no.toml").code == 4


def test_a_simulation_of_nothing_says_so(service: Service, cli: Cli) -> None:
    answer = cli("policy", "simulate", "strict", "--format", "json")

    assert answer.code == 0
    assert json.loads(answer.out) | {"artifacts": 0, "changes": []} == json.loads(answer.out)
    assert "nothing would change" in cli("policy", "simulate", "strict").out


def test_a_simulation_reads_the_file_as_strictly_as_check(
    service: Service, cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[policy]\nname = "mine"\n[detectors.no_such]\n')

    assert cli("policy", "simulate", file).code == 4
