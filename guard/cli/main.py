"""The entry point: finds the command files and turns errors into a sentence and an exit code."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from guard.core.errors import (
    ArtifactRejected,
    Cancelled,
    GuardError,
    InputError,
    IntegrityMismatch,
    NotServable,
)
from guard.core.shelf import Shelf

COMMANDS: Shelf[Any] = Shelf("guard.cli")

OK, BLOCKED, FAILED, NOTHING_VETTABLE, USAGE, REVIEW, MISMATCH = range(7)
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
#: First match wins; every other error of the guard is `FAILED`. Verdicts have their own table in
#: `core.states`.
_EXITS: tuple[tuple[type[GuardError], int], ...] = (
    (Cancelled, INTERRUPTED),
    (InputError, USAGE),
    (ArtifactRejected, NOTHING_VETTABLE),
    (IntegrityMismatch, MISMATCH),
    (NotServable, BLOCKED),
)
#: Packages that the base installation omits, and the extra that installs each (typer brings
#: pydantic).
EXTRAS = {
    "opentelemetry": "otel",
    **dict.fromkeys(("torch", "torchvision", "timm", "scipy"), "worker"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "prometheus_client"), "api"),
    **dict.fromkeys(("celery", "kombu", "redis", "authlib", "joserfc"), "api"),
    "onnxruntime": "export",
    "psycopg": "postgres",
    "rdkit": "graphs",
}
#: What is kept when Ctrl-C stops a command; `guard retrain` says it itself.
_KEPT = {
    "scan": "no verdict was given and nothing was written",
    "compare": "nothing was written",
    "generate": "nothing was written",
    "purify": "no repaired model was written",
    "calibrate": "no calibration was written",
    "sift": "no file was written",
    "status": "what it showed goes on",
    "submit": "what was submitted is vetted all the same, as `guard status` shows",
}
_RECORDED = "what it changes is recorded whole or not at all, as `guard acts list` shows"
_EPILOG = (
    "Exit codes: 0 cleared or purified, 1 blocked, 2 error or inconclusive, 3 nothing vettable, "
    "4 usage, 5 waiting for review, 6 integrity mismatch, "
    "130 stopped by Ctrl-C. The answer goes to stdout, everything else to stderr."
)


class CommandFiles(TyperGroup):
    """A command group whose members are files.

    A command is imported when it is called, and never for `--help`.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's signature
        """The names of the command files, without machinery and without this file."""
        return [name.replace("_", "-") for name in COMMANDS.names() if name != "main"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command file; a name without a file imports nothing."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = get_command(import_module(f"{COMMANDS.package}.{_file(cmd_name)}").app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List each command with the first line of its file."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in self.list_commands(ctx)])


def summary(name: str) -> str:
    """The opening sentence of a command file, read without running it."""
    with Path(__file__).with_name(f"{_file(name)}.py").open(encoding="utf-8") as file:
        return file.readline().strip().strip('"')


def _file(command: str) -> str:
    return command.replace("-", "_")


app = typer.Typer(
    cls=CommandFiles,
    name="guard",
    add_completion=False,
    rich_markup_mode=None,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from guard import __version__

        typer.echo(f"registry-guard {__version__}")
        raise typer.Exit


@app.callback()
def guard(
    context: typer.Context,
    version: bool = typer.Option(  # noqa: ARG001 - its callback does the work
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks and every log line."),
) -> None:
    """Vet neural networks for backdoors between a model registry and serving."""
    # structlog's own default writes to stdout, where the answer belongs.
    from guard.core import plugins
    from guard.logs import configure
    from guard.settings import plugin_folder

    if context.invoked_subcommand != "doctor":  # which says what is wrong with them
        plugins.use(plugin_folder())
    configure("debug" if debug else "warning", json=not sys.stderr.isatty())


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises a deliberate error."""
    if not args:
        run(["--help"])
        return USAGE
    debug = "--debug" in args
    rest = [arg for arg in args if arg != "--debug"]
    try:
        answer = get_command(app).main(
            (["--debug"] if debug else []) + rest, "guard", standalone_mode=False
        )
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "guard"
        return _complain(f"{error.format_message()} See `{path} --help`.", USAGE, debug)
    except (typer.Abort, KeyboardInterrupt):
        return _complain(_stopped(rest), INTERRUPTED, debug)
    except GuardError as error:
        code = next((number for kind, number in _EXITS if isinstance(error, kind)), FAILED)
        return _complain(error.sentence, code, debug)
    except OSError as error:
        return _complain(
            f"{error.strerror or error}: {error.filename or 'the system'}.", FAILED, debug
        )
    except ModuleNotFoundError as error:
        return _complain(_missing(error), FAILED, debug)
    except Exception as error:  # noqa: BLE001 - the user gets a sentence, and a traceback only on request
        sentence = (
            f"The guard itself failed ({type(error).__name__}: {error}); `guard --debug` "
            "shows where."
        )
        return _complain(sentence, FAILED, debug)
    code = answer if isinstance(answer, int) else OK
    # Typer makes 130 of a KeyboardInterrupt, without a sentence.
    return _complain(_stopped(rest), code, debug) if code == INTERRUPTED else code


def _stopped(args: Sequence[str]) -> str:
    """What Ctrl-C has stopped, and what is kept of it."""
    name = next((arg for arg in args if not arg.startswith("-")), "")
    return f"Stopped {f'guard {name}'.strip()}: {_KEPT.get(name, _RECORDED)}."


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return f"The guard is not completely installed ({error}); install Registry Guard again."
    return (
        f"This needs {package}, which is not installed; run: "
        f"pip install 'registry-guard[{EXTRAS[package]}]'."
    )


def _complain(sentence: str, code: int, debug: bool) -> int:
    from guard.core.text import printable

    if debug:
        import traceback

        typer.echo(traceback.format_exc(), err=True)
    # Further lines (the end of a log) are indented, so that their text cannot pass for a line of
    # the guard.
    first, *more = sentence.splitlines() or [""]
    typer.echo(f"guard: {printable(first)}", err=True)
    for line in more:
        typer.echo(f"    {printable(line)}", err=True)
    return code


def main() -> None:
    """Run the `guard` script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its escape, so that an hour of scanning does
        # not end in a crash.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
