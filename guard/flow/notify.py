"""Hand events on to their destinations: at least once, later where one is down, never without end.

Runs on the queue `notify` alone, so that no receiver, however slow, holds up a scan. A destination
that failed rests as a whole: of many that wait for it, one is tried each time.
"""

import random
import ssl
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from guard.core.errors import GuardError
from guard.core.hooks import DeliveryState, HookKind, wants
from guard.flow.context import Guard
from guard.flow.tidy import in_batches
from guard.notify import forms, mailing, sealing, sending, signing
from guard.notify.addresses import Resolver, Rules, read_url, system_resolver
from guard.store import alarms, deliveries, hook_events, hooks
from guard.store.notify_rows import DeliveryRow, EventRow, HookRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

FAILING = "hook_failing"
BACKLOG = "hook_backlog"
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0
#: How long one call works; the next one goes on.
TURN_SECONDS = 30.0
GONE = 410  # the receiver asks for no further message
#: An event that was not fanned out for so long has lost its message.
LATE = timedelta(minutes=2)

_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one try ended; `status` is None where no answer came, `wait` in seconds."""

    taken: bool
    status: int | None = None
    error: str = ""
    wait: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a test replaces: the resolver of names, and the certificates that are trusted."""

    resolver: Resolver = system_resolver
    trust: ssl.SSLContext | None = None


def fan_out(guard: Guard, event_id: str) -> int:
    """Note for each destination that wants an event that it is to be sent; how many there are new.

    Raises:
        InputError: there is no such event (any more).
    """
    made = 0
    with transaction(guard.engine) as session:
        event = hook_events.get(session, event_id)
        now = guard.now()
        for hook in hooks.list_all(session):
            if not wants(hook.types, hook.prefixes, event.type, event.name):
                continue
            full = deliveries.waiting(session, hook.id) >= guard.settings.notify_backlog
            made += deliveries.add(session, event_id, hook.id, now, dropped=full)
            if full:
                detail = (
                    f"{guard.settings.notify_backlog} deliveries wait; further ones are dropped."
                )
                alarms.raise_(session, BACKLOG, subject(hook), detail, now)
        hook_events.fanned_out(session, event_id, now)
    return made


def catch_up(guard: Guard) -> int:
    """Fan out events whose message was lost, when the database was away say; how many."""
    with reading(guard.engine) as session:
        found = hook_events.left_behind(session, guard.now() - LATE)
    for event_id in found:
        fan_out(guard, event_id)
    return len(found)


def send_due(guard: Guard, means: Means | None = None, seconds: float = TURN_SECONDS) -> int:
    """Try deliveries that are due, destination by destination in turn; how many were tried."""
    means, until, tried = means or Means(), time.monotonic() + seconds, 0
    with reading(guard.engine) as session:
        open_hooks = hooks.list_all(session)
    while open_hooks:
        for hook in list(open_hooks):
            if time.monotonic() > until:
                return tried
            if _one(guard, hook, means):
                tried += 1
            else:
                open_hooks.remove(hook)
    return tried


def prune(guard: Guard) -> None:
    """Delete events, deliveries and tries that are older than the settings say."""
    before = guard.now() - timedelta(days=guard.settings.notify_keep_days)
    in_batches(guard, partial(deliveries.prune, before=before))


def _one(guard: Guard, hook: HookRow, means: Means) -> bool:
    """Try the oldest delivery that is due to a destination; False where there is none."""
    now = guard.now()
    with transaction(guard.engine) as session:
        row = deliveries.due(session, hook.id, now)
        # Should this process die, the delivery is due again after twice the time that a try takes.
        hold = now + timedelta(seconds=2 * guard.settings.notify_seconds + 30)
        if row is None or not deliveries.claim(session, row, hold):
            return False
        if row.attempts >= guard.settings.notify_tries:  # each try ended this process
            deliveries.end(session, row.id, DeliveryState.DEAD, now)
            return True
        event, hook = hook_events.get(session, row.event_id), hooks.get(session, hook.id)
    # No transaction is open while the receiver takes its time.
    begun = time.monotonic()
    outcome = _try(guard, hook, row, event, means)
    _record(guard, hook, row, outcome, time.monotonic() - begun)
    return True


