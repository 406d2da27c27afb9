"""A folder of blobs keeps its promises on a real file system."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guard.blobs import BlobMissing, FolderBlobs, open_blobs
from guard.blobs.folder import ABANDONED_SECONDS
from guard.core.errors import InputError, IntegrityMismatch, Unavailable

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def left(blobs: FolderBlobs) -> list[str]:
    return sorted(path.name for path in blobs.root.rglob("*") if path.is_file())


def test_a_stream_is_known_by_its_digest_and_read_back(blobs: FolderBlobs) -> None:
    stored = blobs.put(iter([DATA[:10], b"", DATA[10:]]))

    assert (DIGEST, len(DATA)) == stored
    assert blobs.open(DIGEST).read() == DATA
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert left(blobs) == [DIGEST]


def test_the_same_bytes_twice_are_one_blob(blobs: FolderBlobs) -> None:
    assert blobs.put_bytes(DATA) == blobs.put_bytes(DATA)
    assert left(blobs) == [DIGEST]


def test_a_blob_is_read_only_and_its_folder_private(blobs: FolderBlobs) -> None:
    blobs.put_bytes(DATA)

    assert stat.S_IMODE(blobs.path(DIGEST).stat().st_mode) == 0o444
    assert stat.S_IMODE(blobs.root.stat().st_mode) == 0o700


def test_changed_bytes_are_never_handed_out(blobs: FolderBlobs) -> None:
    blobs.put_bytes(DATA)
    place = blobs.path(DIGEST)
    place.chmod(0o600)
    place.write_bytes(DATA[:-1] + b"X")

    with pytest.raises(IntegrityMismatch, match="have the SHA-256"):
        blobs.open(DIGEST)
    with pytest.raises(IntegrityMismatch):
        blobs.path(DIGEST)


def test_storing_the_right_bytes_again_heals_a_rotten_blob(blobs: FolderBlobs) -> None:
    blobs.put_bytes(DATA)
    place = blobs.path(DIGEST)
    place.chmod(0o600)
    place.write_bytes(b"rot")

    blobs.put_bytes(DATA)

    assert blobs.open(DIGEST).read() == DATA


def test_the_handle_reads_what_was_verified_even_if_the_file_is_replaced_meanwhile(
    blobs: FolderBlobs,
) -> None:
    blobs.put_bytes(DATA)
    file = blobs.open(DIGEST)
    other = blobs.root / "other"
    other.write_bytes(b"evil")
    other.replace(blobs.place(DIGEST))

    assert file.read() == DATA


@pytest.mark.threat("C07")
def test_a_link_in_the_store_is_refused(blobs: FolderBlobs, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(DATA)
    blobs.place(DIGEST).parent.mkdir()
    blobs.place(DIGEST).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(IntegrityMismatch, match="is a link"):
        blobs.open(DIGEST)


def test_a_folder_in_place_of_a_blob_is_refused(blobs: FolderBlobs) -> None:
    blobs.place(DIGEST).mkdir(parents=True)

    with pytest.raises(IntegrityMismatch, match="not a plain file"):
        blobs.open(DIGEST)


def test_a_missing_blob_says_so(blobs: FolderBlobs) -> None:
    assert not blobs.has(DIGEST)
    with pytest.raises(BlobMissing, match="not in the store"):
        blobs.open(DIGEST)


def test_deleting_twice_is_harmless(blobs: FolderBlobs) -> None:
    blobs.put_bytes(DATA)
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)

    assert not blobs.has(DIGEST)


@pytest.mark.threat("A19")
@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "\n", "a" * 63 + "/"]
)
def test_what_is_no_digest_never_becomes_a_path(blobs: FolderBlobs, name: str) -> None:
    for call in (blobs.open, blobs.path, blobs.has, blobs.delete):
        with pytest.raises(InputError, match="not a SHA-256"):
            call(name)


def test_a_stream_that_breaks_leaves_nothing_behind(blobs: FolderBlobs) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA
        raise Unavailable("gone")

    with pytest.raises(Unavailable, match="gone"):
        blobs.put(broken())
    assert left(blobs) == []


# The kernel's own limit on file size stands in for a full disk: the write really fails half way.
FULL = """
import json, resource, sys
from pathlib import Path
from guard.blobs import FolderBlobs
from guard.core.errors import Unavailable
blobs = FolderBlobs(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    blobs.put(bytes(1 << 18) for _ in range(16))
except Unavailable as error:
    print(json.dumps([error.code, error.sentence]))
"""


def test_a_full_disk_is_told_and_leaves_nothing_behind(blobs: FolderBlobs) -> None:
    blobs.put_bytes(DATA)

    done = subprocess.run(
        [sys.executable, "-c", FULL, str(blobs.root)], capture_output=True, check=True, text=True
    )

    code, sentence = json.loads(done.stdout)
    assert code == "disk_full"
    assert "free some space" in sentence
    assert left(blobs) == [DIGEST]


KILLED = """
import os, signal, sys
from pathlib import Path
from guard.blobs import FolderBlobs
def chunks():
    yield b"x" * 1000
    os.kill(os.getpid(), signal.SIGKILL)
FolderBlobs(Path(sys.argv[1])).put(chunks())
"""


def test_what_a_killed_writer_left_is_no_blob_and_is_cleaned_up_by_the_next_one(
    blobs: FolderBlobs,
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(blobs.root)], check=False)
    assert done.returncode < 0
    (leftover,) = left(blobs)
    assert leftover.startswith(".incoming-")

    FolderBlobs(blobs.root)
    assert [leftover] == left(blobs)  # it may belong to a process that still writes

    past = time.time() - ABANDONED_SECONDS - 1
    os.utime(blobs.root / leftover, (past, past))
    blobs.put_bytes(b"another")
    assert [name for name in left(blobs) if name.startswith(".")] == []


def test_what_is_being_written_is_never_taken_for_abandoned(blobs: FolderBlobs) -> None:
    def slow() -> Iterator[bytes]:
        yield DATA
        (mine,) = blobs.root.glob(".incoming-*")
        os.utime(mine, (0, 0))
        FolderBlobs(blobs.root).put_bytes(b"another")

    assert blobs.put(slow())[0] == DIGEST


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(Unavailable, match="cannot be used"):
        FolderBlobs(tmp_path / "file" / "blobs")


def test_urls_name_folders(tmp_path: Path) -> None:
    for url in (str(tmp_path / "a"), f"file://{tmp_path}/a"):
        store = open_blobs(url)
        store.put_bytes(DATA)
        assert (tmp_path / "a" / DIGEST[:2] / DIGEST).is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("ftp://host/x", "not under ftp"),
        ("s3://bucket/x", "need"),
        ("s3://", "need"),
    ],
)
def test_other_urls_are_refused(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_blobs(url)
