"""Where answers go.

Stdout for documents, files written whole, nothing that could steer a terminal.
"""

import json
import sys
from pathlib import Path

import pytest

from guard.cli import _output
from guard.cli._output import ReportFormat
from guard.core.errors import InputError


def test_a_document_is_ascii_and_reads_back_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "\x1b[31m\x7f\x9b \u202e Größe \ud800", "n": 1.5}
    _output.print_json(value)
    printed = capsys.readouterr().out

    assert printed.isascii()
    assert not set(printed) & {"\x1b", "\x7f"}
    assert json.loads(printed) == value


def test_a_document_with_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _output.print_json({"score": float("nan")})


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    _output.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        _output.write_text(path, "new \ud800")

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("form", "out"),
    [
        (ReportFormat.HTML, None),
        (ReportFormat.JSON, "x.html"),
        (ReportFormat.TABLE, "x.html"),
        (ReportFormat.HTML, "."),
        (ReportFormat.HTML, "no/such/folder/x.html"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_first(
    form: ReportFormat, out: str | None, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        _output.check_target(form, tmp_path / out if out else None)


def test_what_a_library_prints_meanwhile_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with _output.quiet_stdout():
        sys.stdout.write("noise\n")
    _output.say("answer")
    captured = capsys.readouterr()

    assert (captured.out, captured.err) == ("answer\n", "noise\n")


@pytest.mark.parametrize("pair", ["sarif", "sarif=", "=x", "table=x", "odd=x", "sarif=no/such/x"])
def test_a_further_file_that_cannot_be_written_is_refused_first(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        _output.also_wanted([pair])
