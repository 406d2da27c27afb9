"""Plug-ins from outside: what is loaded, what is refused, and that a changed file is known."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.core import plugins
from guard.core.contract_versions import CONTRACTS, contract_of
from guard.core.digests import sha256
from guard.core.errors import InputError, ManifestRejected, UnknownMethod
from guard.core.manifest import Manifest
from guard.core.shelf import Shelf
from guard.ml.networks import architectures
from tests.plug_ins import DETECTOR, NETWORK, folder, outside

SHELF: Shelf[object] = Shelf("guard.detectors")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture(autouse=True)
def none_afterwards() -> Iterator[None]:
    plugins.use(None)
    yield
    plugins.use(None)


def refused(path: Path, code: str) -> str:
    """The sentence by which the folder is refused; nothing of it is on a shelf."""
    with pytest.raises(InputError) as caught:
        plugins.use(path)

    assert caught.value.code == code
    assert plugins.digests() == {}
    assert SHELF.names() == Shelf[object]("guard.detectors").names()
    assert "from_outside" not in SHELF.names()
    return caught.value.sentence


def test_a_file_is_on_the_shelf_and_looked_up_before_it_is_imported(tmp_path: Path) -> None:
    plugins.use(outside(tmp_path / "mine"))

    assert "from_outside" in SHELF.names()
    assert "guard_plugins.detectors.from_outside" not in sys.modules
    assert SHELF.get("from_outside").__name__ == "FromOutside"
    assert SHELF.get("from_outside") is SHELF.get("from_outside")
    assert "patch_inversion" in SHELF.names()


def test_the_package_has_no_plug_in_files_and_none_stay_when_the_folder_is_gone(
    tmp_path: Path,
) -> None:
    plugins.use(outside(tmp_path / "mine"))
    plugins.use(None)

    assert plugins.digests() == {}
    with pytest.raises(UnknownMethod):
        SHELF.get("from_outside")
    assert plugins.origin(SHELF.get("margin")) is None


@pytest.mark.threat("C19")
def test_each_file_is_known_by_its_digest(tmp_path: Path) -> None:
    plugins.use(outside(tmp_path / "mine"))
    found = plugins.origin(SHELF.get("from_outside"))

    assert plugins.digests() == {"detectors/from_outside.py": sha256(DETECTOR.encode())}
    assert found is not None
    assert found.digest == sha256(DETECTOR.encode())


@pytest.mark.row(20)
@pytest.mark.parametrize(
    ("line", "stated"),
    [("", "1.0"), ('CONTRACT = "1.0"', "1.0"), ('CONTRACT: Final = "1.0"', "1.0")],
)
def test_a_file_is_known_by_the_contract_that_it_is_written_for(
    tmp_path: Path, line: str, stated: str
) -> None:
    text = DETECTOR if not line else DETECTOR + f"\n{line}\n"
    plugins.use(folder(tmp_path / "mine", {"detectors/from_outside.py": text}))

    assert plugins.contracts() == {"detectors/from_outside.py": stated}


@pytest.mark.row(20)
@pytest.mark.parametrize(
    "stated", ['"2.0"', '"0.9"', '"1.1"', '"1"', '"1.0 "', "1.0", 'str("1.0")', "None"]
)
def test_a_file_for_another_contract_is_refused_before_it_runs(tmp_path: Path, stated: str) -> None:
    text = f"raise RuntimeError\nCONTRACT = {stated}\n"
    sentence = refused(
        folder(tmp_path / "mine", {"detectors/from_outside.py": text}), "plugin_contract"
    )
    assert "from_outside.py" in sentence
    assert plugins.contracts() == {}


def test_every_kind_of_plug_in_has_a_contract_that_its_own_files_may_state() -> None:
    assert set(CONTRACTS) == set(plugins.FOLDERS)
    for kind, number in CONTRACTS.items():
        assert contract_of(f"CONTRACT = '{number}'".encode(), kind, "f") == number
        assert contract_of(b"no python (", kind, "f") == number


@pytest.mark.threat("C19")
def test_what_runs_are_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    mine = outside(tmp_path / "mine")
    plugins.use(mine)
    (mine / "detectors/from_outside.py").write_text("raise RuntimeError")
    plugins.use(mine)

    assert SHELF.get("from_outside")
    assert plugins.digests() == {"detectors/from_outside.py": sha256(DETECTOR.encode())}


@pytest.mark.threat("C19")
@pytest.mark.parametrize("place", [".", "detectors", "detectors/from_outside.py"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_can_write_is_refused(tmp_path: Path, place: str, bit: int) -> None:
    mine = outside(tmp_path / "mine")
    (mine / place).chmod((mine / place).stat().st_mode | bit)

    assert str((mine / place).resolve()) in refused(mine, "plugins_unsafe")


def test_a_parent_that_others_can_write_is_refused_unless_it_is_like_tmp(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    mine = outside(parent / "mine")
    parent.chmod(0o777)
    sentence = refused(mine, "plugins_unsafe")
    parent.chmod(0o1777)
    plugins.use(mine)

    assert str(parent) in sentence
    assert "from_outside" in SHELF.names()


def test_a_sticky_folder_of_plug_ins_is_refused_since_others_could_add_files(
    tmp_path: Path,
) -> None:
    mine = outside(tmp_path / "mine")
    mine.chmod(0o1777)

    assert refused(mine, "plugins_unsafe")


@root_only
@pytest.mark.parametrize("place", [".", "detectors", "detectors/from_outside.py"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, place: str) -> None:
    mine = outside(tmp_path / "mine")
    os.chown(mine / place, 65534, 65534)

    assert "belongs to user id 65534" in refused(mine, "plugins_unsafe")


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    mine = outside(tmp_path / "mine")
    link = tmp_path / "link"
    link.symlink_to(mine)
    plugins.use(link)
    plugins.use(None)
    mine.chmod(0o777)

    assert refused(link, "plugins_unsafe")


def test_a_linked_file_in_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "code.py").write_text(DETECTOR)
    shared.chmod(0o777)
    mine = folder(tmp_path / "mine", {"detectors/other.py": ""})
    (mine / "detectors/from_outside.py").symlink_to(shared / "code.py")

    assert str(shared) in refused(mine, "plugins_unsafe")


def test_links_in_a_circle_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")

    assert refused(tmp_path / "a", "plugins_unsafe")
    assert refused(tmp_path / "nothing", "plugins_missing")


@pytest.mark.parametrize(
    "names",
    [
        ["detectors/margin.py"],
        ["detectors/foo_1.py", "detectors/foo1.py"],
        ["detectors/clean_accuracy.py"],
        ["architectures/preact_resnet18.py"],
    ],
)
def test_a_name_that_is_taken_is_refused(tmp_path: Path, names: list[str]) -> None:
    mine = folder(tmp_path / "mine", dict.fromkeys(names, DETECTOR))

    assert "clashes with" in refused(mine, "plugin_clash")


@pytest.mark.parametrize(
    "name", ["detector/from_outside.py", "detectors/FromOutside.py", "detectors/_base.py", "x.py"]
)
def test_what_would_be_passed_over_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(folder(tmp_path / "mine", {name: DETECTOR}), "plugin_misplaced")


def manifest(name: str) -> Manifest:
    return Manifest(
        architecture=name, num_classes=6, input_size=(1, 12, 12), mean=(0.5,), std=(0.5,)
    )


def test_an_architecture_from_outside_is_built_by_its_name(tmp_path: Path) -> None:
    text = NETWORK.replace("{name}", "OneLayer")
    plugins.use(folder(tmp_path / "mine", {"architectures/one_layer.py": text}))
    model = architectures.build(manifest("one_layer"))

    assert type(model).__name__ == "OneLayer"
    assert sum(weight.numel() for weight in model.parameters()) == 6 * (12 * 12 + 1)


def test_an_architecture_that_takes_a_name_of_timms_is_refused(tmp_path: Path) -> None:
    text = NETWORK.replace("{name}", "Resnet18")
    plugins.use(folder(tmp_path / "mine", {"architectures/resnet18.py": text}))

    with pytest.raises(ManifestRejected) as caught:
        architectures.build(manifest("resnet18"))
    assert caught.value.code == "architecture_clash"


def test_a_file_that_does_not_run_or_lacks_its_class_is_named(tmp_path: Path) -> None:
    mine = folder(
        tmp_path / "mine", {"detectors/broken.py": "1 / 0", "detectors/empty.py": "X = 1"}
    )
    plugins.use(mine)

    with pytest.raises(InputError, match="cannot be imported: ZeroDivisionError"):
        SHELF.get("broken")
    assert "guard_plugins.detectors.broken" not in sys.modules
    with pytest.raises(UnknownMethod, match="no class Empty"):
        SHELF.get("empty")
