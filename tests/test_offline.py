"""The Python API: what it asks of a database, and what it says where that is broken or missing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard import offline, offline_inputs
from guard.core.contracts import Budget
from guard.core.errors import CleanSetError, Unavailable
from guard.core.states import Verdict
from guard.flow.foreign_layers import FOREIGN_POLARIZER
from guard.policy import load_policy
from guard.policy.rules import DetectorRule
from guard.store import artifacts
from guard.store.rows import ArtifactKind
from guard.store.session import transaction
from guard.vetting import examine
from tests.cli import models
from tests.flow.place import Place
from tests.flow.test_foreign_layers import polarized

POLICY = replace(load_policy(), detectors={"weight_statistics": DetectorRule()})


def test_a_database_that_is_broken_is_not_taken_for_a_missing_clean_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path))
    (tmp_path / "guard.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(Unavailable, match="database"):
        offline_inputs.curated_set("squares")


def test_where_nothing_was_ever_stored_there_is_no_such_clean_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path))

    with pytest.raises(CleanSetError, match="no stored clean set"):
        offline_inputs.curated_set("squares")
    assert not list(tmp_path.glob("*.db"))  # a look creates none


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model that declares a polarizer, and a clean set for it."""
    data, manifest = polarized()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(data)
    (tmp_path / "model" / "config.json").write_text(json.dumps(manifest.to_dict()))
    draw, count = np.random.default_rng(0), manifest.num_classes * 40
    np.savez(
        tmp_path / "clean.npz",
        images=draw.integers(0, 256, (count, *manifest.input_size), dtype=np.uint8),
        labels=np.arange(count) % manifest.num_classes,
    )
    return tmp_path


def test_a_model_with_a_repairs_layer_is_refused_as_an_upload_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder / "data"))
    model, clean = folder / "model", folder / "clean.npz"

    scanned = offline.scan(model, cleanset=clean, policy=POLICY)
    repaired = offline.purify(model, cleanset=clean, out=folder / "out", policy=POLICY)

    for report in (scanned, repaired):
        assert report.verdict is Verdict.UNVETTABLE
        assert report.facts.reasons == (FOREIGN_POLARIZER,)
    assert not (folder / "out").exists()
    assert not list(folder.rglob("*.db"))  # a look creates none


def test_a_scan_moves_before_its_first_method_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path / "data"))
    seen = list[tuple[float, str]]()

    offline.scan(
        models.saved(tmp_path / "honest"),
        cleanset=models.clean_set(tmp_path / "clean.npz"),
        policy=POLICY,
        progress=lambda done, note="": seen.append((done, note)),
    )

    notes = [note for _, note in seen]
    assert notes[:2] == ["reading the clean set", "measuring the clean accuracy"]
    assert notes[2].startswith("weight_statistics")
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert 0 < seen[0][0] < seen[1][0] < 0.05


def test_a_database_that_holds_other_models_only_vouches_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder / "data"))
    Place(folder)

    report = offline.scan(folder / "model", cleanset=folder / "clean.npz", policy=POLICY)

    assert report.facts.reasons == (FOREIGN_POLARIZER,)


def test_a_repair_that_this_machines_guard_made_is_examined(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder / "data"))
    place = Place(folder)
    upload = folder / "model" / "model.safetensors"
    manifest = (folder / "model" / "config.json").read_bytes()
    inspected = examine.inspect_upload(upload, upload.name, manifest, folder, budget=Budget())
    with transaction(place.guard.engine) as session:  # as the purify stage records a candidate
        artifacts.put(
            session,
            digest=inspected.digest,
            size=upload.stat().st_size,
            kind=ArtifactKind.PURIFIED,
            now=place.clock,
            manifest=json.loads(manifest),
        )

    report = offline.scan(folder / "model", cleanset=folder / "clean.npz", policy=POLICY)

    assert report.verdict is Verdict.INCONCLUSIVE  # fresh weights: not more accurate than chance
    assert FOREIGN_POLARIZER not in report.facts.reasons
    assert report.digest == inspected.digest


def test_a_broken_database_is_not_taken_for_one_that_made_no_repair(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder))
    (folder / "guard.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(Unavailable, match="database"):
        offline.scan(folder / "model", cleanset=folder / "clean.npz", policy=POLICY)
