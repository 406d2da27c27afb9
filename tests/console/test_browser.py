"""A whole review in a real browser: from signing in to the signed decision, without a terminal.

Needs Chromium and Playwright; screenshots go into `GUARD_TEST_SCREENSHOTS`, if that is set.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from sqlalchemy import text

from guard.core.roles import Role
from guard.core.states import Verdict
from guard.store import alarms, scans
from guard.store.session import reading, transaction
from tests.console.browsing import CHROMIUM, SIZES, launched, signed_in
from tests.console.scene import NASTY, Scene
from tests.console.session import play, staged
from tests.notify.receiver import Receiver

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SHOTS = os.environ.get("GUARD_TEST_SCREENSHOTS")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="the browser test needs chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="the browser test needs playwright"),
]


@pytest.fixture(scope="module")
def staged_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Receiver]]:
    """A scene whose workers do at once what is asked for, and whoever is notified."""
    with staged(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def place(staged_place: tuple[Scene, Receiver]) -> Scene:
    return staged_place[0]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as made:
        yield made


def _shoot(page: "Page", name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        whole = "phone" in name or "whole" in name
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=whole)


@pytest.mark.row(33)
def test_a_held_model_is_reviewed_from_the_notification_to_the_signed_decision(
    browser: "Browser", staged_place: tuple[Scene, Receiver], tmp_path: Path
) -> None:
    """With the second pair of eyes, the comparison of both verdicts, and a roll-back."""
    scene, there = staged_place
    came = play(browser, scene, there, _shoot, tmp_path)

    assert "digits" in came.notice["text"]
    assert (came.view.verdict, came.view.basis["reviewer"]) == (Verdict.CLEARED, "rita")


def test_a_page_says_what_cannot_be_done_where_the_flow_refuses(
    browser: "Browser", place: Scene
) -> None:
    with signed_in(browser, place, Role.OPERATOR) as page:
        page.goto(f"{place.address}/console/scans/{place.live}")
        assert not page.get_by_role("button", name="Approve").count()
        page.get_by_text("Publish it").click()
        page.get_by_role("button", name="Publish").click()
        page.locator(".badge", has_text="done").wait_for(timeout=20_000)
        page.goto(f"{place.address}/console/served")
        page.get_by_text("Roll back or withdraw fraud").click()
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
    with signed_in(browser, place, Role.REVIEWER) as page:
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
    with signed_in(browser, place, Role.REVIEWER, bypass_csp=True) as page:
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
    with signed_in(browser, place, Role.REVIEWER) as page:
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
    with signed_in(browser, place, Role.REVIEWER) as page:
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
