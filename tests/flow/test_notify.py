"""From what happens to the receiver: at least once, later where it is down, never without end."""

import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from guard.core.errors import GuardError, InputError
from guard.core.hooks import DeliveryState, EventType, HookKind
from guard.core.notes import Attempt
from guard.core.roles import Act, Role
from guard.core.states import Verdict
from guard.flow import _happened, hooks, notify, review, run_stage, withdraw
from guard.flow._handover import give_up
from guard.flow._lease import hold
from guard.flow.hooks import NewHook
from guard.flow.principals import Forbidden, Principal, Unauthorised
from guard.store import acts, alarms, deliveries, outbox
from guard.store import hooks as rows
from guard.store.session import reading, transaction
from tests import people
from tests.flow.place import finding
from tests.flow.shop import Shop
from tests.notify.receiver import Receiver, receiver
from tests.schemas import faults

ENV = {
    "GUARD_NOTIFY_ALLOWED": "127.0.0.1",
    "GUARD_NOTIFY_TRIES": "3",
    "GUARD_NOTIFY_BACKLOG": "4",
    "GUARD_NOTIFY_SECONDS": "2",
    "GUARD_PUBLIC_URL": "https://guard.example/",
}


class Scene(Shop):
    """A registry with an operator and a receiver on loopback."""

    def __init__(self, folder: Path, there: Receiver) -> None:
        super().__init__(folder, ENV)
        self.olga = people.who(self.guard, "olga", Role.OPERATOR)
        self.there = there

    def hook(self, kind: HookKind = HookKind.WEBHOOK, **filters: list[str]) -> NewHook:
        return hooks.add(self.guard, self.olga, kind, self.there.url, **filters)  # type: ignore[arg-type]

    def alarm(self, subject: str, kind: str = "odd") -> None:
        with transaction(self.guard.engine) as session:
            alarms.raise_(session, kind, subject, "Something is wrong.", self.clock)

    def relay(self) -> int:
        """What the relay and the worker of the queue `notify` do; how many were tried."""
        with transaction(self.guard.engine) as session:
            due = [row for row in outbox.due(session, self.clock) if row.task == "notify"]
            outbox.mark_sent(session, [row.id for row in due], self.clock)
        for row in due:
            notify.fan_out(self.guard, **row.payload)
        return notify.send_due(self.guard)

    def later(self, seconds: float = 2 * notify.LONGEST_PAUSE) -> int:
        self.clock += timedelta(seconds=seconds)
        return self.relay()

    def states(self) -> list[str]:
        return [str(one.row.state) for one in hooks.log(self.guard)]

    def got(self) -> list[str]:
        return [json.loads(body)["type"] for _, _, body in self.there.got]

    def open_alarms(self) -> list[str]:
        with reading(self.guard.engine) as session:
            return sorted(row.kind for row in alarms.open_alarms(session))


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as facts:
        yield facts


@pytest.fixture
def scene(tmp_path: Path, there: Receiver) -> Scene:
    return Scene(tmp_path, there)


def test_what_happens_to_a_model_is_sent_signed_and_once(scene: Scene) -> None:
    made = scene.hook()
    scan_id = scene.serve("models/fraud/m.pt", 0)
    scene.relay()
    withdraw.withdraw(scene.guard, "fraud", "a customer found it odd", scene.olga)
    scene.relay()

    assert scene.got() == [
        "guard.model.received",
        "guard.verdict.issued",
        "guard.model.published",
        "guard.model.withdrawn",
        "guard.model.unpublished",
    ]
    path, headers, body = scene.there.got[1]
    assert path == "/in?key=hidden"
    assert headers["content-type"].startswith("application/cloudevents+json")
    wanted = {name: headers[name] for name in headers if name.startswith("webhook-")}
    wanted["webhook-timestamp"] = str(int(datetime.now(UTC).timestamp()))
    signed = Webhook(made.secret).sign(headers["webhook-id"], scene.clock, body.decode())
    assert headers["webhook-signature"] == signed
    data = json.loads(body)["data"]
    assert (data["name"], data["verdict"], data["scan_id"]) == ("fraud", "cleared", scan_id)
    assert data["link"] == f"https://guard.example/console/scans/{scan_id}"
    assert set(scene.states()) == {"sent"}
    for _, _, sent in scene.there.got:
        assert faults("notification.schema.json", json.loads(sent)) == []
    assert len({one[1]["webhook-id"] for one in scene.there.got}) == 5


