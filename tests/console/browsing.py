"""A scene behind a real server, and browsers that sign in to it."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn

from guard.core.roles import Role
from tests import people
from tests.console.scene import Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: A wide screen, the smallest laptop, a phone.
SIZES = {"wide": (1920, 1080), "laptop": (1100, 760), "page": (1280, 800), "phone": (390, 844)}


@contextmanager
def served(scene: Scene, port: int = 0) -> Iterator[None]:
    """The API on a port of this machine, a free one where none is given, at `scene.address`."""
    config = uvicorn.Config(
        scene.app, host="127.0.0.1", port=port, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    scene.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield
    server.should_exit = True
    thread.join(timeout=10)


@contextmanager
def worked(scene: Scene) -> Iterator[None]:
    """Workers that do at once what is asked for."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            scene.do_all()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(timeout=30)


@contextmanager
def launched() -> Iterator["Browser"]:
    """Debian's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield made
        made.close()


@contextmanager
def opened(browser: "Browser", size: str = "laptop", **how: Any) -> Iterator["Page"]:
    """A page of a browser that nobody has used; nothing may go wrong on it."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    context.set_default_timeout(120_000)
    page = context.new_page()
    wrong: list[str] = []

    def dismiss(one: "Dialog") -> None:
        wrong.append(one.message)
        one.dismiss()

    page.on("dialog", dismiss)
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    yield page
    context.close()
    assert wrong == []


def token_of(scene: Scene, name: str, role: Role) -> str:
    """The token of a person; of one name there is one."""
    if name not in scene.tokens:
        scene.tokens[name] = people.give(scene.guard, name, role)
    return scene.tokens[name]


def sign_in(page: "Page", token: str) -> None:
    """Fill in the form that a page without a session leads to."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


@contextmanager
def signed_in(
    browser: "Browser", scene: Scene, role: Role, size: str = "laptop", name: str = "", **how: Any
) -> Iterator["Page"]:
    """A page of a person of this role who has signed in by the form."""
    with opened(browser, size, **how) as page:
        token = token_of(scene, name or f"the-{role}", role)
        page.goto(f"{scene.address}/console/")
        sign_in(page, token)
        yield page
