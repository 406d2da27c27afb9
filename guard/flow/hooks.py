"""Destinations of notifications: made, tested and removed by an operator; their delivery log."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guard.core.errors import InputError
from guard.core.hooks import DeliveryState, EventType, HookKind, check_types
from guard.core.roles import Act
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.notify import BACKLOG, FAILING, subject
from guard.flow.principals import Principal, permit
from guard.notify import mailing, sealing, signing
from guard.notify.addresses import Rules, read_url
from guard.notify.sealing import Target
from guard.store import alarms, deliveries, hook_events, hooks
from guard.store.notify_rows import AttemptRow, DeliveryRow, EventRow, HookRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from guard.flow.context import Guard

#: More destinations than that are a mistake; each event is matched against all of them.
MOST = 50
#: Longer lists of patterns or prefixes are refused.
MOST_FILTERS = 50
_HIDDEN = frozenset({"sealed"})


@dataclass(frozen=True, kw_only=True)
class NewHook:
    """A destination as it was just made; `secret` is shown once, "" where there is none."""

    row: HookRow
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A delivery with what it was about and all its tries."""

    row: DeliveryRow
    event: EventRow
    attempts: list[AttemptRow]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for its times."""
        tries = [
            {"at": one.at, "status": one.status, "error": one.error, "seconds": one.seconds}
            for one in self.attempts
        ]
        return {
            "id": self.row.id,
            "hook_id": self.row.hook_id,
            "event_id": self.row.event_id,
            "type": self.event.type,
            "name": self.event.name,
            "state": str(self.row.state),
            "created_at": self.row.created_at,
            "ended_at": self.row.ended_at,
            "next_at": self.row.next_at if self.row.state is DeliveryState.WAITING else None,
            "attempts": tries,
        }


def shown(row: HookRow) -> dict[str, Any]:
    """What anybody may see of a destination; JSON-ready but for its times."""
    return {key: value for key, value in vars(row).items() if key not in _HIDDEN}


def add(
    guard: "Guard",
    who: Principal | str,
    kind: HookKind,
    address: str,
    *,
    secret: str = "",
    types: Sequence[str] = (),
    prefixes: Sequence[str] = (),
) -> NewHook:
    """Make a destination; nothing is sent to it yet, and no name is looked up.

    Args:
        guard: where.
        who: an operator.
        kind: how it is reached.
        address: a URL, or a mail address.
        secret: of a webhook, `whsec_...`; without one it is made.
        types: patterns of events; none means all.
        prefixes: of served names; none means all, and events about no model.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: the address, the secret or a filter cannot be, or there are too many.
    """
    types = check_types(types)
    prefixes = tuple(dict.fromkeys(prefixes))
    if len(types) > MOST_FILTERS or len(prefixes) > MOST_FILTERS or "" in prefixes:
        raise InputError(
            f"A destination has at most {MOST_FILTERS} types and prefixes, none of them empty.",
            code="bad_hook_filter",
        )
    label = _label(guard, kind, address)
    if kind is HookKind.WEBHOOK:
        secret = secret or signing.new_secret()
        signing.key_of(secret)
    elif secret:
        raise InputError("Only webhooks have a secret.", code="bad_hook_secret")
    hook_id = uuid.uuid4().hex
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.ADD_HOOK)
        if hooks.count(session) >= MOST:
            raise InputError(f"There are {MOST} destinations; remove one.", code="too_many_hooks")
        target = Target(address=address, secret=secret)
        row = hooks.add(
            session,
            hook_id=hook_id,
            kind=kind,
            shown=label,
            sealed=sealing.seal(guard.settings.hooks_key_file, hook_id, target),
            types=types,
            prefixes=prefixes,
            by=who.name,
            now=guard.now(),
        )
        facts = {"types": list(types), "prefixes": list(prefixes)}
        note(guard, session, who, Act.ADD_HOOK, hook_id, f"{kind} {label}", facts)
    settle(guard)
    return NewHook(row=row, secret=secret)


def _label(guard: "Guard", kind: HookKind, address: str) -> str:
    """What is shown of an address that can be."""
    if kind is HookKind.EMAIL:
        return mailing.check_address(address)
    return read_url(address, Rules.of(guard.settings.notify_allowed)).shown


def listed(guard: "Guard") -> list[HookRow]:
    """The destinations in force, the oldest first."""
    with reading(guard.engine) as session:
        return hooks.list_all(session)


def show(guard: "Guard", wanted: str) -> HookRow:
    """One destination, by its id or the start of it; raises InputError where there is not one."""
    with reading(guard.engine) as session:
        return hooks.get(session, wanted)


def remove(guard: "Guard", who: Principal | str, wanted: str) -> HookRow:
    """Take a destination out of force for good; its address and secret are forgotten.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such destination, or it was removed already.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.REMOVE_HOOK)
        row = _in_force(hooks.get(session, wanted))
        hooks.remove(session, row.id, guard.now())
        deliveries.drop_waiting(session, row.id, guard.now())
        for kind in (FAILING, BACKLOG):
            alarms.clear(session, kind, subject(row), guard.now())
        note(guard, session, who, Act.REMOVE_HOOK, row.id, f"{row.kind} {row.shown}")
        made = hooks.get(session, row.id)
    settle(guard)
    return made


def test(guard: "Guard", who: Principal | str, wanted: str) -> DeliveryRow:
    """Have an event of type `guard.hook.test` sent to one destination, and to no other.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such destination.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.TEST_HOOK)
        row = _in_force(hooks.get(session, wanted))
        sentence = f"{who.name} tests this destination."
        event_id = hook_events.add(session, EventType.TEST, guard.now(), sentence, by=who.name)
        deliveries.add(session, event_id, row.id, guard.now())
        note(guard, session, who, Act.TEST_HOOK, row.id, f"test {event_id}")
        made = deliveries.recent(session, row.id, limit=1)[0]
    settle(guard)
    return made


def retry(guard: "Guard", who: Principal | str, wanted: str) -> DeliveryRow:
    """Have a delivery that is over sent once more, under the same id.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such delivery, it waits, or its destination was removed.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.TEST_HOOK)
        row = deliveries.get(session, wanted)
        _in_force(hooks.get(session, row.hook_id))
        if row.state is DeliveryState.WAITING:
            raise InputError(f"The delivery {row.id} is not over yet.", code="delivery_waits")
        deliveries.revive(session, row.id, guard.now())
        note(guard, session, who, Act.TEST_HOOK, row.hook_id, f"delivery {row.id} once more")
        made = deliveries.get(session, row.id)
    settle(guard)
    return made


def log(
    guard: "Guard", wanted: str | None = None, *, dead: bool = False, limit: int = 50
) -> list[Logged]:
    """The newest deliveries first, with all tries; of one destination, or only what is dead.

    Raises:
        InputError: there is no such destination.
    """
    with reading(guard.engine) as session:
        hook_id = hooks.get(session, wanted).id if wanted is not None else None
        rows = deliveries.recent(session, hook_id, dead=dead, limit=limit)
        return [
            Logged(
                row=row,
                event=hook_events.get(session, row.event_id),
                attempts=deliveries.attempts(session, row.id),
            )
            for row in rows
        ]


def _in_force(row: HookRow) -> HookRow:
    if row.removed_at is not None:
        raise InputError(f"The destination {row.id} was removed.", code="hook_removed")
    return row