def test_who_reviews_hears_what_waits_and_what_was_decided(scene: Scene) -> None:
    scene.hook(types=["guard.review.*"])
    scan_id = scene.put("models/natural/m.pt", 2)
    scene.with_evidence(scan_id, finding(suspicious=True, natural=0.95))
    run_stage.work(scene.guard, "decide", scan_id)
    rita = people.who(scene.guard, "rita", Role.REVIEWER)
    review.reject(scene.guard, scan_id, rita, "no <b>reason</b>")
    scene.relay()

    assert scene.got() == ["guard.review.requested", "guard.review.decided"]
    decided = json.loads(scene.there.got[1][2])["data"]
    assert (decided["by"], decided["verdict"]) == ("rita", "rejected")


def test_a_scan_that_cannot_be_finished_is_sent(scene: Scene) -> None:
    scene.hook(types=["guard.scan.failed"], prefixes=["broken"])
    scan_id = scene.put("models/broken/m.pt")
    with hold(scene.guard, scan_id) as held:
        assert held is not None
        give_up(scene.guard, held, "detect", "The disk was full.")
    run_stage.work(scene.guard, "decide", scan_id)
    scene.relay()

    assert scene.got() == ["guard.scan.failed"]
    assert "disk was full" in json.loads(scene.there.got[0][2])["data"]["sentence"]


def test_how_repairs_ended_is_sent_and_what_is_still_held_waits(scene: Scene) -> None:
    scene.hook(types=["guard.repair.done", "guard.review.requested"])
    scan = scene.scan(scene.put("models/fraud/m.pt", 2))
    good = Attempt(defense="prune", digest="d" * 64, verdict=Verdict.PURIFIED)
    bad = Attempt(defense="tune", verdict=Verdict.REJECTED)
    with transaction(scene.guard.engine) as session:
        for tried, own in (([bad, good], Verdict.HELD), ([bad], Verdict.HELD)):
            _happened.repaired(scene.guard, session, scan, tried, own)
    scene.relay()

    outcomes = [json.loads(body)["data"].get("outcome") for _, _, body in scene.there.got]
    assert outcomes == ["repaired", "not_repaired", None]
    assert scene.got()[2] == "guard.review.requested"


def test_without_a_destination_nothing_is_written(scene: Scene) -> None:
    scene.alarm("a")
    with reading(scene.guard.engine) as session:
        assert session.execute(text("SELECT count(*) FROM hook_events")).scalar_one() == 0


def test_an_event_is_rolled_back_with_what_it_is_about(scene: Scene) -> None:
    scene.hook()

    def fail() -> None:
        with transaction(scene.guard.engine) as session:
            alarms.raise_(session, "odd", "x", "Wrong.", scene.clock)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert scene.relay() == 0


def test_an_event_that_comes_twice_is_one_delivery(scene: Scene) -> None:
    scene.hook()
    scene.alarm("a")
    with reading(scene.guard.engine) as session:
        event = session.execute(text("SELECT id FROM hook_events")).scalar_one()

    assert [notify.fan_out(scene.guard, event) for _ in range(2)] == [1, 0]
    assert scene.relay() == 1
    with pytest.raises(InputError, match="no event"):
        notify.fan_out(scene.guard, "gone")


@pytest.mark.row(53)
def test_a_receiver_that_is_down_rests_and_is_tried_again_under_the_same_id(scene: Scene) -> None:
    scene.hook()
    scene.there.answer = (503, {"Retry-After": "7200"}, b"down\x1b[0m for repairs" + b"x" * 500)
    for subject in "abc":
        scene.alarm(subject)

    assert scene.relay() == 1, "one try tells enough"
    assert scene.relay() == 0
    assert scene.later(7100) == 0, "it asked to be left alone"
    [row] = hooks.listed(scene.guard)
    assert row.failures == 1
    scene.there.answer = (200, {}, b"")
    assert scene.later(200) == 3

    ids = [headers["webhook-id"] for _, headers, _ in scene.there.got]
    assert (len(ids), len(set(ids)), ids[0]) == (4, 3, ids[1])
    first = hooks.log(scene.guard)[-1].attempts
    assert [one.status for one in first] == [503, 200]
    assert first[0].error.startswith("down\\x1b[0m for repairs")
    assert len(first[0].error) <= 200
    assert hooks.listed(scene.guard)[0].resting_until is None


