"""The folder publisher: what a site without the guard finds, and what is told of changes.

Promises: tests/contract.
"""

import json
from pathlib import Path

import pytest

from guard.core.errors import IntegrityMismatch
from guard.publishers.folder import Folder
from tests.publishers.making import Authority, Vetted


def test_a_folder_holds_what_a_site_without_the_guard_needs(
    tmp_path: Path, model: Vetted, authority: Authority
) -> None:
    with model.open() as weights:
        Folder(tmp_path / "out").publish(
            authority.approve(model.digest, "digits"), weights, model.smoke
        )
    home = tmp_path / "out" / "digits"

    assert (home / "default").read_text() == "1.0"
    assert sorted(path.name for path in (home / "1.0").iterdir()) == [
        "config.json",
        "release.dsse.json",
        "weights.safetensors",
    ]
    assert json.loads((home / "1.0" / "config.json").read_text()) == model.manifest.to_dict()


@pytest.mark.parametrize("change", ["extra", "config", "release", "missing"])
def test_a_folder_tells_whatever_was_changed_in_it(
    tmp_path: Path, model: Vetted, authority: Authority, change: str
) -> None:
    publisher = Folder(tmp_path / "out")
    with model.open() as weights:
        publisher.publish(authority.approve(model.digest, "digits"), weights, model.smoke)
    version = tmp_path / "out" / "digits" / "1.0"
    target = {
        "extra": "load.py",
        "config": "config.json",
        "release": "release.dsse.json",
        "missing": "weights.safetensors",
    }[change]
    (version / target).unlink(missing_ok=True)
    if change != "missing":
        (version / target).write_text("{}")
    (found,) = publisher.state()

    assert found.detail["problem"]
    assert found.digest is None


def test_a_stray_file_is_listed_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "stray").write_text("x")
    publisher = Folder(tmp_path)
    (found,) = publisher.state()
    publisher.withdraw(found.name, found.version)

    assert (found.name, found.version, found.digest) == ("stray", "", None)
    assert publisher.state() == []


@pytest.mark.parametrize(("name", "version"), [("..", "x"), ("a", ".."), ("a/b", "1"), ("", "1")])
def test_a_folder_deletes_nothing_outside_itself(tmp_path: Path, name: str, version: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "x").write_text("keep")
    with pytest.raises(IntegrityMismatch):
        Folder(tmp_path / "root").withdraw(name, version)

    assert (tmp_path / "x").read_text() == "keep"


def test_a_publish_that_was_killed_leaves_a_draft_that_the_next_one_removes(
    tmp_path: Path, model: Vetted, authority: Authority
) -> None:
    root = tmp_path / "out"
    (root / ".incoming-dead").mkdir(parents=True)
    (root / ".incoming-dead" / "weights.safetensors").write_bytes(b"half")
    publisher = Folder(root)

    assert publisher.state() == []
    with model.open() as weights:
        publisher.publish(authority.approve(model.digest, "digits"), weights, model.smoke)
    assert [path.name for path in root.iterdir()] == ["digits"]


def test_a_release_that_no_trusted_key_signed_is_told(
    tmp_path: Path, model: Vetted, authority: Authority
) -> None:
    stranger = Authority(tmp_path / "stranger" / "trusted.json")
    with model.open() as weights:
        Folder(tmp_path / "out").publish(
            stranger.approve(model.digest, "digits"), weights, model.smoke
        )
    (found,) = Folder(tmp_path / "out", authority.trusted).state()

    assert found.digest is None
    assert "not signed by a trusted key" in found.detail["problem"]
