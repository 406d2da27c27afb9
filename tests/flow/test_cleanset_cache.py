"""What detectors need of a clean set alone.

Made once by a job, kept, and given to the jobs that examine models.
"""

import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.evidence import AnyCleanSet
from guard.flow import run_stage
from guard.flow._cleanset_cache import prepared
from guard.flow._lease import hold
from guard.jobs import child
from guard.ml.search import reference_model
from guard.ml.search.battery import commitment
from guard.policy import DetectorRule
from guard.store import cleansets
from guard.store.session import reading
from guard.vetting import battery_secret, examine
from guard.vetting.battery_secret import commitment_of
from tests.flow.place import Place

PARAMETERS = {"steps": 20, "again": 0, "reference_rounds": 30, "natural_steps": 10}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    rule = DetectorRule(params=PARAMETERS)
    place.guard = replace(
        place.guard, policy=replace(place.guard.policy, detectors={"patch_inversion": rule})
    )
    return place


def facts_of(place: Place) -> AnyCleanSet:
    place.add_cleanset()
    with reading(place.guard.engine) as session:
        return cleansets.list_all(session)[0]


def kept(place: Place) -> list[Path]:
    return sorted((place.guard.settings.data_dir / "prepared").glob("*"))


def made(place: Place, facts: AnyCleanSet) -> dict[str, Any]:
    scan_id = place.upload()
    with hold(place.guard, scan_id) as held:
        assert held is not None
        return prepared(place.guard, held, facts)


def request_for(place: Place, facts: AnyCleanSet, given: dict[str, Any]) -> dict[str, Any]:
    """What `guard.flow.detect` asks of a job, for a fresh upload."""
    scan_id = place.upload()
    run_stage.work(place.guard, "inspect", scan_id)
    digest = place.scan(scan_id).canonical_digest or ""
    return {
        "model": str(place.guard.blobs.path(digest)),
        "artifact": digest,
        "known": [],
        "policy": None,
        "seed": 0,
        "cleanset": str(place.guard.blobs.path(facts.digest)),
        "cleanset_name": facts.name,
        "device": "cpu",
        "detectors": {"patch_inversion": PARAMETERS},
        "seconds": 300.0,
        "prepared": given,
    }


def test_it_is_made_once(place: Place) -> None:
    facts = facts_of(place)

    first = made(place, facts)
    file = kept(place)
    stamp = file[0].stat().st_mtime_ns
    again = made(place, facts)

    assert len(first["references"]) == 1
    assert again == first
    assert kept(place) == file
    assert file[0].stat().st_mtime_ns == stamp


def test_a_job_takes_over_what_it_is_given(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reference_model, "_known", OrderedDict())

    child.detect(
        request_for(place, facts_of(place), {"references": {"a key": [0.5, 1.5]}}), tmp_path
    )

    assert reference_model.remembered()["a key"] == [0.5, 1.5]


def test_what_cannot_be_read_is_made_anew(place: Place) -> None:
    facts = facts_of(place)
    first = made(place, facts)
    (file,) = kept(place)
    for broken in ("", "{", "[]", '{"references": 3}'):
        file.write_text(broken)

        assert made(place, facts) == first, broken
        assert json.loads(file.read_text()) == first, broken


def test_other_parameters_have_another_file(place: Place) -> None:
    facts = facts_of(place)
    made(place, facts)
    rule = DetectorRule(params={**PARAMETERS, "steps": 30})
    place.guard = replace(
        place.guard, policy=replace(place.guard.policy, detectors={"patch_inversion": rule})
    )

    made(place, facts)

    assert len(kept(place)) == 2


def test_where_it_cannot_be_made_the_scan_goes_on_without(place: Place) -> None:
    facts = facts_of(place)
    limits = replace(place.guard.limits(), memory_bytes=1)
    object.__setattr__(place.guard, "limits", lambda: limits)

    assert made(place, facts) == {}
    assert kept(place) == []


def test_where_it_cannot_be_kept_it_is_used_all_the_same(place: Place) -> None:
    facts = facts_of(place)
    (place.guard.settings.data_dir / "prepared").write_text("a file where the folder should be")

    assert len(made(place, facts)["references"]) == 1


def test_a_job_draws_batteries_from_the_installations_secret(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, secret, seen = facts_of(place), "ab" * 32, []
    real = examine.examine

    def watched(*given: Any, **named: Any) -> Any:
        seen.append(commitment())
        return real(*given, **named)

    monkeypatch.setattr(examine, "examine", watched)
    child.detect(
        {**request_for(place, facts, {}), "detectors": {}, "battery": secret},
        tmp_path,
    )

    assert seen == [commitment_of(secret)] != [commitment()]


def test_another_secret_has_another_file(place: Place) -> None:
    facts = facts_of(place)
    rule = DetectorRule(params={"batteries": 1, "references": 0})
    place.guard = replace(place.guard, policy=replace(place.guard.policy, detectors={"pair": rule}))
    made(place, facts)
    (place.guard.settings.data_dir / battery_secret.FILE).unlink()
    made(place, facts)

    assert len(kept(place)) == 2
