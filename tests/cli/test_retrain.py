"""`guard retrain`: a network is trained anew on what a sift leaves, and killed it goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import guard
from guard import offline_retrain
from guard.cli import retrain as command
from guard.cli._stopping import stoppable
from guard.core.errors import Cancelled, InputError
from guard.core.progress import Progress
from guard.offline_retrain import state_folder
from guard.vetting.retrain_state import RetrainState
from tests.cli import models, sets
from tests.cli.conftest import Answer
from tests.house.sources import ROOT
from tests.schemas import faults

Cli = Callable[..., Answer]


@dataclass
class Place:
    """A backdoored model, what taught it, and a clean set."""

    folder: Path
    model: Path
    taught: Path
    clean: Path

    @property
    def out(self) -> Path:
        return self.folder / "new"

    def args(self, *more: object, out: Path | None = None, method: str = "sifted") -> list[object]:
        """A command line that retrains in a few seconds."""
        fast = [("--set", f"{name}={value}") for name, value in sets.EPOCHS.items()]
        return [
            *("retrain", self.taught, "--like", self.model, "--method", method),
            *("--cleanset", self.clean, "--out", out or self.out, "--policy", models.QUICK),
            *(word for pair in fast for word in pair),
            *more,
        ]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sifts that take a second, and one thread: how many there are decides the last bits."""
    monkeypatch.setattr(offline_retrain, "DEFAULT_METHODS", sets.QUICK)
    before = torch.get_num_threads()
    torch.set_num_threads(sets.THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        tmp_path,
        models.saved(tmp_path / "bad", backdoored=True),
        sets.training_set(tmp_path / "bad.npz", poisoned=True),
        models.clean_set(tmp_path / "clean.npz"),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def interrupting(share: float) -> Callable[[str], object]:
    """In place of `watched`: somebody presses Ctrl-C once the work is `share` done."""

    @contextmanager
    def watched(_task: str) -> Iterator[Progress]:
        pressed = False

        def progress(done: float, note: str = "") -> None:
            nonlocal pressed
            if done >= share and not pressed:
                pressed = True
                os.kill(os.getpid(), signal.SIGINT)

        yield progress

    return watched


def test_a_network_without_the_backdoor_is_written_vetted_and_described(
    cli: Cli, place: Place
) -> None:
    answer = cli(*place.args("--format", "json"))
    report = json.loads(answer.out)
    facts = report["retraining"]

    assert (answer.code, report["verdict"]) == (0, "cleared"), answer.err
    assert faults("report.schema.json", report) == []
    assert facts["method"] == "sifted"
    assert facts["images"] == 900 + sets.POISON
    assert facts["suspects"] + facts["proof"] > 0.9 * sets.POISON
    assert facts["numbers"]["images"] == facts["images"] - facts["suspects"] - facts["proof"]
    assert facts["acc_before"]["overall"] > 0.8
    assert facts["acc_after"]["overall"] > 0.8
    (tried,) = facts["on_proof"]
    assert tried["before"]["estimate"] > 0.8
    assert tried["after"]["high"] < 0.15
    others = models.unseen(300)
    others = others.pick(others.labels != models.TARGET)
    assert models.success(place.out, models.stamped(others.images)) <= 0.10
    assert guard.load_model(place.out).manifest == models.MODEL
    assert not state_folder(place.out).exists()


def test_killed_it_goes_on_to_the_same_bytes(cli: Cli, place: Place) -> None:
    assert cli(*place.args(out=place.folder / "whole")).code == 0
    killed = subprocess.run(
        [
            *(sys.executable, "-m", "tests.cli.killed", place.taught, place.model, place.clean),
            *(models.QUICK, place.out, "0.6"),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert not place.out.exists()
    assert sorted(path.suffix for path in state_folder(place.out).iterdir() if path.suffix) == [
        ".json",
        ".safetensors",
    ]

    assert cli(*place.args("--resume")).code == 0
    assert weights(place.out) == weights(place.folder / "whole")


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(
    cli: Cli, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(command, "watched", interrupting(0.5))
        stopped = cli(*place.args())
    assert stopped.code == 130
    assert "the same command with --resume goes on" in stopped.err
    assert not place.out.exists()

    again = cli(*place.args())
    assert again.code == 4
    assert "go on with --resume" in again.err
    other = cli(*place.args("--resume", "--seed", 1))
    assert other.code == 4
    assert "another model, set, method, parameter, seed" in other.err

    file = state_folder(place.out) / "sift.json"
    kept = file.read_text()
    file.write_text(kept.replace("dirty-label", "clean-label"))
    assert cli(*place.args("--resume")).code == 6
    file.write_text(kept)
    assert cli(*place.args("--resume", "--format", "html")).code == 0
    assert "Trained anew by sifted" in (place.out / "report.html").read_text()


def test_ctrl_c_before_the_training_leaves_nothing(
    cli: Cli, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "watched", interrupting(0.1))
    answer = cli(*place.args())

    assert answer.code == 130
    assert "nothing is kept" in answer.err
    assert not state_folder(place.out).exists()


def test_a_second_ctrl_c_stops_at_once() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with stoppable(lambda done, note="": None) as progress:
        progress(0.1)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Cancelled):
            progress(0.2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is handler


def test_the_trap_is_reported_beside_its_control(place: Place) -> None:
    report = guard.retrain(
        place.taught,
        like=place.model,
        method="trap_and_replace",
        cleanset=place.clean,
        out=place.out,
        params={"epochs": 2, "replace_epochs": 4},
        policy=models.QUICK,
        sifters=sets.QUICK,
    )

    assert report.retraining is not None
    assert {"psnr", "accuracy", "control_accuracy"} <= set(report.retraining.numbers)
    assert (place.out / "config.json").is_file()


def test_what_is_not_this_models_set_is_not_trained_on(cli: Cli, place: Place) -> None:
    place.model = models.saved(place.folder / "honest")
    answer = cli(*place.args())

    assert answer.code == 2
    assert "Without a sift nothing is trained" in answer.err
    assert not place.out.exists()
    assert not state_folder(place.out).exists()


def test_wrong_words_are_refused_before_the_sift(cli: Cli, place: Place) -> None:
    assert cli(*place.args(method="spell")).code == 4
    assert cli(*place.args("--set", "wishes=3")).code == 4
    assert cli(*place.args(out=place.clean)).code == 4
    assert not state_folder(place.out).exists()


def test_two_processes_do_not_train_into_one_folder(place: Place) -> None:
    folder = state_folder(place.out)
    first, second = (RetrainState(folder, key * 64) for key in "01")
    with first.held(), pytest.raises(InputError, match="Another process"), second.held():
        pass
    assert not folder.exists()
