"""What is published is signed for OpenSSF Model Signing, by a key that an act trusts."""

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from model_signing._cli import main as model_signing

from guard.core.errors import InputError, NotServable, Unavailable
from guard.core.roles import Role
from guard.flow import export, model_keys, served
from guard.publishers.folder import Folder
from guard.store import alarms
from guard.store.session import reading
from tests import people
from tests.flow.shop import Shop


@pytest.fixture
def scene(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def key(scene: Shop, *, trusted: bool) -> str:
    path = scene.guard.settings.model_signing_key_file
    key_id, _ = model_keys.make(path)
    if trusted:
        signer = people.who(scene.guard, "sig", Role.SIGNER)
        assert model_keys.trust(scene.guard, path, "for users", signer) == key_id
    return key_id


def verified(scene: Shop, folder: Path) -> int:
    public = scene.guard.settings.model_signing_key_file.with_suffix(".pub")
    options = ["--signature", str(folder / "model.sig"), "--public_key", str(public)]
    return CliRunner().invoke(model_signing, ["verify", "key", str(folder), *options]).exit_code


@pytest.mark.row(37)
def test_a_published_model_carries_a_signature_that_the_library_verifies(
    scene: Shop, tmp_path: Path
) -> None:
    key(scene, trusted=True)
    scene.serve("models/fraud/m.pt", 0, at=1)
    published = scene.served / "fraud" / "1.0"
    row = export.export(scene.guard, "fraud", tmp_path / "carried")

    assert verified(scene, published) == 0
    assert verified(scene, tmp_path / "carried") == 0
    assert [item.vetted for item in served.served(scene.guard)] == [True]
    assert sorted(one.name for one in (tmp_path / "carried").iterdir()) == [
        "config.json",
        "model.sig",
        "release.dsse.json",
        "weights.safetensors",
    ]
    assert row.name == "fraud"
    (published / "config.json").chmod(0o644)
    (published / "config.json").write_text("{}")
    assert verified(scene, published) == 1


def test_without_a_key_nothing_is_signed_and_nothing_complains(scene: Shop, tmp_path: Path) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    export.export(scene.guard, "fraud", tmp_path / "carried")

    assert not (scene.served / "fraud" / "1.0" / "model.sig").exists()
    assert not (tmp_path / "carried" / "model.sig").exists()
    with reading(scene.guard.engine) as session:
        assert alarms.open_alarms(session) == []


def test_a_key_that_is_not_trusted_signs_nothing_and_raises_an_alarm_until_it_is(
    scene: Shop,
) -> None:
    key_id = key(scene, trusted=False)
    scene.serve("models/fraud/m.pt", 0, at=1)
    with reading(scene.guard.engine) as session:
        (alarm,) = alarms.open_alarms(session)
    signature = scene.served / "fraud" / "1.0" / "model.sig"

    assert (alarm.kind, key_id[:16] in alarm.detail) == (model_keys.ALARM, True)
    assert not signature.exists()

    signer = people.who(scene.guard, "sig", Role.SIGNER)
    model_keys.trust(scene.guard, scene.guard.settings.model_signing_key_file, "now", signer)
    scene.serve("models/fraud/m.pt", 2, at=2)
    with reading(scene.guard.engine) as session:
        assert alarms.open_alarms(session) == []
    assert list((scene.served / "fraud").glob("*/model.sig"))


def test_a_key_that_cannot_be_used_raises_an_alarm(scene: Shop) -> None:
    scene.guard.settings.model_signing_key_file.write_bytes(b"no key")
    scene.guard.settings.model_signing_key_file.chmod(0o600)
    scene.serve("models/fraud/m.pt", 0, at=1)

    with reading(scene.guard.engine) as session:
        assert [one.kind for one in alarms.open_alarms(session)] == [model_keys.ALARM]


def test_only_what_the_gate_passes_now_is_carried_into_a_new_folder(
    scene: Shop, tmp_path: Path
) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")

    for name, folder in (("nothing", tmp_path / "new"), ("fraud", tmp_path / "full")):
        with pytest.raises(InputError):
            export.export(scene.guard, name, folder)
    scene.clock += timedelta(days=400)
    with pytest.raises(NotServable):
        export.export(scene.guard, "fraud", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_signature_that_cannot_be_written_is_tried_again_later(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "published")

    with pytest.raises(Unavailable):
        folder.attach("digits", "1.0", b"{}")