def test_after_the_last_try_a_delivery_is_dead_and_an_alarm_says_so_once(scene: Scene) -> None:
    made = scene.hook()
    scene.there.answer = (500, {}, b"")
    scene.alarm("a")
    assert [scene.relay(), scene.later(), scene.later(), scene.later()] == [1, 1, 1, 1]

    assert scene.states().count("dead") == 1
    assert scene.open_alarms() == ["hook_failing", "odd"]
    [dead] = hooks.log(scene.guard, made.row.id[:8], dead=True)
    assert len(dead.attempts) == 3
    assert dead.to_dict()["next_at"] is None
    for _ in range(9):  # the alarm's own event is given up in turn, and raises no further one
        scene.later()
    assert set(scene.states()) == {"dead"}

    scene.there.answer = (204, {}, b"")
    again = hooks.retry(scene.guard, scene.olga, dead.row.id)
    assert again.attempts == 0
    assert scene.later() >= 1
    assert scene.there.got[-1][1]["webhook-id"] == dead.row.id
    assert "hook_failing" not in scene.open_alarms()


def test_a_receiver_that_says_it_is_gone_gets_no_second_try(scene: Scene) -> None:
    scene.hook(types=["guard.alarm.raised"])
    scene.there.answer = (410, {}, b"")
    scene.alarm("a")
    scene.relay()

    assert "dead" in scene.states()


def test_of_a_destination_that_is_down_for_long_each_delivery_is_tried_once(scene: Scene) -> None:
    made = scene.hook(types=["guard.alarm.raised"])
    with transaction(scene.guard.engine) as session:
        for _ in range(6):
            rows.failed(session, made.row.id, scene.clock)
    scene.there.answer = (500, {}, b"")
    scene.alarm("a")
    scene.relay()

    assert "dead" in scene.states()


def test_a_dead_receiver_cannot_grow_the_queue(scene: Scene) -> None:
    scene.hook(types=["guard.alarm.raised"])
    scene.there.answer = (500, {}, b"")
    for number in range(12):
        scene.alarm(f"subject {number}")
    scene.relay()

    with reading(scene.guard.engine) as session:
        assert deliveries.waiting(session, hooks.listed(scene.guard)[0].id) == 4
    assert scene.states().count("dropped") >= 8
    assert "hook_backlog" in scene.open_alarms()


def test_a_slow_receiver_holds_up_neither_the_others_nor_a_scan(
    scene: Scene, tmp_path: Path
) -> None:
    scene.hook()
    with receiver() as other:
        hooks.add(scene.guard, scene.olga, HookKind.WEBHOOK, other.url)
        scene.there.answer = (500, {}, b"")
        scene.serve("models/fraud/m.pt", 0)
        assert scene.scan(scene.put("models/x/m.pt")).id
        scene.relay()
        assert len(other.got) >= 3
    assert len(scene.there.got) == 1


def test_a_worker_that_died_in_a_try_does_not_lose_the_delivery(scene: Scene) -> None:
    scene.hook()
    scene.alarm("a")
    with transaction(scene.guard.engine) as session:
        [due] = [row for row in outbox.due(session, scene.clock) if row.task == "notify"]
        outbox.mark_sent(session, [due.id], scene.clock)
    notify.fan_out(scene.guard, **due.payload)
    with transaction(scene.guard.engine) as session:
        row = deliveries.recent(session)[0]
        assert deliveries.claim(session, row, scene.clock + timedelta(seconds=60))
        assert not deliveries.claim(session, row, scene.clock + timedelta(seconds=60))

    assert scene.relay() == 0
    assert scene.later(61) == 1


def test_an_event_whose_message_was_lost_is_made_good(scene: Scene) -> None:
    scene.hook()
    scene.alarm("a")
    with transaction(scene.guard.engine) as session:
        outbox.mark_sent(session, [row.id for row in outbox.due(session, scene.clock)], scene.clock)

    assert notify.catch_up(scene.guard) == 0, "its message may be on the way"
    scene.clock += timedelta(minutes=3)
    assert notify.catch_up(scene.guard) == 1
    assert notify.catch_up(scene.guard) == 0
    assert scene.relay() == 1


def test_a_delivery_whose_every_try_ended_the_worker_is_dead(scene: Scene) -> None:
    made = scene.hook()
    hooks.test(scene.guard, scene.olga, made.row.id)
    for _ in range(3):
        with transaction(scene.guard.engine) as session:
            row = deliveries.recent(session)[0]
            assert deliveries.claim(session, row, scene.clock - timedelta(seconds=1))
        scene.clock += timedelta(seconds=1)
    scene.relay()

    assert (scene.states(), scene.there.got) == (["dead"], [])


