"""The battery's secret is made once, kept to its owner, and shown as a commitment only."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard import offline
from guard.core.errors import InputError
from guard.detectors.pair import Pair
from guard.ml.search.battery import PUBLIC, commitment, secret_in_force
from guard.policy import load_policy
from guard.policy.rules import DetectorRule
from guard.vetting import battery_secret
from guard.vetting.battery_secret import FILE, commitment_of, given, kept_in, needed_by
from tests.cli import models


def test_it_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(kept_in, [tmp_path] * 16))

    assert len(found) == 1
    assert len(found.pop()) == battery_secret.BYTES
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / FILE).parent.iterdir()] == [FILE.name]


@pytest.mark.threat("B03")
def test_two_installations_have_two(tmp_path: Path) -> None:
    assert kept_in(tmp_path / "a") != kept_in(tmp_path / "b")


@pytest.mark.parametrize("content", ["", "00", "no secret at all"])
def test_a_file_that_holds_something_else_is_an_error_that_names_it(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(content)

    with pytest.raises(InputError, match=FILE.name) as caught:
        kept_in(tmp_path)
    assert caught.value.code == "battery_secret"


def test_where_it_cannot_be_made_nothing_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where a folder must be")

    with pytest.raises(InputError, match="cannot be read or made"):
        kept_in(tmp_path)


def test_only_methods_that_draw_need_it(tmp_path: Path) -> None:
    assert needed_by(["weight_statistics", "head_alignment", "patch_unlearning"], tmp_path) == ""
    assert not (tmp_path / FILE).exists()
    assert bytes.fromhex(needed_by(["sau", "fresh_student"], tmp_path)) == kept_in(tmp_path)
    assert bytes.fromhex(needed_by(["weight_statistics", "pair"], tmp_path)) == kept_in(tmp_path)


@pytest.mark.threat("B03")
def test_a_job_draws_from_the_secret_that_it_is_given(tmp_path: Path) -> None:
    secret = needed_by(["pair"], tmp_path)
    with given(secret):
        assert secret_in_force() == kept_in(tmp_path)
        assert commitment() == commitment_of(secret)
    with given(""):
        assert secret_in_force() == PUBLIC
    assert commitment_of("") == ""


def test_evidence_and_verdict_hold_the_commitment_and_never_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path / "data"))
    clean, model = models.clean_set(tmp_path / "clean.npz"), models.saved(tmp_path / "model")

    def scanned(**detectors: dict[str, Any]) -> Any:
        rules = {name: DetectorRule(params=params) for name, params in detectors.items()}
        return offline.scan(model, cleanset=clean, policy=replace(load_policy(), detectors=rules))

    plain = scanned(weight_statistics={})
    assert plain.facts.battery is None
    assert not (tmp_path / "data").exists()
    report = scanned(pair=Pair.quick())
    secret = kept_in(tmp_path / "data").hex()
    (item,) = (one for one in report.evidence if one["method"] == "pair")

    assert report.facts.battery == item["blobs"]["battery"] == commitment_of(secret)
    assert secret not in json.dumps(report.to_dict())
    assert secret_in_force() == PUBLIC
