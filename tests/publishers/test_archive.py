"""The archive: what is in it, always the same bytes, and which file is whose."""

import json
import os
import time
import zipfile
from pathlib import Path

import pytest

from guard.core.errors import IntegrityMismatch
from guard.publishers._archive import (
    is_ours,
    names_in,
    payload_of,
    release_in,
    same_release,
    write_archive,
)
from guard.publishers._weights import Hashes
from tests.publishers.making import Authority, Vetted, flip, vetted


@pytest.mark.threat("A07")
def test_the_archive_holds_three_files_of_data_and_no_code(
    tmp_path: Path, model: Vetted, authority: Authority
) -> None:
    with model.open() as weights:
        archive = write_archive(authority.approve(model.digest, "digits"), weights, tmp_path)
    with zipfile.ZipFile(tmp_path / archive.file) as file:
        members = {name: file.read(name) for name in file.namelist()}

    assert sorted(members) == ["MAR-INF/MANIFEST.json", "release.dsse.json", "weights.safetensors"]
    assert members["weights.safetensors"] == model.path.read_bytes()
    assert json.loads(members["MAR-INF/MANIFEST.json"])["model"] == {
        "modelName": "digits",
        "modelVersion": "1.0",
        "handler": "guard.serving.handler",
    }


def test_the_same_release_gives_the_same_read_only_bytes_an_hour_later(
    tmp_path: Path, model: Vetted, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved = authority.approve(model.digest, "digits")
    written = []
    for store, hours in (("a", 0), ("b", 1)):
        (tmp_path / store).mkdir()
        now = time.time() + 3600 * hours
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with model.open() as weights:
            archive = write_archive(approved, weights, tmp_path / store)
        written.append((archive, (tmp_path / store / archive.file).read_bytes()))

    assert written[0] == written[1]
    assert archive.file == f"digits-1.0-{archive.digest[:16]}.mar"
    assert (tmp_path / "a" / archive.file).stat().st_mode & 0o777 == 0o444


def test_weights_of_another_digest_leave_the_store_empty(
    tmp_path: Path, authority: Authority
) -> None:
    one, other = vetted(tmp_path, seed=1), vetted(tmp_path, seed=2)
    store = tmp_path / "store"
    store.mkdir()
    with other.open() as weights, pytest.raises(IntegrityMismatch):
        write_archive(authority.approve(one.digest, "digits"), weights, store)

    assert list(store.iterdir()) == []


def test_an_archive_tells_its_name_and_release(
    tmp_path: Path, model: Vetted, authority: Authority
) -> None:
    approved = authority.approve(model.digest, "digits", "2.0")
    with model.open() as weights:
        file = tmp_path / write_archive(approved, weights, tmp_path).file

    assert names_in(file) == ("digits", "2.0")
    assert same_release(release_in(file), payload_of(approved.release_envelope))
    assert is_ours(file.name, "digits", "2.0")
    assert not is_ours(file.name, "digits", "1.0")
    assert not is_ours(f"{tmp_path}/{file.name}", "digits", "2.0")


def test_files_that_are_no_archives_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.mar").write_bytes(b"PK\x03\x04 not really")

    assert names_in(tmp_path / "x.mar") is None
    assert release_in(tmp_path / "none.mar") is None
    assert not same_release(None, None)


def test_a_release_that_lasts_longer_is_another_one(model: Vetted, authority: Authority) -> None:
    verdict = authority.envelope(model.digest, "digits", seconds=100)
    again = [
        payload_of(authority.approve(model.digest, "digits", envelope=verdict).release_envelope)
        for _ in range(2)
    ]
    longer = payload_of(authority.approve(model.digest, "digits", seconds=200).release_envelope)

    assert same_release(*again)
    assert not same_release(again[0], longer)


def test_a_flipped_byte_changes_the_hash_though_size_and_mtime_are_put_back(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"0" * 100)
    facts = file.stat()
    hashes = Hashes()
    before = hashes.of(file)
    flip(file)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert hashes.of(file) != before


@pytest.mark.threat("C07")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        Hashes().of(tmp_path / "link")
