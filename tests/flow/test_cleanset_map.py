"""The operator's mapping decides about the clean set, and an upload where there is none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from guard.core.errors import CleanSetError, InputError
from guard.core.manifest import Manifest
from guard.flow import run_stage
from guard.flow._cleanset_map import mapping
from guard.flow.detect import unmet_wish, wanted_cleanset
from guard.settings import load_settings
from tests.flow.place import MANIFEST, Place

PAIRS = ("a/=broad", "a/b/=narrow", "s3://other/a/=elsewhere", "named=own", "c/d=file")


@pytest.mark.parametrize(
    ("bucket", "key", "name", "wanted"),
    [
        ("models", "a/x/m.pt", "a--x", "broad"),
        ("models", "a/b/m.pt", "a--b", "narrow"),
        ("models", "a/bc/m.pt", "a--bc", "broad"),
        ("models", "ab/m.pt", "ab", None),
        ("other", "a/m.pt", "a", "elsewhere"),
        ("models", "a/b/m.pt", "named", "own"),
        ("models", "c/d/m.pt", "c--d", "file"),
        ("models", "c/dd/m.pt", "c--dd", None),
        ("models", "x/a/m.pt", "x--a", None),
    ],
)
def test_a_name_counts_before_prefixes_and_a_long_prefix_before_a_short(
    bucket: str, key: str, name: str, wanted: str | None
) -> None:
    assert mapping(PAIRS, bucket, key, name) == wanted


def detected(place: Place, wish: str | None, **changes: object) -> tuple[str, str | None]:
    """The clean set that a model's detection would use, and the wish that was not met."""
    for name in ("squares", "circles"):
        place.add_cleanset(name, seed=int(name == "circles"))
    place.guard = replace(place.guard, settings=replace(place.guard.settings, **changes))  # type: ignore[arg-type]
    manifest = replace(Manifest.from_dict(MANIFEST.to_dict()), cleanset=wish)
    scan_id = place.upload(manifest=json.dumps(manifest.to_dict()))
    assert run_stage.work(place.guard, "inspect", scan_id)
    scan = place.scan(scan_id)
    return wanted_cleanset(place.guard, scan).name, unmet_wish(place.guard, scan)


def test_the_manifest_does_not_choose_where_the_operator_has(tmp_path: Path) -> None:
    found = detected(Place(tmp_path), "circles", cleanset_map=("models/model/=squares",))

    assert found == ("squares", "circles")


def test_the_manifest_may_choose_where_the_operator_lets_it(tmp_path: Path) -> None:
    found = detected(
        Place(tmp_path), "circles", cleanset_map=("model=squares",), cleanset_from_manifest=True
    )

    assert found == ("circles", None)


def test_the_manifest_may_choose_where_nothing_is_mapped(tmp_path: Path) -> None:
    found = detected(
        Place(tmp_path), "circles", cleanset_map=("other=squares",), default_cleanset="squares"
    )

    assert found == ("circles", None)


def test_a_mapping_to_a_clean_set_that_is_not_there_is_no_leave_to_take_another(
    tmp_path: Path,
) -> None:
    with pytest.raises(CleanSetError, match="gone"):
        detected(Place(tmp_path), "squares", cleanset_map=("model=gone",))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CLEANSET_MAP", "a"), ("CLEANSET_MAP", "=a"), ("CLEANSET_MAP", "a/="), ("SERVED_NAME", "x")],
)
def test_a_mapping_or_a_rule_that_says_nothing_is_refused(variable: str, value: str) -> None:
    with pytest.raises(InputError, match=f"GUARD_{variable}"):
        load_settings({f"GUARD_{variable}": value})
