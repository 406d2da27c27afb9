"""Models in the Hugging Face cache: pinned to a commit, and nothing outside the model's folder."""

import hashlib
from pathlib import Path

import pytest

from guard.core.errors import GuardError, InputError, IntegrityMismatch
from guard.vetting.hub_cache import find

COMMIT, OTHER = "a" * 40, "b" * 40
DATA = b"weights"


class Cache:
    """A cache as `hf download` leaves it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "models--org--net"
        for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
            (self.home / folder).mkdir(parents=True)
        (self.home / "refs" / "main").write_text(COMMIT)
        self.snapshot = self.home / "snapshots" / COMMIT
        self.add("model.safetensors", DATA, hashlib.sha256(DATA).hexdigest())
        self.add("config.json", b"{}", "0" * 40)

    def add(self, name: str, data: bytes, etag: str) -> Path:
        blob = self.home / "blobs" / etag
        blob.write_bytes(data)
        (self.snapshot / name).symlink_to(Path("../../blobs") / etag)
        return blob


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


def code(cache: Cache, reference: str) -> str:
    with pytest.raises(GuardError) as caught:
        find(reference, cache.root)
    return caught.value.code


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}", "@refs-of/pr-1"])
def test_a_revision_is_pinned_to_its_commit(cache: Cache, revision: str) -> None:
    (cache.home / "refs" / "refs-of").mkdir()
    (cache.home / "refs" / "refs-of" / "pr-1").write_text(COMMIT + "\n")
    found = find(f"hf://org/net{revision}", cache.root)

    assert (found.name, found.folder) == ("org/net", cache.snapshot)
    assert found.source == f"hf://org/net@{COMMIT}"


def test_a_model_without_an_organisation_and_files_without_links_are_found(cache: Cache) -> None:
    cache.home.rename(cache.root / "models--net")
    snapshot = cache.root / "models--net" / "snapshots" / COMMIT
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).unlink()
        (snapshot / name).write_bytes(b"{}")

    assert find("hf://net", cache.root).name == "net"


@pytest.mark.parametrize(
    "reference",
    ["hf://", "hf://a/b/c", "hf://../x", "hf://org/..", "hf://org--net", "hf://org/net@../x",
     "hf://org/net@", "hf:///etc", "hf://org/net@/etc"],
)  # fmt: skip
def test_a_reference_that_names_no_model_is_refused(cache: Cache, reference: str) -> None:
    assert code(cache, reference) == "hub_reference"


@pytest.mark.parametrize(
    "reference", ["hf://org/none", "hf://org/net@dev", f"hf://org/net@{OTHER}"]
)
def test_what_the_cache_does_not_hold_is_never_fetched(cache: Cache, reference: str) -> None:
    assert code(cache, reference) == "hub_missing"


def test_a_ref_that_is_no_commit_is_refused(cache: Cache) -> None:
    (cache.home / "refs" / "main").write_text("../../../../etc")

    assert code(cache, "hf://org/net") == "hub_missing"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../outside", "../../blobs/none", "."])
def test_a_link_that_leads_out_of_the_blobs_is_refused(cache: Cache, target: str) -> None:
    (cache.root / "outside").write_bytes(b"x")
    (cache.snapshot / "extra.json").symlink_to(target)

    assert code(cache, "hf://org/net") == "hub_outside"


def test_a_snapshot_or_a_ref_that_is_a_link_elsewhere_is_refused(cache: Cache) -> None:
    elsewhere = cache.root / "elsewhere"
    cache.snapshot.rename(elsewhere)
    cache.snapshot.symlink_to(elsewhere)
    assert code(cache, "hf://org/net") == "hub_missing"

    (cache.home / "refs" / "main").unlink()
    (cache.root / "commit").write_text(COMMIT)
    (cache.home / "refs" / "main").symlink_to(cache.root / "commit")
    assert code(cache, "hf://org/net") == "hub_outside"


def test_bytes_that_are_not_those_of_their_name_are_a_mismatch(cache: Cache) -> None:
    (cache.home / "blobs" / hashlib.sha256(DATA).hexdigest()).write_bytes(b"other")

    with pytest.raises(IntegrityMismatch, match="download the model again"):
        find("hf://org/net", cache.root)


def test_shards_are_hashed_as_well(cache: Cache) -> None:
    (cache.snapshot / "model.safetensors").unlink()
    cache.add("model.safetensors.index.json", b"{}", "1" * 40)
    cache.add("model-00001-of-00002.safetensors", b"one", hashlib.sha256(b"one").hexdigest())
    blob = cache.add("model-00002-of-00002.safetensors", b"two", hashlib.sha256(b"two").hexdigest())
    assert find("hf://org/net", cache.root).source

    blob.write_bytes(b"2")
    assert code(cache, "hf://org/net") == "hub_blob"


def test_too_many_entries_are_not_followed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.vetting.hub_cache.MAX_ENTRIES", 1)

    with pytest.raises(InputError, match="over 1 entries"):
        find("hf://org/net", cache.root)
