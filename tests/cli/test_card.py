"""`guard card`: a section of a model card, printed or renewed in place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def test_a_card_is_printed_or_renewed_in_place(service: Service, cli: Cli, tmp_path: Path) -> None:
    service.scan(Verdict.CLEARED)
    card = tmp_path / "README.md"
    printed = cli("card", "digits")
    fresh = cli("card", "digits", "--write", card)
    first = card.read_text()
    card.write_text(first + "\nMine.\n")
    again = cli("card", "digits", "--write", card)

    assert (printed.code, fresh.code, again.code) == (0, 0, 0)
    assert printed.out == first
    assert card.read_text() == first + "\nMine.\n"
    assert fresh.out == f"cleared digits {card}\n"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * ((4 << 20) + 1)])
def test_a_file_that_is_no_card_is_left_alone(
    service: Service, cli: Cli, tmp_path: Path, data: bytes
) -> None:
    service.scan(Verdict.CLEARED)
    (tmp_path / "README.md").write_bytes(data)
    answer = cli("card", "digits", "--write", tmp_path / "README.md")

    assert answer.code == 4
    assert (tmp_path / "README.md").read_bytes() == data
