"""The entry point.

Finds its files, stays light, and turns every error into one sentence and a number.
"""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

import guard.cli
from guard.cli import main
from guard.core import errors
from guard.core.errors import GuardError
from guard.core.sift import SIFT_EXIT_CODES
from guard.core.states import EXIT_CODES
from tests.cli.conftest import Answer
from tests.cli.test_every_command import commands

Cli = Callable[..., Answer]
FILES = sorted(
    file.stem.replace("_", "-")
    for file in Path(guard.cli.__file__).parent.glob("*.py")
    if not file.stem.startswith("_") and file.stem != "main"
)
EXITS = {
    "GuardError": 2,
    "InputError": 4,
    "CleanSetError": 4,
    "TrainingSetError": 4,
    "PolicyError": 4,
    "UnknownMethod": 4,
    "ArtifactRejected": 3,
    "ManifestRejected": 3,
    "Unavailable": 2,
    "IntegrityMismatch": 6,
    "MissingExtra": 2,
    "MethodFailed": 2,
    "OutOfTime": 2,
    "Cancelled": 130,
    "NotServable": 1,
    "LeaseLost": 2,
}


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("guard.cli.verify.open_service", fail)


def test_help_lists_every_command_file_with_its_first_line(cli: Cli) -> None:
    answer = cli("--help")

    assert answer.code == 0
    for name in FILES:
        assert f"  {name} " in answer.out
        assert main.summary(name)[:40] in answer.out


@pytest.mark.parametrize("name", FILES)
def test_every_command_has_help(name: str, cli: Cli) -> None:
    answer = cli(name, "--help")

    assert answer.code == 0
    assert answer.out.startswith(f"Usage: guard {name}")


def test_help_takes_less_than_300_milliseconds_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from guard.cli.main import run; code = run(['--help']);"
        "heavy = {'torch', 'numpy', 'rich', 'sqlalchemy', 'structlog', 'httpx'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: the machine that runs this test may be busy with others.
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

        assert (done.returncode, done.stderr) == (0, "")
    assert min(spent) < 0.3


def test_no_help_and_nothing_that_only_lists_loads_torch(tmp_path: Path) -> None:
    everything = [[*name.split(), "--help"] for name in commands(get_command(main.app))]
    asked = [["--help"], *everything, ["policy", "check"], ["methods", "list"]]
    script = (
        "import sys; from guard.cli.main import run\n"
        f"for asked in {asked!r}:\n"
        "    code = run(asked)\n"
        "    heavy = {'torch', 'torchvision', 'timm', 'scipy', 'rdkit'} & set(sys.modules)\n"
        "    if code or heavy: sys.exit(f'{asked}: {code}, loaded {heavy}')\n"
    )
    home = {"GUARD_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=home
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(everything) > 50


def test_without_arguments_help_is_shown_and_it_counts_as_usage(cli: Cli) -> None:
    answer = cli()

    assert answer.code == main.USAGE
    assert "Commands:" in answer.out


@pytest.mark.parametrize("name", ["nope", "main", "_output", "../scan", "os", ""])
def test_a_name_that_is_no_command_is_refused(name: str, cli: Cli) -> None:
    answer = cli(name)

    assert answer.code == main.USAGE
    assert answer.out == ""
    assert answer.err.startswith("guard: No such command")


@pytest.mark.row(57)
@pytest.mark.parametrize("name", sorted(EXITS))
def test_every_error_has_its_exit_code_and_one_sentence(
    name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, getattr(errors, name)("It is broken; mend it."))
    answer = cli("verify")

    assert answer == Answer(EXITS[name], "", "guard: It is broken; mend it.\n")


@pytest.mark.row(57)
def test_the_readme_names_every_exit_code_and_no_other() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (listed,) = re.findall(r"^Exit codes: (.+?)\.\n\n", readme, re.DOTALL | re.MULTILINE)

    named = {int(part.split()[0]) for part in listed.replace("\n", " ").split(", ")}
    assert named == {*EXITS.values(), *EXIT_CODES.values(), *SIFT_EXIT_CODES.values()}


@pytest.mark.parametrize(
    ("name", "kept"), [("scan", "nothing was written"), ("alarms", "`guard acts list` shows")]
)
def test_ctrl_c_is_one_sentence_about_what_is_kept(
    name: str, kept: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "get_command", press)
    answer = cli(name)

    assert (answer.code, answer.out) == (130, "")
    assert answer.err.startswith(f"guard: Stopped guard {name}: ")
    assert kept in answer.err


def test_the_table_of_errors_is_complete() -> None:
    known = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, GuardError)
    }

    assert set(EXITS) == known


def test_an_error_nobody_planned_is_a_sentence_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, RuntimeError("boom"))
    answer = cli("verify")

    assert answer.code == main.FAILED
    assert (
        answer.err
        == "guard: The guard itself failed (RuntimeError: boom); `guard --debug` shows where.\n"
    )


def test_a_missing_file_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, FileNotFoundError(2, "No such file or directory", "gone.txt"))

    assert cli("verify").err == "guard: No such file or directory: gone.txt.\n"


@pytest.mark.parametrize("place", [("--debug", "verify"), ("verify", "--debug")])
def test_a_traceback_is_shown_only_on_request(
    place: tuple[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, RuntimeError("boom"))

    assert "Traceback" not in cli("verify").err
    assert "Traceback" in cli(*place).err


def test_ctrl_c_ends_with_the_shells_own_number(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())

    assert cli("verify").code == 130


def test_an_error_cannot_steer_the_terminal_or_fake_a_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, GuardError("bad \x1b[2Jname\nguard: cleared"))
    answer = cli("verify")

    assert answer.err == "guard: bad \\x1b[2Jname\n    guard: cleared\n"


def test_the_installed_script_answers() -> None:
    script = Path(sys.executable).with_name("guard")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"registry-guard {guard.__version__}\n")
