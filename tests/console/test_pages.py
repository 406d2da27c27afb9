"""What each page shows, to whom, with which policy, and by how many queries."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from guard.api.app import create_app
from guard.console import log, queue, served
from guard.console import scans as lists
from guard.core.progress import reckoned
from guard.core.roles import Role
from guard.core.states import ScanState
from guard.flow import exhibits
from guard.flow._lease import hold
from guard.flow._progress import Shown
from guard.store import alarms, dead_letters, listing, reviews, scans
from guard.store import exhibits as stored
from guard.store.session import reading, transaction
from tests.console.scene import NASTY, Scene

PAGES = (
    "/console/",
    "/console/scans",
    "/console/scans?state=running",
    "/console/scans?q=natural",
    "/console/served",
    "/console/acts",
    "/console/alarms?closed=true",
    "/console/policy",
    "/console/methods",
    "/console/compare",
    "/console/scans/HELD",
    "/console/scans/LIVE",
)


def text_of(scene: Scene, path: str, role: Role = Role.REVIEWER) -> str:
    answer = scene.browser(role).get(path.replace("HELD", scene.held).replace("LIVE", scene.live))
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_running_scan_shows_how_far_it_is_and_the_time_left(scene: Scene) -> None:
    scan_id = scene.put("models/slow/m.pt", 2)
    with hold(scene.guard, scan_id) as held, reckoned(150.0):
        assert held is not None
        Shown(scene.guard, held)(0.41, f"patch_inversion {NASTY}")
    page = text_of(scene, f"/console/scans/{scan_id}")

    assert '<progress max="1" value="0.41"></progress> 41 % patch_inversion' in page
    assert "2 min left" in page
    assert "<script>" not in page


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_one_strict_policy_and_no_script_or_foreign_part(
    shown: Scene, path: str
) -> None:
    path = path.replace("HELD", shown.held).replace("LIVE", shown.live)
    answer = shown.browser(Role.VIEWER).get(path)

    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self' data:;")
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in answer.text
    assert not re.search(r"<[^>]*\son\w+=|<[^>]*\sstyle=", answer.text)
    assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", answer.text)
    assert "<h1" in answer.text
    assert '<html lang="en">' in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/console/orders/x", "/console/scans/HELD/report"])
def test_no_page_is_shown_without_a_session(shown: Scene, path: str) -> None:
    client = TestClient(shown.app, follow_redirects=False)
    answer = client.get(path.replace("HELD", shown.held).replace("LIVE", shown.live))

    assert answer.status_code in (303, 401)
    assert "natural" not in answer.text


def test_the_style_sheet_alone_is_open(shown: Scene) -> None:
    answer = TestClient(shown.app).get("/console/static/console.css")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert "url(" not in answer.text
    assert "@import" not in answer.text


def test_a_console_that_is_off_has_no_pages(shown: Scene) -> None:
    off = replace(shown.guard, settings=replace(shown.guard.settings, console=False))
    client = shown.browser(Role.OPERATOR)
    other = TestClient(create_app(off), cookies=client.cookies, headers=dict(client.headers))

    assert other.get("/console/").status_code == 404


def test_the_queue_says_what_waits_why_for_how_long_and_whose_it_is(shown: Scene) -> None:
    page = text_of(shown, "/console/")

    assert f'href="/console/scans/{shown.held}"' in page
    assert shown.live not in page
    assert "Waiting" in page
    assert "class 2" in page


@pytest.mark.row(58)
def test_the_first_screen_says_whether_to_approve_and_what_could_be_wrong(shown: Scene) -> None:
    page = text_of(shown, "/console/scans/HELD")

    assert "Yes, you may approve or reject it." in page
    assert "Nothing looked for these kinds of trigger: blend" in page
    assert "It names no training set" in page
    assert page.index("What could still be wrong") < page.index('value="approve"')


def test_whoever_is_no_reviewer_sees_no_form_that_decides(shown: Scene) -> None:
    page = text_of(shown, "/console/scans/HELD", Role.OPERATOR)

    assert "A reviewer decides about this model; your session has no such role." in page
    assert 'value="approve"' not in page


def test_whoever_may_have_uploaded_a_model_is_not_offered_to_approve_it(scene: Scene) -> None:
    with transaction(scene.guard.engine) as session:
        name = scans.get(session, scene.held).submitted_by or ""
    page = scene.browser(Role.REVIEWER, name or "ann").get(f"/console/scans/{scene.held}").text

    assert ('value="approve"' in page) is (name == "")
    assert 'value="reject"' in page


def test_what_is_decided_is_said_to_be(shown: Scene) -> None:
    page = text_of(shown, "/console/scans/LIVE")

    assert "Nothing is to be decided: it is cleared." in page
    assert "What was served under this name" in page
    assert "sealed" not in page or "not sealed yet" not in page


def test_a_scan_without_a_verdict_shows_how_far_it_is_and_looks_again(scene: Scene) -> None:
    scan_id = scene.upload(name="fresh")

    page = text_of(scene, f"/console/scans/{scan_id}")

    assert '<meta http-equiv="refresh" content="5">' in page
    assert 'aria-current="step">queued' in page


def test_a_scan_that_failed_says_why_and_does_not_load_for_ever(scene: Scene) -> None:
    scan_id = scene.upload(name="broken")
    with transaction(scene.guard.engine) as session:
        scans.move(session, scan_id, ScanState.FAILED, scene.clock, error=f"It broke {NASTY}")

    page = text_of(scene, f"/console/scans/{scan_id}")

    assert "refresh" not in page
    assert "It broke &lt;script&gt;" in page


def test_images_come_from_a_worker_and_are_asked_for_once(scene: Scene) -> None:
    client = scene.browser(Role.VIEWER)
    path = f"/console/scans/{scene.held}"
    assert "Make the images" in client.get(path).text

    for _ in range(2):
        assert client.post(f"{path}/images", data={}).status_code == 303
    scene.do_all()

    page = client.get(path).text
    assert page.count("data:image/png;base64,") >= 4
    assert "Recovered triggers" in page
    assert "data:image/png" in client.get(f"{path}/report").text
    assert not exhibits.draw(scene.guard, scene.held)


def test_what_waits_gets_its_images_unasked(scene: Scene) -> None:
    assert exhibits.due(scene.guard) == [scene.held]

    exhibits.draw(scene.guard, scene.held)

    assert exhibits.due(scene.guard) == []


def test_images_that_somebody_changed_in_the_database_are_text_or_left_out(scene: Scene) -> None:
    exhibits.draw(scene.guard, scene.held)
    with transaction(scene.guard.engine) as session:
        verdict = scans.get(session, scene.held).verdict_id or ""
        shown: Any = stored.find(session, verdict)
        shown["triggers"][0]["images"][0][1] = 'x" onerror="alert(1)'
        session.execute(stored._EXHIBITS.update().values(shown=shown))

    page = text_of(scene, "/console/scans/HELD")
    assert "x&#34; onerror=&#34;alert(1)" in page

    with transaction(scene.guard.engine) as session:
        session.execute(stored._EXHIBITS.update().values(shown={"failed": "It broke."}))
    assert "It broke." in text_of(scene, "/console/scans/HELD")


def test_the_report_alone_allows_its_own_style_sheet_and_nothing_else(shown: Scene) -> None:
    answer = shown.browser(Role.VIEWER).get(f"/console/scans/{shown.held}/report")

    policy = answer.headers["content-security-policy"]
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]+'", policy)
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_the_signed_statement_is_downloaded_as_it_is_stored(shown: Scene) -> None:
    with reading(shown.guard.engine) as session:
        verdict = scans.get(session, shown.held).verdict_id
    answer = shown.browser(Role.VIEWER).get(f"/console/verdicts/{verdict}/statement.json")

    assert set(answer.json()) >= {"payload", "payloadType", "signatures"}
    assert "attachment" in answer.headers["content-disposition"]


def test_a_digest_leads_to_its_newest_scan_and_an_unknown_one_nowhere(shown: Scene) -> None:
    with reading(shown.guard.engine) as session:
        digest = scans.get(session, shown.held).canonical_digest
    client = shown.browser(Role.VIEWER)

    assert client.get(f"/console/digests/{digest}").headers["location"].endswith(shown.held)
    assert client.get(f"/console/digests/{'0' * 64}").status_code == 404


def test_what_is_served_is_listed_with_its_last_check_and_what_ends_soon(scene: Scene) -> None:
    page = text_of(scene, "/console/served", Role.OPERATOR)
    assert "Nobody has compared" in page
    assert "Withdraw for good" in page
    with transaction(scene.guard.engine) as session:
        stored.beat(session, "reconcile", scene.clock)
        stored.beat(session, "reconcile", scene.clock + timedelta(seconds=1))
    scene.clock += timedelta(days=25)

    page = text_of(scene, "/console/served", Role.VIEWER)

    assert "24 days ago" in page
    assert "Verdicts that end soon" in page
    assert "Withdraw for good" not in page


def test_a_search_finds_by_name_digest_id_and_uploader(shown: Scene) -> None:
    with reading(shown.guard.engine) as session:
        scan = scans.get(session, shown.held)
        found = {
            text: [row.id for row in listing.search(session, text, 50)]
            for text in ("NATUR", (scan.canonical_digest or "")[:8], scan.id[:6], " ", "%", "zz")
        }

    assert [scan.id in ids for ids in found.values()] == [True, True, True, False, False, False]


@pytest.mark.parametrize("query", ["state=odd", "before=odd", "before=2026-01-01~"])
def test_an_address_that_no_page_has_made_is_refused_or_harmless(shown: Scene, query: str) -> None:
    assert shown.browser(Role.VIEWER).get(f"/console/scans?{query}").status_code in (200, 400)
    assert shown.browser(Role.VIEWER).get("/console/acts?before=x").status_code == 400


def test_alarms_and_dead_letters_are_listed_with_the_way_out(scene: Scene) -> None:
    scene.alarm()
    scene.letter()

    page = text_of(scene, "/console/alarms", Role.OPERATOR)

    assert "It is taken." in page
    assert "Try it again" in page
    assert "Acknowledge" in page
    assert "Try it again" not in text_of(scene, "/console/alarms", Role.VIEWER)


def test_two_verdicts_are_compared_by_what_was_signed(shown: Scene) -> None:
    with reading(shown.guard.engine) as session:
        pair = [scans.get(session, one).verdict_id for one in (shown.held, shown.live)]

    page = text_of(shown, f"/console/compare?a={pair[0]}&b={pair[1]}")

    assert page.index("differs") < page.index(">policy<")
    assert "<div>kind: policy</div>" in page
    assert "\\x0a" not in page
    client = shown.browser(Role.VIEWER)
    assert client.get(f"/console/compare?a={pair[0]}&b=zz").status_code == 404


@contextmanager
def counted(scene: Scene) -> Iterator[list[str]]:
    """The statements that the database is asked meanwhile."""
    found: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(scene.guard.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(scene.guard.engine, "before_cursor_execute", note)


def test_no_page_asks_more_queries_where_there_are_more_rows(scene: Scene) -> None:
    client = scene.browser(Role.REVIEWER)

    def queries() -> dict[str, int]:
        asked = {}
        for path in PAGES:
            with counted(scene) as found:
                client.get(path.replace("HELD", scene.held).replace("LIVE", scene.live))
            asked[path] = len(found)
        return asked

    queries()  # the first time a token's use is noted, and a connection is made
    before = queries()
    for number in range(3):
        scene.hold(f"models/more{number}/m.pt", 3)
        with transaction(scene.guard.engine) as session:
            alarms.raise_(session, "name_taken", f"s3://a/{number}", "Taken.", scene.clock)
            dead_letters.add(session, "inspect", {"scan_id": "x"}, "It broke.", scene.clock)
        scene.upload(name=f"running{number}", seed=9)

    assert queries() == before
    assert max(before.values()) <= 40


def test_lists_go_on_behind_the_last_row_of_a_page(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (queue, lists, served, log):
        monkeypatch.setattr(module, "PAGE", 1)
    scene.hold("models/second/m.pt", 3)
    client = scene.browser(Role.VIEWER)

    for start, wanted in (
        ("/console/", ("natural", "second")),
        ("/console/scans", ("second", "natural")),
        ("/console/acts", ()),
    ):
        first = client.get(start).text
        following = re.search(r'href="([^"]+)" rel="next"', first)
        assert following is not None
        second = client.get(following[1].replace("&amp;", "&")).text
        assert second != first
        for page, name in zip((first, second), wanted, strict=False):
            assert f">{name}<" in page.replace("models/", "")

    with transaction(scene.guard.engine) as session:
        alarms.raise_(session, "a", "x", "First.", scene.clock)
        alarms.raise_(session, "b", "x", "Second.", scene.clock)
        assert len(reviews.waiting(session, 1)) == 1
        top = listing.alarms(session, 1)
        rest = listing.alarms(session, 5, before=(top[0].at, top[0].id))
        live = listing.served(session, 1)
        behind = listing.served(session, 1, after=(live[0].name, live[0].version))
    assert top[0] not in rest
    assert rest
    assert behind == []


@pytest.mark.parametrize(
    ("states", "indexes"),
    [
        (lists.RUNNING, ("ix_scans_unfinished",)),
        # Which of the two depends on what the planner knows of the states.
        ({ScanState.FAILED}, ("ix_scans_failed", "ix_scans_state")),
    ],
)
def test_lists_of_few_scans_do_not_walk_over_those_that_are_done(
    shown: Scene, states: frozenset[ScanState], indexes: tuple[str, ...]
) -> None:
    asked: list[tuple[str, Any]] = []
    note = "before_cursor_execute"

    def keep(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(shown.guard.engine, note, keep)
    with reading(shown.guard.engine) as session:
        listing.scans(session, 50, states=states)
    event.remove(shown.guard.engine, note, keep)

    ((statement, values),) = [one for one in asked if "ORDER BY" in one[0]]
    with shown.guard.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert any(index in str(row) for row in plan for index in indexes), plan
