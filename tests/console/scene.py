"""A registry with a held model, a served one and people, and browsers of each role."""

from collections.abc import Callable  # noqa: TC003
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.api.sessions import COOKIE
from guard.core.roles import Role
from guard.flow import exhibits, notify, orders, run_stage
from guard.flow.principals import authenticate
from guard.flow.sessions import open_session
from guard.store import alarms, dead_letters, outbox
from guard.store.order_rows import OrderRow
from guard.store.session import reading, transaction
from tests import people
from tests.flow.place import finding
from tests.flow.test_report import patch
from tests.flow.test_waivers import Scene as Waivable

#: What an attacker would put wherever people read: tags, broken attributes, hidden characters.
NASTY = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>\u202eevil\x1b[31m'"


class Scene(Waivable):
    """`held` waits for a review; `live` is the scan of a model that is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.live = self.serve("models/fraud/m.pt", 0, at=1)
        self.held = self.hold("models/natural/m.pt", 3)
        self.app = create_app(self.guard)
        self.tokens: dict[str, str] = {}
        self.address = ""  # where a browser finds it

    def hold(self, key: str, model: int, **finds: Any) -> str:
        """Have a model examined that a person must look at."""
        scan_id = self.put(key, model)
        trigger = self.guard.blobs.put_bytes(patch())
        found = finding(suspicious=True, natural=0.95)
        self.with_evidence(scan_id, replace(found, trigger_digest=trigger, **finds))
        run_stage.work(self.guard, "decide", scan_id)
        return scan_id

    def browser(self, role: Role, name: str = "") -> TestClient:
        """The browser of a person of this role."""
        name = name or f"the-{role}"
        if name not in self.tokens:
            self.tokens[name] = people.give(self.guard, name, role)
        client = TestClient(self.app, raise_server_exceptions=False, follow_redirects=False)
        opened = open_session(self.guard, authenticate(self.guard, self.tokens[name]))
        client.cookies.set(COOKIE, opened.cookie)
        client.headers.update({"Origin": str(client.base_url), "csrf": opened.csrf})
        return client

    def alarm(self) -> str:
        """The id of an open alarm."""
        with transaction(self.guard.engine) as session:
            alarms.raise_(session, "name_taken", "s3://models/a", "It is taken.", self.clock)
            return alarms.open_alarms(session, "name_taken")[0].id

    def letter(self) -> str:
        """The id of a dead letter."""
        run_stage.bury(self.guard, "inspect", self.upload(name="lost"), "It broke.")
        with reading(self.guard.engine) as session:
            return dead_letters.list_all(session)[0].id

    def order(self, client: TestClient, **fields: str) -> OrderRow:
        """Send a form as the console's pages do, and have a worker do what is asked for."""
        answer = client.post("/console/orders", data=fields)
        assert answer.status_code == 303, answer.text
        self.do_all()
        return orders.find(self.guard, answer.headers["location"].rpartition("/")[2])

    def notify(self, event_id: str) -> None:
        """Send an event to whoever wants it, as the worker of the queue `notify` does."""
        notify.fan_out(self.guard, event_id)
        notify.send_due(self.guard)

    def do_all(self) -> None:
        """Do every message that is due, as workers would."""
        do: dict[str, Callable[[str], object]] = {
            "order": partial(orders.work, self.guard),
            "draw": partial(exhibits.draw, self.guard),
            "notify": self.notify,
        }
        while True:
            with transaction(self.guard.engine) as session:
                due = outbox.due(session, self.clock, 100)
                outbox.mark_sent(session, [row.id for row in due], self.clock)
            if not due:
                return
            for row in due:
                (about,) = row.payload.values()
                stage = partial(run_stage.work, self.guard, row.task)
                do.get(row.task, stage)(str(about))