def _try(guard: Guard, hook: HookRow, row: DeliveryRow, event: EventRow, means: Means) -> Outcome:
    settings = guard.settings
    message = forms.Message(
        event_id=event.id,
        source=settings.notify_source,
        type=event.type,
        at=event.at,
        data=event.data,
        link=_link(settings.public_url, event),
    )
    try:
        target = sealing.unseal(settings.hooks_key_file, hook.id, hook.sealed)
        if hook.kind is HookKind.EMAIL:
            return _mail(guard, target.address, row, message, means)
        rules = Rules.of(settings.notify_allowed)
        place = read_url(target.address, rules)
        if hook.kind is HookKind.SLACK:
            body, headers = forms.slack(message), {"Content-Type": "application/json"}
        else:
            body = forms.cloud_event(message)
            stamp = int(guard.now().timestamp())
            signed = signing.headers(target.secret, row.id, stamp, body)
            headers = {"Content-Type": forms.JSON_TYPE, **signed}
        answer = sending.post(
            place,
            body,
            headers,
            rules=rules,
            seconds=settings.notify_seconds,
            resolver=means.resolver,
            trust=means.trust,
        )
    except GuardError as error:
        return Outcome(taken=False, error=error.sentence)
    except Exception as error:  # noqa: BLE001 - whatever it is, the delivery must come to an end
        # The kind only: an error's own text may hold the address.
        return Outcome(taken=False, error=f"No answer: {type(error).__name__}.")
    return Outcome(
        taken=answer.taken,
        status=answer.status,
        error=answer.excerpt,
        wait=answer.wait,
    )


def _mail(
    guard: Guard, address: str, row: DeliveryRow, message: forms.Message, means: Means
) -> Outcome:
    settings = guard.settings
    relay = mailing.Relay(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_tls,
        user=settings.smtp_user,
        password=settings.smtp_password.reveal(),
        sender=mailing.check_address(settings.smtp_from) if settings.smtp_from else "",
    )
    mail = forms.mail(message, relay.sender or "guard@localhost", address, row.id)
    mailing.send(relay, mail, settings.notify_seconds, means.trust)
    return Outcome(taken=True)


def _record(
    guard: Guard, hook: HookRow, row: DeliveryRow, outcome: Outcome, seconds: float
) -> None:
    now, tries = guard.now(), row.attempts + 1
    most, failures = guard.settings.notify_tries, hook.failures + 1
    # Of a destination that has been down for long, each delivery is tried once.
    over = outcome.status == GONE or tries >= most or failures >= 2 * most
    with transaction(guard.engine) as session:
        deliveries.record(
            session,
            row.id,
            at=now,
            status=outcome.status,
            error=outcome.error,
            seconds=round(seconds, 3),
        )
        if outcome.taken:
            deliveries.end(session, row.id, DeliveryState.SENT, now)
            hooks.answered(session, hook.id)
            for kind in (FAILING, BACKLOG):
                alarms.clear(session, kind, subject(hook), now)
            return
        again = now + timedelta(seconds=max(outcome.wait, pause(failures)))
        hooks.failed(session, hook.id, again)
        if over:
            deliveries.end(session, row.id, DeliveryState.DEAD, now)
            _alarm(guard, session, hook, outcome, tries)
        else:
            deliveries.later(session, row.id, again)
    _LOG.warning(
        "delivery_failed", delivery_id=row.id, hook_id=hook.id, status=outcome.status, over=over
    )


def _alarm(guard: Guard, session: "Session", hook: HookRow, outcome: Outcome, tries: int) -> None:
    status = "no answer" if outcome.status is None else f"status {outcome.status}"
    detail = f"A delivery is dead after {tries} tries ({status}); see `guard hook log`."
    alarms.raise_(session, FAILING, subject(hook), detail, guard.now())


def pause(failures: int) -> float:
    """Seconds until the next try after failures in a row: exponential, with full jitter."""
    most = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 20))
    return 1.0 + random.uniform(0.0, most)  # noqa: S311 - no secret: it spreads retries


def _link(public_url: str, event: EventRow) -> str:
    scan = event.data.get("scan_id", "")
    if not public_url or not scan.isalnum():
        return public_url
    return f"{public_url.rstrip('/')}/console/scans/{scan}"


def subject(hook: HookRow) -> str:
    """What alarms about a destination name."""
    return f"{hook.kind} {hook.shown} {hook.id[:8]}"
