"""`guard calibrate`.

Refuses what it cannot do before it scans, and writes a file that a policy takes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guard import offline
from guard.core.digests import canonical_json
from guard.policy.load import load_calibration
from guard.vetting import population
from tests.cli.conftest import Answer
from tests.vetting.test_calibrate import a_population, a_zoo

Cli = Callable[..., Answer]


def test_a_folder_without_models_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    answer = cli("calibrate", "--zoo", tmp_path, "--out", tmp_path / "c.json")

    assert answer.code == 4
    assert "no model below" in answer.err
    assert not (tmp_path / "c.json").exists()


def test_a_place_that_cannot_be_written_is_told_before_the_work(cli: Cli, tmp_path: Path) -> None:
    answer = cli("calibrate", "--zoo", tmp_path, "--out", tmp_path / "none" / "c.json")

    assert answer.code == 4
    assert "cannot be written" in answer.err


def test_two_models_are_too_few_but_their_scans_stay(cli: Cli, tmp_path: Path) -> None:
    zoo, policy = a_zoo(tmp_path / "zoo"), tmp_path / "p.toml"
    policy.write_text(
        '[policy]\nname = "p"\n[detectors.patch_inversion]\n'
        "params = {steps = 4, natural_steps = 2, batch = 4}\n"
    )
    answer = cli("calibrate", "--zoo", zoo, "--out", tmp_path / "c.json", "--policy", policy)

    assert answer.code == 4
    assert "needs 8 honest models" in answer.err
    assert len(list(zoo.glob("*/scan-patch_inversion.json"))) == 2


def test_what_is_written_is_what_a_policy_reads(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scans are synthetic here: a hundred real ones take an hour."""
    fitted = a_population()
    monkeypatch.setattr(population, "members", lambda _folder: [item.member for item in fitted])
    monkeypatch.setattr(population, "scan_all", lambda *_args, **_options: fitted)
    out = tmp_path / "c.json"
    answer = cli("calibrate", "--zoo", tmp_path, "--out", out, "--format", "json")
    said, calibration = json.loads(answer.out), load_calibration(out)

    assert answer.code == 0
    assert said["digest"] == calibration.digest
    assert said["smallest_fpr"] == pytest.approx(1 / 41)
    assert out.read_bytes().strip() == canonical_json(json.loads(out.read_text()))
    table = cli("calibrate", "--zoo", tmp_path, "--out", out)
    assert "smallest fpr" in table.out


def test_only_the_asked_part_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fitted = [
        replace(
            item, member=replace(item.member, truth={**item.member.truth, "part": "xy"[index % 2]})
        )
        for index, item in enumerate(a_population())
    ]
    monkeypatch.setattr(population, "members", lambda _folder: [item.member for item in fitted])

    def scan_all(
        _folder: Path, chosen: list[population.Member], *_args: object, **_o: object
    ) -> list[object]:
        asked.extend(member.truth["part"] for member in chosen)
        return [item for item in fitted if item.member in chosen]

    monkeypatch.setattr(population, "scan_all", scan_all)
    document, _ = offline.calibrate(tmp_path, part="x")

    assert set(asked) == {"x"}
    assert len(document["population"]["models"]) == 50
