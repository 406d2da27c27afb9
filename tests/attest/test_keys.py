"""Keys on disk: private ones stay private, public ones are what they say."""

import json
import os
import pickle
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from guard.attest.keys import Signer, TrustedKeys
from guard.core.digests import sha256
from guard.core.errors import InputError


def test_a_new_key_is_private_whatever_the_umask_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    old = os.umask(0)
    try:
        first = Signer.load_or_create(path)
    finally:
        os.umask(old)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Signer.load_or_create(path).key_id == first.key_id
    assert [file.name for file in path.parent.iterdir()] == ["signing.pem"]


def test_several_processes_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    start, found = threading.Barrier(6), []

    def load() -> None:
        start.wait()
        found.append(Signer.load_or_create(tmp_path / "signing.pem").key_id)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 6
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.pem"
    Signer.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(InputError) as refusal:
        Signer.load_or_create(path)

    assert refusal.value.code == "key_mode"


def test_another_kind_of_key_or_no_key_at_all_is_refused(tmp_path: Path) -> None:
    curve = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for number, data in enumerate(
        (curve, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    ):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(InputError) as refusal:
            Signer.load_or_create(path)

        assert refusal.value.code == "bad_key"


def test_a_folder_where_a_file_should_be_is_our_own_error(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    for path in (tmp_path, tmp_path / "blocked" / "signing.pem"):
        with pytest.raises(InputError):
            Signer.load_or_create(path)
    with pytest.raises(InputError):
        TrustedKeys.load(tmp_path)


def test_the_private_key_is_in_no_repr_and_in_no_pickle(signer: Signer) -> None:
    assert repr(signer) == f"Signer(key_id={signer.key_id!r})"
    with pytest.raises(TypeError):
        pickle.dumps(signer)


def test_a_key_id_is_the_hash_of_the_public_key(signer: Signer) -> None:
    assert signer.key_id == sha256(signer.public)
    assert len(signer.public) == 32


def test_trust_is_added_to_and_kept(tmp_path: Path, signer: Signer) -> None:
    path, other = tmp_path / "trust" / "trusted.json", Signer.load_or_create(tmp_path / "other.pem")
    old = os.umask(0o077)  # the serving host's user must be able to read it all the same
    try:
        for one in (signer, other, other):
            TrustedKeys.load(path).trust(one, path)
    finally:
        os.umask(old)

    assert TrustedKeys.load(path).keys == {one.key_id: one.public for one in (signer, other)}
    assert [file.name for file in path.parent.iterdir()] == ["trusted.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_list_that_is_not_there_trusts_nobody(tmp_path: Path) -> None:
    assert TrustedKeys.load(tmp_path / "none.json").keys == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys": 1}',
        '{"keys": [{}]}',
        '{"keys": ["x"]}',
        '{"keys": [{"key_id": "x", "public": "zz"}]}',
        "\udc00",
    ],
)
def test_a_malformed_list_is_refused_not_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trusted.json"
    path.write_bytes(text.encode(errors="surrogateescape") if "\udc00" not in text else b"\xff\xfe")
    with pytest.raises(InputError) as refusal:
        TrustedKeys.load(path)

    assert refusal.value.code == "bad_trust"


def test_a_key_under_another_keys_id_is_refused(tmp_path: Path, signer: Signer) -> None:
    path, other = tmp_path / "trusted.json", Signer.load_or_create(tmp_path / "other.pem")
    path.write_text(json.dumps({"keys": [{"key_id": signer.key_id, "public": other.public.hex()}]}))
    with pytest.raises(InputError, match="not the id"):
        TrustedKeys.load(path)


def test_a_list_that_others_may_write_is_refused(tmp_path: Path, signer: Signer) -> None:
    path = tmp_path / "trusted.json"
    TrustedKeys.load(path).trust(signer, path)
    path.chmod(0o666)
    with pytest.raises(InputError) as refusal:
        TrustedKeys.load(path)

    assert refusal.value.code == "key_mode"


def test_only_the_key_that_signed_verifies(
    signer: Signer, trusted: TrustedKeys, tmp_path: Path
) -> None:
    other = Signer.load_or_create(tmp_path / "other.pem")
    signature = signer.sign(b"data")

    assert trusted.verify(signer.key_id, signature, b"data")
    assert not trusted.verify(signer.key_id, signature, b"date")
    assert not trusted.verify(other.key_id, other.sign(b"data"), b"data")
    assert not trusted.verify(signer.key_id, other.sign(b"data"), b"data")
    for bad in (b"", signature[:-1], signature + b"0", bytes(64)):
        assert not trusted.verify(signer.key_id, bad, b"data")
