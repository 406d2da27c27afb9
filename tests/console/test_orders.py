"""What people ask for in the console is done by the flow, or refused by it with a sentence."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi.routing import APIRoute
from sqlalchemy import text

from guard.console import routes
from guard.core.errors import InputError, Unavailable
from guard.core.roles import MAY, Act, Role
from guard.core.states import Verdict
from guard.flow import orders, rescue, waivers
from guard.flow.principals import Forbidden, Principal, Unauthorised
from guard.store import acts, alarms, dead_letters, ledger, outbox, scans
from guard.store.order_rows import OrderState
from guard.store.session import reading, transaction
from tests import people
from tests.console.scene import NASTY, Scene
from tests.flow.test_waivers import FINDING

#: What each act is asked with, from a scene.
ASKED: dict[Act, Callable[[Scene], dict[str, str]]] = {
    Act.RESCAN: lambda scene: {"scan": scene.live},
    Act.PUBLISH: lambda scene: {"scan": scene.live},
    Act.ROLLBACK: lambda scene: {"name": _newer(scene)},
    Act.WAIVE: lambda scene: {
        "scan": scene.scan_id,
        "finding": FINDING,
        "until": scene.later(days=9).date().isoformat(),
    },
    Act.APPROVE_WAIVER: lambda scene: {"waiver": scene.ask().waiver_id},
    Act.REVOKE_WAIVER: lambda scene: {"waiver": scene.ask().waiver_id},
    Act.ACKNOWLEDGE: lambda scene: {"alarm": scene.alarm()},
    Act.RETRY: lambda scene: {"letter": scene.letter()},
    Act.REJECT: lambda scene: {"scan": scene.hold("models/other/m.pt", 3)},
    Act.APPROVE: lambda scene: {"scan": scene.hold("models/third/m.pt", 3)},
    Act.WITHDRAW: lambda scene: {"name": "fraud"},
}


def _newer(scene: Scene) -> str:
    scene.serve("models/fraud/m.pt", 2, at=2)
    return "fraud"


def test_no_role_that_may_not_do_an_act_gets_an_order_taken(shown: Scene) -> None:
    wanted = dict.fromkeys(("scan", "name", "finding", "until", "waiver", "alarm"), "x")
    for role in Role:
        client = shown.browser(role)
        for act in ASKED:
            if role not in MAY[act]:
                form = {**wanted, "letter": "x", "reason": "x", "act": str(act)}
                answer = client.post("/console/orders", data=form)
                assert answer.status_code == 403, (role, act)
                assert f"role {role}" in answer.text


def test_each_act_is_done_by_whoever_may(scene: Scene) -> None:
    for act, wanted in ASKED.items():
        client = scene.browser(max(MAY[act]), f"somebody-{max(MAY[act])}")
        asked = {**wanted(scene), "reason": "it was looked at", "act": str(act)}

        row = scene.order(client, **asked)

        assert row.state is OrderState.DONE, (act, row.answer)
        assert row.ended_at == scene.clock
        with reading(scene.guard.engine) as session:
            done = acts.list_recent(session, 10)
        assert (row.principal, act) in {(one.principal, one.act) for one in done}


def test_the_acts_of_the_console_are_those_that_are_tested() -> None:
    assert {*ASKED, Act.READ} == set(orders._DOINGS)


def test_a_refusal_by_the_flow_is_shown_as_its_sentence(scene: Scene) -> None:
    client = scene.browser(Role.REVIEWER)
    row = scene.order(client, act="approve", scan=scene.live, reason="why not")

    page = client.get(f"/console/orders/{row.id}").text

    assert row.state is OrderState.REFUSED
    assert "not held; only held verdicts wait for a review" in page
    assert "refresh" not in page


@pytest.mark.row(34)
def test_four_eyes_hold_whatever_form_is_sent(scene: Scene) -> None:
    with transaction(scene.guard.engine) as session:
        session.execute(
            text("UPDATE scans SET submitted_by = 'una' WHERE id = :id"), {"id": scene.held}
        )

    row = scene.order(
        scene.browser(Role.REVIEWER, "una"), act="approve", scan=scene.held, reason="mine"
    )

    assert row.state is OrderState.REFUSED
    assert "una uploaded this model" in row.answer
    with reading(scene.guard.engine) as session:
        verdict = ledger.get(session, scans.get(session, scene.held).verdict_id or "")
    assert verdict.verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"act": "odd"}, 400),
        ({"act": "transfer", "name": "fraud", "reason": "x"}, 400),
        ({"act": "approve", "scan": "HELD"}, 400),
        ({"act": "approve", "scan": "HELD", "reason": "  "}, 400),
        ({"act": "approve", "scan": "HELD", "reason": "x" * 10_001}, 400),
    ],
)
def test_a_form_that_lacks_something_asks_for_nothing(
    scene: Scene, fields: dict[str, str], status: int
) -> None:
    fields = {name: value.replace("HELD", scene.held) for name, value in fields.items()}

    answer = scene.browser(Role.REVIEWER).post("/console/orders", data=fields)

    assert answer.status_code == status
    who = Principal(name="the-reviewer", role=Role.REVIEWER)
    assert orders.of(scene.guard, who, 9) == []


def test_only_whoever_asked_sees_what_became_of_it(scene: Scene) -> None:
    row = scene.order(
        scene.browser(Role.REVIEWER), act="reject", scan=scene.held, reason="a secret thought"
    )

    answer = scene.browser(Role.VIEWER).get(f"/console/orders/{row.id}")
    own = scene.browser(Role.REVIEWER).get("/console/orders").text
    others = scene.browser(Role.VIEWER).get("/console/orders").text
    assert (row.answer in own, row.answer in others) == (True, False)

    assert answer.status_code == 404
    assert "secret thought" not in answer.text
    assert scene.browser(Role.VIEWER).get("/console/orders/none").status_code == 404


def test_an_order_that_waits_says_so_and_looks_again(scene: Scene) -> None:
    client = scene.browser(Role.REVIEWER)
    answer = client.post(
        "/console/orders", data={"act": "reject", "scan": scene.held, "reason": "no"}
    )

    page = client.get(answer.headers["location"]).text

    assert '<meta http-equiv="refresh" content="2">' in page
    assert "The process with the signing key does it" in page


def test_an_order_is_done_once_however_often_its_message_arrives(scene: Scene) -> None:
    row = scene.order(scene.browser(Role.REVIEWER), act="reject", scan=scene.held, reason="no")

    assert orders.work(scene.guard, row.id) == row
    with reading(scene.guard.engine) as session:
        assert len([one for one in acts.list_recent(session) if one.act is Act.REJECT]) == 1


def test_a_token_that_was_revoked_meanwhile_does_nothing(scene: Scene) -> None:
    reviewer = people.who(scene.guard, "rose", Role.REVIEWER)
    row = orders.place(scene.guard, reviewer, Act.REJECT, {"scan": scene.held, "reason": "no"})
    with transaction(scene.guard.engine) as session:
        session.execute(text("UPDATE tokens SET revoked_at = created_at WHERE principal = 'rose'"))

    scene.do_all()

    found = orders.find(scene.guard, row.id)
    assert found.state is OrderState.REFUSED
    assert "revoked" in found.answer


def test_somebody_without_a_token_asks_for_nothing(scene: Scene) -> None:
    nobody = Principal(name="login", role=None)
    with pytest.raises(Unauthorised):
        orders.place(scene.guard, nobody, Act.REJECT, {"scan": scene.held, "reason": "no"})
    viewer = people.who(scene.guard, "vi", Role.VIEWER)
    with pytest.raises(Forbidden):
        orders.place(scene.guard, viewer, Act.REJECT, {"scan": scene.held, "reason": "no"})


def test_where_the_console_is_off_nothing_that_was_asked_for_is_done(scene: Scene) -> None:
    row = orders.place(scene.guard, scene.rita, Act.REJECT, {"scan": scene.held, "reason": "no"})
    off = replace(scene.guard, settings=replace(scene.guard.settings, console=False))

    found = orders.work(off, row.id)

    assert (found.state, "GUARD_CONSOLE" in found.answer) == (OrderState.REFUSED, True)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Unavailable("The store is away."), "A component does not answer: The store is away."),
        (ZeroDivisionError("secret"), "Something unexpected happened (ZeroDivisionError)"),
    ],
)
def test_an_order_that_breaks_off_says_so_and_reveals_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def fail(*_: object) -> str:
        raise error

    needed, _ = orders._DOINGS[Act.REJECT]
    monkeypatch.setitem(orders._DOINGS, Act.REJECT, (needed, fail))
    row = orders.place(scene.guard, scene.rita, Act.REJECT, {"scan": scene.held, "reason": "no"})

    found = orders.work(scene.guard, row.id)

    assert found.answer.startswith(sentence)
    assert "secret" not in found.answer


def test_an_order_whose_message_was_lost_is_announced_again(scene: Scene) -> None:
    row = orders.place(scene.guard, scene.rita, Act.REJECT, {"scan": scene.held, "reason": "no"})
    with transaction(scene.guard.engine) as session:
        due = outbox.due(session, scene.clock)
        outbox.mark_sent(session, [one.id for one in due], scene.clock)
    rescue.rescue(scene.guard)
    with reading(scene.guard.engine) as session:
        assert outbox.due(session, scene.clock) == []
    scene.clock = scene.later(seconds=120)

    rescue.rescue(scene.guard)
    rescue.rescue(scene.guard)

    with reading(scene.guard.engine) as session:
        again = [one.payload for one in outbox.due(session, scene.clock) if one.task == "order"]
    assert again == [{"order_id": row.id}]


def test_a_waiver_needs_a_day_and_shows_on_queue_and_page_until_somebody_agrees(
    scene: Scene,
) -> None:
    asked = {**ASKED[Act.WAIVE](scene), "reason": "a square by nature"}
    bad = scene.order(scene.browser(Role.REVIEWER), act="waive", **{**asked, "until": "soon"})
    assert "YYYY-MM-DD" in bad.answer

    scene.order(scene.browser(Role.REVIEWER), act="waive", **asked)

    other = scene.browser(Role.REVIEWER, "second")
    assert "a square by nature" in other.get("/console/").text
    page = other.get(f"/console/scans/{scene.scan_id}").text
    wanted = re.search(r'name="waiver" value="(\w+)"', page)
    assert wanted is not None
    own = scene.browser(Role.REVIEWER).get(f"/console/scans/{scene.scan_id}").text
    assert "Agree to it" in page
    assert "Agree to it" not in own
    row = scene.order(other, act="waiver_approve", waiver=wanted[1])
    assert row.state is OrderState.DONE, row.answer
    assert waivers.waiting(scene.guard, 5) == []


def test_a_policy_is_simulated_by_a_worker_and_its_changes_are_listed(scene: Scene) -> None:
    client = scene.browser(Role.VIEWER)
    policy = scene.guard.policy
    assert "What would another policy decide?" in client.get("/console/policy").text

    row = scene.order(client, act="read", policy="default")

    page = client.get(f"/console/orders/{row.id}").text
    assert row.state is OrderState.DONE, row.answer
    assert row.result is not None
    assert "artifacts would change" in page
    assert row.result["policy"] != policy.digest


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("a = [", "not valid TOML"),
        ('[calibration]\nfile = "/etc/passwd"', "guard policy simulate"),
        ("name = 3", "name"),
    ],
)
def test_a_policy_that_is_none_is_refused_and_opens_no_file(
    scene: Scene, policy: str, sentence: str
) -> None:
    row = scene.order(scene.browser(Role.VIEWER), act="read", policy=policy)

    assert row.state is OrderState.REFUSED
    assert sentence in row.answer


@pytest.mark.threat("C13", "C14")
def test_nothing_that_a_stranger_wrote_is_markup_on_any_page(scene: Scene) -> None:
    """Names, uploaders, reasons, errors, findings and messages."""
    with transaction(scene.guard.engine) as session:
        for column in ("name", "submitted_by", "error", "bucket", '"key"'):
            session.execute(text(f"UPDATE scans SET {column} = :bad"), {"bad": NASTY})
        session.execute(text("DROP TRIGGER IF EXISTS evidence_no_update"))
        alarms.raise_(session, NASTY[:60], NASTY, NASTY, scene.clock)
        dead_letters.add(session, "inspect", {NASTY: NASTY, "scan_id": NASTY}, NASTY, scene.clock)
    client = scene.browser(Role.REVIEWER)
    operator = scene.browser(Role.OPERATOR)
    scene.order(client, act="reject", scan=scene.held, reason=NASTY)
    row = scene.order(client, act="reject", scan=NASTY, reason=NASTY)
    paths = (
        "/console/",
        "/console/scans",
        f"/console/scans/{scene.held}",
        f"/console/scans/{scene.held}/report",
        f"/console/scans/{scene.live}",
        "/console/served",
        "/console/acts",
        "/console/alarms",
        f"/console/orders/{row.id}",
    )

    pages = [client.get(path).text for path in paths]
    pages += [
        operator.get("/console/alarms").text,
        client.get("/console/scans", params={"q": NASTY}).text,
        client.get("/console/acts", params={"by": NASTY}).text,
        client.get("/console/compare", params={"a": NASTY, "b": NASTY}).text,
        client.get(f"/console/scans/{'%3Cscript%3E'}").text,
        client.post("/console/orders", data={"act": NASTY}).text,
    ]

    for page in pages:
        assert "<script" not in page
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page
    assert sum("&lt;script&gt;alert(1)" in page for page in pages) >= 9


def test_forms_of_both_encodings_are_read_and_what_is_none_is_refused(scene: Scene) -> None:
    client = scene.browser(Role.VIEWER)

    sent = client.post(
        "/console/orders",
        data={"act": "read", "policy": ""},
        files={"policy": ("p.toml", b"default")},
    )
    assert sent.status_code == 303
    row = orders.find(scene.guard, sent.headers["location"].rpartition("/")[2])
    assert row.wanted == {"policy": "default"}
    for content, kind in (
        (b"\xff=1", "application/x-www-form-urlencoded"),
        (b"", "multipart/form-data"),
        (b"--x\r\nnothing", "multipart/form-data; boundary=x"),
    ):
        answer = client.post("/console/orders", content=content, headers={"content-type": kind})
        assert answer.status_code == 400


def test_an_order_that_nothing_does_is_refused(scene: Scene) -> None:
    with pytest.raises(InputError):
        orders.place(scene.guard, scene.rita, Act.TRANSFER, {"name": "fraud"})


def test_every_form_of_the_console_is_an_order_or_asks_for_images() -> None:
    """So no route of it leaves an act, or changes anything, but through `guard.flow.orders`."""
    posts = {
        route.path
        for router in routes.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.methods != {"GET"}
    }

    assert posts == {"/console/orders", "/console/scans/{scan_id}/images"}
