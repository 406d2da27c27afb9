"""Model signatures: the command line of OpenSSF's own library verifies what the guard writes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing._cli import main as model_signing

from guard.attest.keys import Signer
from guard.attest.model_signing import ModelSigner, is_model_key
from guard.core.digests import sha256
from guard.core.errors import InputError

FILES = {"weights.safetensors": b"weights", "config.json": b"{}", "a-b/c.json": b"1"}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> ModelSigner:
    return ModelSigner.make(tmp_path_factory.mktemp("keys") / "ec.pem")


def written(signer: ModelSigner, folder: Path) -> Path:
    """A model's files with their signature, and the public key beside the folder."""
    for name, data in FILES.items():
        (folder / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "model" / name).write_bytes(data)
    bundle = signer.bundle("digits", {name: sha256(data) for name, data in FILES.items()})
    (folder / "model" / "model.sig").write_text(json.dumps(bundle))
    (folder / "key.pub").write_bytes(signer.public_pem)
    return folder / "model"


def verified(model: Path) -> int:
    """The exit code of `model_signing verify key`."""
    signature, key = str(model / "model.sig"), str(model.parent / "key.pub")
    options = ["--signature", signature, "--public_key", key]
    return CliRunner().invoke(model_signing, ["verify", "key", str(model), *options]).exit_code


@pytest.mark.row(37)
def test_the_library_s_command_line_verifies_the_files(signer: ModelSigner, tmp_path: Path) -> None:
    assert verified(written(signer, tmp_path)) == 0


@pytest.mark.parametrize("change", ["bytes", "extra", "missing", "key", "signature"])
def test_the_library_s_command_line_refuses_any_change(
    signer: ModelSigner, tmp_path: Path, change: str
) -> None:
    model = written(signer, tmp_path)
    if change == "bytes":
        (model / "config.json").write_bytes(b"[]")
    elif change == "extra":
        (model / "sitecustomize.py").write_bytes(b"")
    elif change == "missing":
        (model / "config.json").unlink()
    elif change == "key":
        other = ModelSigner.make(tmp_path / "other.pem")
        (tmp_path / "key.pub").write_bytes(other.public_pem)
    else:
        bundle = json.loads((model / "model.sig").read_text())
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = signer.bundle("digits", {})[
            "dsseEnvelope"
        ]["signatures"][0]["sig"]
        (model / "model.sig").write_text(json.dumps(bundle))

    assert verified(model) != 0


def test_a_key_is_private_named_by_its_public_key_and_of_one_curve(tmp_path: Path) -> None:
    path = tmp_path / "ec.pem"
    signer = ModelSigner.make(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert signer.key_id == sha256(signer.public_pem) == ModelSigner.load(path).key_id
    assert repr(signer) == f"ModelSigner(key_id={signer.key_id!r})"
    assert is_model_key(path)
    path.chmod(0o644)
    with pytest.raises(InputError):
        ModelSigner.load(path)


def test_other_keys_and_other_curves_sign_no_model(tmp_path: Path) -> None:
    Signer.load_or_create(tmp_path / "ed.pem")
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for name, data in (("p384.pem", pem), ("text.pem", b"no key")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)

    for name in ("ed.pem", "p384.pem", "text.pem"):
        with pytest.raises(InputError):
            ModelSigner.load(tmp_path / name)
    assert not is_model_key(tmp_path / "ed.pem")
    assert not is_model_key(tmp_path / "text.pem")
