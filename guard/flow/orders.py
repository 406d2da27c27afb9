"""What people ask for in the console, done by a process that has the key.

The console runs in the API, which has no key, no bucket and no way to serving. So it records an
order, and a worker of the control queue does it: by the same use case as the command line, which
checks the role, the four eyes and everything else. An order is begun once at most: a person asks
again, no machine does.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import structlog

from guard.core.errors import GuardError, InputError, Unavailable
from guard.core.roles import Act, Role
from guard.flow import readers
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.store import orders, outbox
from guard.store.order_rows import OrderRow, OrderState
from guard.store.session import reading, transaction

_LOG = structlog.get_logger()
MAX_REASON = 10_000
MOST_CHANGES = 500  # of a simulation that are listed
_Done = str | tuple[str, dict[str, Any]]
Wanted = Mapping[str, str]
_OFF = "The console is off (GUARD_CONSOLE), so nothing that is asked for there is done."


def place(guard: Guard, who: Principal, act: Act, wanted: Wanted) -> OrderRow:
    """Record what a person asks for, and have it done soon.

    Args:
        wanted: what the use case needs (`_DOINGS`), as texts.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: it is nothing that the console does, something is missing, or a reason is.
    """
    doing = _DOINGS.get(act)
    if doing is None:
        raise InputError(f"The console does not do {act}.", code="not_ordered")
    needed, _ = doing
    missing = [name for name in needed if not wanted.get(name, "").strip()]
    if missing:
        raise InputError(f"Please give: {', '.join(missing)}.", code="order_incomplete")
    if len(wanted.get("reason", "")) > MAX_REASON:
        raise InputError(f"A reason has {MAX_REASON} characters at most.", code="order_incomplete")
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, act)
        row = orders.add(
            session,
            act=act,
            wanted={name: value.strip() for name, value in wanted.items()},
            principal=who.name,
            role=str(who.role or ""),
            token_id=who.token_id,
            now=guard.now(),
        )
        outbox.add(session, "order", {"order_id": row.id}, guard.now())
    return row


def find(guard: Guard, order_id: str, who: Principal | None = None) -> OrderRow:
    """One order; with `who` one that they placed.

    Raises:
        InputError: there is none.
    """
    with reading(guard.engine) as session:
        return orders.get(session, order_id, by=None if who is None else who.name)


def of(guard: Guard, who: Principal, limit: int) -> list[OrderRow]:
    """The newest orders of a person."""
    with reading(guard.engine) as session:
        return orders.of_principal(session, who.name, limit)


def work(guard: Guard, order_id: str) -> OrderRow:
    """Do an order that waits, and record what came of it; any other stays as it is.

    Raises:
        InputError: there is no such order.
        Unavailable: the database did not answer.
    """
    with transaction(guard.engine) as session:
        row = orders.get(session, order_id)
        if not orders.begin(session, row.id):
            return row
    state, answer, result = OrderState.DONE, "", None
    try:
        if not guard.settings.console:
            raise InputError(_OFF, code="not_ordered")
        done = _DOINGS[row.act][1](guard, _who(row), row.wanted)
        answer, result = (done, None) if isinstance(done, str) else done
    except Unavailable as error:
        state, answer = OrderState.REFUSED, f"A component does not answer: {error.sentence}"
    except GuardError as error:
        state, answer = OrderState.REFUSED, error.sentence
    except Exception as error:  # noqa: BLE001 - whoever asked must learn that it is over
        _LOG.exception("order_crashed", order_id=row.id, act=str(row.act))
        state = OrderState.REFUSED
        answer = f"Something unexpected happened ({type(error).__name__}); the worker's log has it."
    with transaction(guard.engine) as session:
        orders.end(session, row.id, state, answer, result, guard.now())
    return find(guard, order_id)


def _who(row: OrderRow) -> Principal:
    return Principal(
        name=row.principal, role=Role(row.role) if row.role else None, token_id=row.token_id
    )


def _review(guard: Guard, who: Principal, wanted: Wanted, *, approved: bool) -> str:
    from guard.flow import review

    act = review.approve if approved else review.reject
    verdict = act(guard, wanted["scan"], who, wanted["reason"])
    return f"{'Approved' if approved else 'Rejected'} by verdict {verdict}, which is signed."


def _approve(guard: Guard, who: Principal, wanted: Wanted) -> str:
    return _review(guard, who, wanted, approved=True)


def _reject(guard: Guard, who: Principal, wanted: Wanted) -> str:
    return _review(guard, who, wanted, approved=False)


def _rescan(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import rescan

    opened = rescan.request(guard, wanted["scan"], who)
    return f"Scanned again: {', '.join(opened)}."


def _withdraw(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow.withdraw import withdraw

    rows = withdraw(guard, wanted["name"], wanted["reason"], who)
    done = ", ".join(f"{row.name} {row.version}" for row in rows) or "nothing was being served"
    return f"Withdrawn for good: {done}."


def _rollback(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import names

    scan = names.rollback(guard, wanted["name"], wanted.get("to") or None, wanted["reason"], who)
    return f"Going back to sha256:{scan.canonical_digest or ''}."


def _publish(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import publish

    publish.request(guard, wanted["scan"], who)
    return "On the way to serving."


def _waive(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import waivers

    try:
        day = date.fromisoformat(wanted["until"])
    except ValueError as error:
        raise InputError("The day is YYYY-MM-DD.", code="waiver_until") from error
    until = datetime.combine(day, time(), tzinfo=UTC)
    made = waivers.ask(
        guard, who, wanted["scan"], wanted["finding"], reason=wanted["reason"], until=until
    )
    return f"Waiver {made.waiver_id} waits for a second reviewer."


def _agree(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import waivers

    _, opened = waivers.approve(guard, who, wanted["waiver"])
    return f"The waiver counts; decided anew: {', '.join(opened) or 'nothing'}."


def _revoke(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import waivers

    _, opened = waivers.revoke(guard, who, wanted["waiver"], wanted["reason"])
    return f"The waiver has ended; decided anew: {', '.join(opened) or 'nothing'}."


def _acknowledge(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import alarms

    seen = alarms.acknowledge(guard, who, wanted["alarm"], wanted["reason"])
    open_still = seen.row.cleared_at is None
    return "Acknowledged; open until what it is about is over." if open_still else "Closed."


def _retry(guard: Guard, who: Principal, wanted: Wanted) -> str:
    from guard.flow import retry

    retry.retry(guard, who, wanted["letter"])
    return "It is tried again."


def _simulate(guard: Guard, who: Principal, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    from guard.flow import simulate

    with reading(guard.engine) as session:
        who = permit(guard, session, who, Act.READ)
        scope = readers.scope_of(guard, session, who)
    readers.check_everything(scope, "A simulation")
    found = simulate.simulate(guard, simulate.policy_of(wanted["policy"]))
    changes = [
        {
            "name": one.name,
            "digest": one.digest,
            "scan_id": one.scan_id,
            "served": one.served,
            "before": str(one.before),
            "after": str(one.after or simulate.MISSING),
            "reasons": list(one.reasons),
        }
        for one in found.changes
    ]
    counts = [[*pair, number] for pair, number in found.counts.items()]
    answer = f"{len(changes)} of {found.artifacts} artifacts would change."
    return answer, {
        "policy": found.policy,
        "repairs": found.repairs,
        "counts": counts,
        "changes": changes[:MOST_CHANGES],
    }


#: What the console does: the act, what it needs, and the use case.
_DOINGS: Mapping[Act, tuple[tuple[str, ...], Callable[[Guard, Principal, Any], _Done]]] = {
    Act.READ: (("policy",), _simulate),
    Act.APPROVE: (("scan", "reason"), _approve),
    Act.REJECT: (("scan", "reason"), _reject),
    Act.RESCAN: (("scan",), _rescan),
    Act.PUBLISH: (("scan",), _publish),
    Act.WITHDRAW: (("name", "reason"), _withdraw),
    Act.ROLLBACK: (("name", "reason"), _rollback),
    Act.WAIVE: (("scan", "finding", "reason", "until"), _waive),
    Act.APPROVE_WAIVER: (("waiver",), _agree),
    Act.REVOKE_WAIVER: (("waiver", "reason"), _revoke),
    Act.ACKNOWLEDGE: (("alarm", "reason"), _acknowledge),
    Act.RETRY: (("letter",), _retry),
}
