"""A whole review in a real browser: from signing in to the signed decision, without a terminal.

Needs Chromium and Playwright; screenshots go into `GUARD_TEST_SCREENSHOTS`, if that is set.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvicorn
from sqlalchemy import text

from guard.attest import dsse
from guard.attest.views import read_verdict
from guard.core.roles import Role
from guard.core.states import Verdict
from guard.store import alarms, scans
from guard.store.session import reading, transaction
from tests import people
from tests.console.scene import NASTY, Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SHOTS = os.environ.get("GUARD_TEST_SCREENSHOTS")
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
SIZES = {"wide": (1920, 1080), "laptop": (1100, 760), "phone": (390, 844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="the browser test needs chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="the browser test needs playwright"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A scene whose workers do at once what is asked for."""
    made = Scene(tmp_path_factory.mktemp("browser"))
    with _served(made), _worked(made):
        yield made
    made.guard.engine.dispose()


@contextmanager
def _served(scene: Scene) -> Iterator[None]:
    """The API on a free port of this machine; its address is `scene.address`."""
    config = uvicorn.Config(scene.app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
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
def _worked(scene: Scene) -> Iterator[None]:
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            scene.do_all()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield made
        made.close()


@contextmanager
def _page(
    browser: "Browser", scene: Scene, role: Role, size: str = "laptop", **how: Any
) -> Iterator["Page"]:
    """A page of a person of this role who has signed in by the form; nothing may go wrong on it."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    page = context.new_page()
    wrong: list[str] = []

    def dismiss(one: "Dialog") -> None:
        wrong.append(one.message)
        one.dismiss()

    page.on("dialog", dismiss)
    page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    name = f"the-{role}"
    if name not in scene.tokens:
        scene.tokens[name] = people.give(scene.guard, name, role)
    page.goto(f"{scene.address}/console/")
    page.get_by_label("Token").fill(scene.tokens[name])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    yield page
    context.close()
    assert wrong == []


def _shoot(page: "Page", name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        whole = "phone" in name or "whole" in name
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=whole)


@pytest.mark.row(33)
def test_a_held_model_is_reviewed_from_sign_in_to_signed_decision(
    browser: "Browser", place: Scene, tmp_path: Path
) -> None:
    with _page(browser, place, Role.REVIEWER) as page:
        _shoot(page, "1-queue")
        page.get_by_role("link", name="natural").first.click()
        if page.get_by_role("button", name="Make the images").is_visible():
            page.get_by_role("button", name="Make the images").click()
            for _ in range(100):
                page.reload()
                if page.locator("img[src^='data:image/png']").count():
                    break
                time.sleep(0.1)
        assert page.locator("img[src^='data:image/png']").count() >= 4
        _shoot(page, "2-model")
        _shoot(page, "2-model-whole")
        page.get_by_label("Reason").first.fill("Class 2 is a white square by nature; known team.")
        page.get_by_role("button", name="Approve").click()
        page.locator(".badge", has_text="done").wait_for(timeout=20_000)
        _shoot(page, "3-approved")
        page.get_by_role("link", name="Back").click()
        page.locator(".badge", has_text="cleared").wait_for()
        page.get_by_role("link", name="Acts", exact=True).click()
        row = page.locator("#acts tr", has_text="approve")
        assert "the-reviewer" in row.inner_text()
        assert "white square" in row.inner_text()
        _shoot(page, "4-acts")
        with page.expect_download() as download:
            page.get_by_role("link", name="Signed statement").click()
        download.value.save_as(tmp_path / "statement.json")
        page.get_by_role("link", name="Queue").click()
        assert not page.get_by_role("link", name="natural").count()

    envelope = json.loads((tmp_path / "statement.json").read_text())
    view = read_verdict(dsse.verify(envelope, place.guard.trusted))
    assert (view.verdict, view.basis["reviewer"]) == (Verdict.CLEARED, "the-reviewer")


def test_a_page_says_what_cannot_be_done_where_the_flow_refuses(
    browser: "Browser", place: Scene
) -> None:
    with _page(browser, place, Role.OPERATOR) as page:
        page.goto(f"{place.address}/console/scans/{place.live}")
        assert not page.get_by_role("button", name="Approve").count()
        page.get_by_text("Publish it").click()
        page.get_by_role("button", name="Publish").click()
        page.locator(".badge", has_text="done").wait_for(timeout=20_000)
        page.goto(f"{place.address}/console/served")
        page.get_by_text("Roll back or withdraw").first.click()
        page.get_by_label("Reason for the roll-back of fraud").fill("try")
        page.get_by_role("button", name="Back to the version before").click()
        page.locator(".badge", has_text="refused").wait_for(timeout=20_000)
        assert "There is no earlier version" in page.locator("main").inner_text()


def _paths(scene: Scene) -> tuple[str, ...]:
    return (
        "/console/",
        f"/console/scans/{scene.live}",
        f"/console/scans/{scene.scan_id}",
        "/console/scans",
        "/console/served",
        "/console/acts",
        "/console/alarms",
        "/console/policy",
        "/console/methods",
        "/console/compare",
    )


def test_no_page_is_wider_than_its_screen(browser: "Browser", place: Scene) -> None:
    with _page(browser, place, Role.REVIEWER) as page:
        for path in _paths(place):
            page.goto(place.address + path)
            for size, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                _shoot(page, f"{size}-{path.removeprefix('/console/').replace('/', '-')[:12]}")
                over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                assert over <= 0, (path, size)


@pytest.mark.row(58)
def test_axe_finds_nothing_serious_in_light_or_dark(browser: "Browser", place: Scene) -> None:
    source = AXE.read_text(encoding="utf-8")
    with _page(browser, place, Role.REVIEWER, bypass_csp=True) as page:
        for path in ("/console/login", *_paths(place)):
            page.goto(place.address + path)
            page.evaluate(source)
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                bad = _serious(page)
                assert bad == [], (path, scheme)
            _shoot(page, f"dark-{path.removeprefix('/console/').replace('/', '-')[:12]}")


def _serious(page: "Page") -> list[tuple[str, str, str]]:
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        (one["id"], one["nodes"][0]["html"], one["nodes"][0].get("failureSummary", ""))
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_the_keyboard_alone_reaches_the_decision(browser: "Browser", place: Scene) -> None:
    scan_id = place.hold("models/keys/m.pt", 3)
    with _page(browser, place, Role.REVIEWER) as page:
        page.goto(f"{place.address}/console/scans/{scan_id}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "decision":
                break
        page.keyboard.type("By keyboard.")
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Approve":
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Reject"
        page.keyboard.press("Enter")
        page.locator(".badge", has_text="done").wait_for(timeout=20_000)


def test_what_strangers_wrote_runs_nowhere(browser: "Browser", place: Scene) -> None:
    """Any script would open a dialog, and any blocked one would be an error of the console."""
    scan_id = place.hold("models/nasty/m.pt", 3)
    with transaction(place.guard.engine) as session:
        for column in ("name", "submitted_by", '"key"'):
            statement = f"UPDATE scans SET {column} = :bad WHERE id = :id"
            session.execute(text(statement), {"bad": NASTY, "id": scan_id})
        alarms.raise_(session, "odd", NASTY, NASTY, place.clock)
    with _page(browser, place, Role.REVIEWER) as page:
        for path in ("/console/", f"/console/scans/{scan_id}", "/console/scans", "/console/alarms"):
            page.goto(place.address + path)
            assert "<script>alert(1)</script>" in page.locator("main").inner_text()
        page.goto(f"{place.address}/console/scans/{scan_id}")
        page.get_by_label("Reason").first.fill(NASTY)
        page.get_by_role("button", name="Reject").click()
        page.locator(".badge", has_text="done").wait_for(timeout=20_000)
        page.goto(f"{place.address}/console/acts")
        page.get_by_label("Name, digest or uploader").fill(NASTY)
        page.keyboard.press("Enter")
    with reading(place.guard.engine) as session:
        assert scans.get(session, scan_id).name == NASTY