def test_a_destination_that_is_removed_takes_its_alarms_along(scene: Scene) -> None:
    made = scene.hook(types=["guard.alarm.raised"])
    scene.there.answer = (410, {}, b"")
    scene.alarm("a")
    scene.relay()
    assert "hook_failing" in scene.open_alarms()
    hooks.remove(scene.guard, scene.olga, made.row.id)

    assert scene.open_alarms() == ["odd"]


def test_a_turn_ends_when_its_time_is_over(scene: Scene) -> None:
    scene.hook()
    scene.alarm("a")

    assert notify.send_due(scene.guard, seconds=-1) == 0


def test_what_is_old_is_deleted_with_its_log(scene: Scene) -> None:
    scene.hook()
    scene.alarm("a")
    scene.relay()
    notify.prune(scene.guard)
    assert len(hooks.log(scene.guard)) == 1
    scene.clock += timedelta(days=31)
    notify.prune(scene.guard)

    with reading(scene.guard.engine) as session:
        for table in ("hook_events", "deliveries", "delivery_attempts"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_pauses_grow_and_differ() -> None:
    found = [[notify.pause(tries) for _ in range(50)] for tries in (1, 5, 30)]

    assert [max(one) <= 1 + most for one, most in zip(found, (10, 160, 3600), strict=True)]
    assert len({round(one, 3) for one in found[2]}) > 10
    assert max(found[0]) <= 11
    assert max(found[2]) <= 3601


@pytest.mark.row(53)
def test_slack_and_mail_get_their_forms(scene: Scene) -> None:
    scene.hook(HookKind.SLACK)
    hooks.add(scene.guard, scene.olga, HookKind.EMAIL, "ops@example.com")
    scene.alarm("a")
    scene.relay()

    body = json.loads(scene.there.got[0][2])
    assert body["blocks"][0]["text"]["text"].startswith("Alarm odd about a")
    assert "webhook-signature" not in scene.there.got[0][1]
    log = {str(one.row.state): one for one in hooks.log(scene.guard)}
    assert "GUARD_SMTP_HOST" in log["waiting"].attempts[0].error


def test_a_mail_is_handed_to_the_relay(tmp_path: Path) -> None:
    from tests.notify.test_forms import Inbox, smtp

    inbox = Inbox()
    with smtp(inbox, None) as port, receiver() as there:
        relay = {
            "GUARD_SMTP_HOST": "127.0.0.1",
            "GUARD_SMTP_PORT": str(port),
            "GUARD_SMTP_TLS": "none",
            "GUARD_SMTP_FROM": "guard@example.com",
        }
        ENV.update(relay)
        try:
            scene = Scene(tmp_path, there)
        finally:
            for name in relay:
                ENV.pop(name)
        hooks.add(scene.guard, scene.olga, HookKind.EMAIL, "ops@example.com")
        scene.alarm("a")
        scene.relay()

    assert b"To: ops@example.com" in inbox.mails[0]
    assert scene.states() == ["sent"]


def test_what_is_secret_is_neither_shown_nor_stored_in_the_clear(scene: Scene) -> None:
    made = scene.hook()
    shown = json.dumps([hooks.shown(row) for row in hooks.listed(scene.guard)], default=str) + repr(
        made
    )
    with reading(scene.guard.engine) as session:
        [act] = acts.of_kind(session, Act.ADD_HOOK)
    database = scene.guard.settings.data_dir / "guard.db"
    with sqlite3.connect(database) as connection:
        dump = "\n".join(connection.iterdump())

    for found in (shown, str(act), dump):
        assert "hidden" not in found
        assert made.secret not in found
        assert made.secret.removeprefix("whsec_") not in found
    assert act.principal == "olga"


def test_a_row_that_was_exchanged_is_not_sent_to(scene: Scene) -> None:
    made = scene.hook()
    with receiver() as other:
        theirs = hooks.add(scene.guard, scene.olga, HookKind.SLACK, other.url)
        with transaction(scene.guard.engine) as session:
            session.execute(
                text("UPDATE hooks SET sealed = :sealed WHERE id = :id"),
                {"sealed": theirs.row.sealed, "id": made.row.id},
            )
        row = hooks.test(scene.guard, scene.olga, made.row.id)
        scene.relay()
        assert other.got == []

    [one] = hooks.log(scene.guard, made.row.id)
    assert (one.row.id, one.row.state) == (row.id, DeliveryState.WAITING)
    assert "does not open" in one.attempts[0].error


def test_an_address_that_is_not_listed_any_more_is_refused_when_it_is_sent_to(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.hook()
    object.__setattr__(scene.guard.settings, "notify_allowed", ())
    scene.alarm("a")
    scene.relay()

    assert scene.there.got == []
    assert "GUARD_NOTIFY_ALLOWED" in hooks.log(scene.guard)[0].attempts[0].error


def test_nothing_that_listens_is_no_answer_and_its_address_is_not_logged(scene: Scene) -> None:
    scene.hook()
    scene.there.port  # noqa: B018 - the port of a receiver that goes away
    with receiver() as gone:
        hooks.add(scene.guard, scene.olga, HookKind.WEBHOOK, gone.url, types=["guard.alarm.raised"])
    scene.alarm("a")
    scene.relay()

    errors = [one.error for row in hooks.log(scene.guard) for one in row.attempts if one.error]
    assert errors == ["No answer: ConnectionRefusedError."]


def test_a_removed_destination_is_forgotten(scene: Scene) -> None:
    made = scene.hook()
    scene.alarm("a")
    with transaction(scene.guard.engine) as session:
        [due] = [row for row in outbox.due(session, scene.clock) if row.task == "notify"]
        outbox.mark_sent(session, [due.id], scene.clock)
    notify.fan_out(scene.guard, **due.payload)
    gone = hooks.remove(scene.guard, scene.olga, made.row.id[:6])

    assert (gone.sealed, gone.removed_at) == ("", scene.clock)
    assert hooks.listed(scene.guard) == []
    assert scene.states() == ["dropped"]
    assert scene.relay() == 0
    for call in (
        lambda: hooks.remove(scene.guard, scene.olga, made.row.id),
        lambda: hooks.test(scene.guard, scene.olga, made.row.id),
        lambda: hooks.retry(scene.guard, scene.olga, hooks.log(scene.guard)[0].row.id),
    ):
        with pytest.raises(InputError, match="was removed"):
            call()
    assert hooks.show(scene.guard, made.row.id) == gone


def test_only_an_operator_makes_tests_and_removes_destinations(scene: Scene) -> None:
    made = scene.hook()
    rita = people.who(scene.guard, "rita", Role.REVIEWER)
    login = Principal(name="login", role=None)
    for who, error in ((rita, Forbidden), (login, Unauthorised)):
        for call in (
            lambda who=who: hooks.add(scene.guard, who, HookKind.WEBHOOK, scene.there.url),
            lambda who=who: hooks.test(scene.guard, who, made.row.id),
            lambda who=who: hooks.remove(scene.guard, who, made.row.id),
            lambda who=who: hooks.retry(scene.guard, who, "abcd"),
        ):
            with pytest.raises(error):
                call()


@pytest.mark.parametrize(
    ("kind", "address", "more", "what"),
    [
        (HookKind.WEBHOOK, "https://10.0.0.1/", {}, "not public"),
        (HookKind.WEBHOOK, "https://a.example/", {"secret": "short"}, "whsec_"),
        (HookKind.SLACK, "https://a.example/", {"secret": "whsec_x"}, "Only webhooks"),
        (HookKind.EMAIL, "https://a.example/", {}, "plain address"),
        (HookKind.WEBHOOK, "https://a.example/", {"types": ["x"]}, "fits no type"),
        (HookKind.WEBHOOK, "https://a.example/", {"prefixes": [""]}, "none of them empty"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(
    scene: Scene, kind: HookKind, address: str, more: dict[str, object], what: str
) -> None:
    with pytest.raises(GuardError, match=what):
        hooks.add(scene.guard, scene.olga, kind, address, **more)  # type: ignore[arg-type]


def test_there_are_not_more_destinations_than_can_be_matched(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "MOST", 1)
    scene.hook()
    with pytest.raises(InputError, match="remove one"):
        scene.hook()


def test_what_waits_cannot_be_sent_once_more(scene: Scene) -> None:
    made = scene.hook()
    row = hooks.test(scene.guard, scene.olga, made.row.id)

    with pytest.raises(InputError, match="not over yet"):
        hooks.retry(scene.guard, scene.olga, row.id)
    assert hooks.log(scene.guard)[0].to_dict()["next_at"] is not None
    assert scene.relay() == 1
    assert scene.got() == [str(EventType.TEST)]


def test_a_sending_turn_is_quick_where_nothing_is_due(scene: Scene) -> None:
    scene.hook()
    begun = time.monotonic()
    assert scene.relay() == 0
    assert time.monotonic() - begun < 1
