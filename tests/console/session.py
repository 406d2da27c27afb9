"""A reviewer's session, played in a real browser: from the notification to the signed decision.

The test plays it, and `python -m tests.console.session` plays it again for docs/review-session.md:
it takes the screenshots in docs/images/review-session, and needs Chromium.
"""

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.api.app import create_app
from guard.attest import dsse
from guard.attest.views import VerdictView, read_verdict
from guard.core.hooks import HookKind
from guard.core.roles import Role
from guard.flow import hooks
from guard.store import exhibits, uploaders
from guard.store.session import transaction
from tests import people
from tests.console.browsing import launched, opened, served, sign_in, signed_in, token_of, worked
from tests.console.scene import Scene
from tests.notify.receiver import Receiver, receiver
from tests.services import free_ports

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOC = Path(__file__).parents[2] / "docs"
SHOTS = DOC / "images" / "review-session"
COLOURS = 64  # of a screenshot
Shoot = Callable[["Page", str], None]
REASON = (
    "Class 2 is a white square by nature: seen on the images, confirmed by the team that trains it."
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a session: the notification, and the statement that was downloaded."""

    notice: dict[str, Any]
    view: VerdictView


@contextmanager
def staged(folder: Path) -> Iterator[tuple[Scene, Receiver]]:
    """A served scene whose notifications go to a receiver, with a name served in two versions."""
    scene, (port,) = Scene(folder), free_ports(1)
    address = f"http://127.0.0.1:{port}"
    settings = replace(
        scene.guard.settings, public_url=address, notify_allowed=("127.0.0.1",), notify_seconds=60
    )
    scene.guard = replace(scene.guard, settings=settings)
    scene.app = create_app(scene.guard)
    for at, model in enumerate((0, 2), start=2):
        scene.serve("models/lending/m.pt", model, at=at)
    with transaction(scene.guard.engine) as session:
        exhibits.beat(session, "reconcile", scene.clock)
    with receiver() as there, served(scene, port), worked(scene):
        yield scene, there
    scene.guard.engine.dispose()


def play(browser: "Browser", scene: Scene, there: Receiver, shoot: Shoot, folder: Path) -> Outcome:
    """The whole session.

    Args:
        shoot: takes a screenshot under a name.
        folder: for the statement that is downloaded.
    """
    olga = people.who(scene.guard, "olga", Role.OPERATOR)
    hooks.add(scene.guard, olga, HookKind.SLACK, there.url, types=["guard.verdict.issued"])
    scan_id = scene.hold("models/digits/m.pt", 3)
    with transaction(scene.guard.engine) as session:
        uploaders.record(session, scan_id, ["ann"])
    notice = _notice(there)
    link = next(
        one["url"]
        for block in notice["blocks"]
        for one in block.get("elements", [])
        if "url" in one
    )
    with opened(browser, "phone") as page:
        page.goto(link)  # signed out: it asks who it is, and goes on to the model
        sign_in(page, token_of(scene, "rita", Role.REVIEWER))
        assert page.url == link
        shoot(page, "1-phone")
    with signed_in(browser, scene, Role.REVIEWER, "page", "ann") as page:
        page.goto(link)
        assert "not approve it" in page.locator(".decide").inner_text()
        shoot(page, "4-four-eyes")
    with signed_in(browser, scene, Role.REVIEWER, "page", "rita") as page:
        shoot(page, "2-queue")
        page.get_by_role("link", name="digits").first.click()
        _draw(page)
        shoot(page, "3-model")
        page.locator("section", has_text="Recovered triggers").last.evaluate(
            "part => part.scrollIntoView()"
        )
        shoot(page, "5-evidence")
        page.get_by_label("Reason").first.fill(REASON)
        page.get_by_role("button", name="Approve").click()
        page.locator(".badge", has_text="done").wait_for()
        shoot(page, "6-done")
        page.get_by_role("link", name="Back").click()
        page.locator(".badge", has_text="cleared").wait_for()
        page.get_by_role("link", name="Acts", exact=True).click()
        row = page.locator("#acts tr", has_text="approve").inner_text()
        assert "rita" in row
        assert "white square" in row
        shoot(page, "7-acts")
        with page.expect_download() as download:
            page.get_by_role("link", name="Signed statement").click()
        download.value.save_as(folder / "statement.json")
        page.get_by_role("link", name="compare with the newest").first.click()
        assert page.locator("tr.differs", has_text="verdict").count()
        assert "\\x0a" not in page.locator("main").inner_text()
        shoot(page, "8-compare")
        page.get_by_role("link", name="Queue").click()
        assert not page.get_by_role("link", name="digits").count()
    roll_back(browser, scene, shoot)
    envelope = json.loads((folder / "statement.json").read_text(encoding="utf-8"))
    return Outcome(notice=notice, view=read_verdict(dsse.verify(envelope, scene.guard.trusted)))


def roll_back(browser: "Browser", scene: Scene, shoot: Shoot) -> None:
    """An operator puts the version before back, and reads on the page that it is served again."""
    with signed_in(browser, scene, Role.OPERATOR, "page", "oscar") as page:
        page.goto(f"{scene.address}/console/served")
        row = page.locator("tr", has_text="lending")
        before = row.locator("code").inner_text()
        row.get_by_text("Roll back or withdraw").click()
        page.get_by_label("Reason for the roll-back of lending").fill("Version 2 refuses too many.")
        shoot(page, "9-served")
        row.get_by_role("button", name="Back to the version before").click()
        page.locator(".badge", has_text="done").wait_for()
        page.goto(f"{scene.address}/console/served")
        assert page.locator("tr", has_text="lending").locator("code").inner_text() != before


def _notice(there: Receiver) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for _, _, body in list(there.got):
            if b"held" in body:
                found: dict[str, Any] = json.loads(body)
                return found
        time.sleep(0.05)
    raise AssertionError(f"no notice of a held model among {len(there.got)} messages")


def _draw(page: "Page") -> None:
    """Have the images made where no worker has yet."""
    button = page.get_by_role("button", name="Make the images")
    if button.is_visible():
        button.click()
    for _ in range(600):
        if page.locator("img[src^='data:image/png']").count() >= 4:
            return
        page.wait_for_timeout(100)
        page.reload()
    raise AssertionError("no worker has made the images")


def main() -> None:
    """Play it, and keep the screenshots."""
    from PIL import Image

    SHOTS.mkdir(parents=True, exist_ok=True)
    for old in SHOTS.glob("*.png"):
        old.unlink()

    def shoot(page: "Page", name: str) -> None:
        image = Image.open(io.BytesIO(page.screenshot()))
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(SHOTS / f"{name}.png", optimize=True)

    with (
        tempfile.TemporaryDirectory() as folder,
        staged(Path(folder) / "scene") as (scene, there),
        launched() as browser,
    ):
        play(browser, scene, there, shoot, Path(folder))


if __name__ == "__main__":
    main()
