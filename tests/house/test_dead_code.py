"""The dead-code check: what it lets live, and that its list holds nothing that it need not."""

from pathlib import Path

from tests.house.dead_code import ALIVE, complaints, findings, is_plug_in
from tests.house.sources import ROOT


def test_nothing_that_we_ship_is_without_a_use() -> None:
    assert complaints(list(findings())) == []


def test_a_function_without_a_use_is_named_with_its_place() -> None:
    wrong = complaints(
        [("guard/a.py", 3, "old"), ("guard/a.py", 9, "kept")], {"guard/a.py: kept": "us"}
    )

    assert wrong == ["guard/a.py:3 nothing uses old"]


def test_an_entry_of_the_list_that_is_not_needed_is_named() -> None:
    assert complaints([], {"guard/a.py: kept": "us"}) == [
        "guard/a.py: kept is in use or gone; take it from the list"
    ]


def test_each_entry_of_the_list_names_a_file_and_a_reason() -> None:
    for key, reason in ALIVE.items():
        assert (ROOT / key.split(":", maxsplit=1)[0]).is_file(), key
        assert reason


def test_only_the_class_with_the_files_name_is_a_plug_in() -> None:
    place = Path("guard/detectors/weight_statistics.py")

    assert is_plug_in(place, "WeightStatistics")
    assert not is_plug_in(place, "Weights")
    assert not is_plug_in(Path("guard/flow/detect.py"), "Detect")
