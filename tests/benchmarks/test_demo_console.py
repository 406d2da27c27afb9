"""`make demo` ends with the console's address, open to click through with the tokens beside it."""

import inspect
import io
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from rich.console import Console

from benchmarks.demo import __main__ as demo
from benchmarks.demo.console import open_console
from guard.api.app import create_app
from guard.bootstrap import open_guard
from guard.core.secret import Secret
from guard.flow.context import Guard
from guard.settings import Settings
from tests import sqlite

OURS = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    settings = Settings(
        data_dir=tmp_path,
        database_url=sqlite.migrated(tmp_path),
        s3_endpoint="http://127.0.0.1:9",
        s3_secret_key=Secret("b"),
    )
    return open_guard(settings)


class Waiting:
    """A stack that serves its console until somebody who clicked through it presses Ctrl-C."""

    api_address = "http://127.0.0.1:8080"

    def __init__(self, guard: Guard, printed: io.StringIO) -> None:
        self.guard, self.printed = guard, printed
        self.seen: list[str] = []

    def wait(self) -> None:
        text = self.printed.getvalue()
        address = urlsplit(re.findall(r"review console: (\S+)", text)[0])
        for token in re.findall(r"guard_\w{16}_[\w-]{43}", text):
            with TestClient(create_app(self.guard), base_url=self.api_address) as browser:
                body = {"token": token}
                assert browser.post("/console/login", data=body, headers=OURS).status_code == 200
                page = browser.get(address.path)
                assert page.status_code == 200
                self.seen += re.findall(r"rita|demo", page.text)[:1]
        raise KeyboardInterrupt


def test_the_demo_ends_with_a_console_that_a_person_can_click_through(guard: Guard) -> None:
    printed = io.StringIO()
    stack = Waiting(guard, printed)

    open_console(cast("Any", stack), guard, Console(file=printed, force_terminal=True, width=150))

    assert stack.seen == ["rita", "demo"]
    assert "Ctrl-C" in printed.getvalue()


def test_without_a_terminal_the_demo_ends_with_the_address_and_does_not_wait(guard: Guard) -> None:
    printed = io.StringIO()
    stack = Waiting(guard, printed)

    open_console(cast("Any", stack), guard, Console(file=printed, width=150))

    assert printed.getvalue().strip() == "the review console: http://127.0.0.1:8080/console/"
    assert not stack.seen


def test_it_is_the_last_that_the_demo_does_while_its_stack_runs() -> None:
    lines = [line.strip() for line in inspect.getsource(demo.run).splitlines() if line.strip()]
    assert lines[-2] == "open_console(stack, guard, console)"
