"""The publisher that the service uses is the one that the settings name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guard.bootstrap import open_guard
from guard.core import plugins
from guard.core.errors import InputError
from guard.core.states import ScanState
from guard.flow import run_stage
from guard.publishers.folder import Folder
from guard.publishers.torchserve import Torchserve
from guard.settings import load_settings
from tests.flow.place import Place, finding
from tests.plug_ins import folder

SHELL = '''
"""It serves nothing and remembers that it was asked."""

from guard.core.contracts import Publisher


class Mirror(Publisher):
    """An example that takes no settings."""

    def publish(self, approved, weights, smoke):
        """Refuse."""
        raise NotImplementedError

    def withdraw(self, name, version):
        """Nothing is there."""

    def state(self):
        """Nothing is there."""
        return []
'''


@pytest.fixture(autouse=True)
def without_plug_ins() -> Iterator[None]:
    yield
    plugins.use(None)


def test_without_a_setting_it_is_torchserve(tmp_path: Path) -> None:
    guard = open_guard(load_settings({"GUARD_DATA_DIR": str(tmp_path)}))

    assert isinstance(guard.publisher, Torchserve)


def test_a_cleared_model_is_published_into_the_folder_of_the_settings(tmp_path: Path) -> None:
    env = {"GUARD_PUBLISHER": "folder", "GUARD_PUBLISHED_DIR": str(tmp_path / "to carry")}
    place = Place(tmp_path, env)
    named = open_guard(place.guard.settings).make_publisher
    place.guard = replace(place.guard, make_publisher=named)
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    place.with_evidence(scan_id, finding(suspicious=False))
    assert run_stage.work(place.guard, "decide", scan_id)

    assert run_stage.work(place.guard, "publish", scan_id)

    assert isinstance(place.guard.publisher, Folder)
    assert place.scan(scan_id).state is ScanState.DONE
    (served,) = place.guard.publisher.state()
    assert (served.name, served.ready, served.default) == ("model", True, True)
    assert (tmp_path / "to carry" / "model" / served.version / "weights.safetensors").is_file()


def test_a_plug_in_from_outside_can_be_named(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", {"publishers/mirror.py": SHELL})
    env = {"GUARD_DATA_DIR": str(tmp_path), "GUARD_PLUGINS": str(mine)}

    guard = open_guard(load_settings({**env, "GUARD_PUBLISHER": "mirror"}))

    assert type(guard.publisher).__name__ == "Mirror"
    assert guard.publisher.state() == []


def test_a_name_that_nobody_has_is_refused_when_the_guard_opens(tmp_path: Path) -> None:
    env = {"GUARD_DATA_DIR": str(tmp_path / "new"), "GUARD_PUBLISHER": "triton"}

    with pytest.raises(InputError, match="there are folder, open_inference, torchserve"):
        open_guard(load_settings(env))

    assert not (tmp_path / "new").exists()
