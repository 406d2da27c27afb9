"""All checks, side by side, each bounded in time."""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from guard.core.errors import GuardError, InputError
from guard.doctor import _broker, _database, _keys, _machine, _models, _serving, _storage
from guard.doctor._check import Check, Finding, Ground, Options, State, failed, unknown
from guard.logs import hidden

if TYPE_CHECKING:
    from guard.settings import Settings

#: In the order in which they are shown.
CHECKS: tuple[Check, ...] = (
    *_database.CHECKS,
    *_broker.CHECKS,
    *_storage.CHECKS,
    *_keys.CHECKS,
    *_serving.CHECKS,
    *_models.CHECKS,
    *_machine.CHECKS,
)


_DEFAULTS = Options()


def diagnose(
    settings: "Settings", options: Options = _DEFAULTS, checks: Sequence[Check] = CHECKS
) -> list[Finding]:
    """The findings of all checks but those to skip, in their order.

    Raises:
        InputError: a check to skip does not exist.
    """
    odd = options.skip - {check.name for check in checks}
    if odd:
        raise InputError(
            f"There is no check {', '.join(sorted(odd))}; there are "
            f"{', '.join(check.name for check in checks)}.",
            code="unknown_check",
        )
    ground = Ground(settings, options)
    wanted = [check for check in checks if check.name not in options.skip]
    begun = time.monotonic()
    running = [(check, _started(check, ground)) for check in wanted]
    found = []
    for check, answer in running:
        limit = max(check.seconds, options.seconds)
        found.append(_answer(check, answer, begun + limit, limit))
    ground.close()
    return found


def _started(check: Check, ground: Ground) -> "queue.SimpleQueue[Finding]":
    answer: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    # A daemon: one that hangs must not keep the command from ending.
    threading.Thread(
        target=lambda: answer.put(_finding(check, ground)), name=check.name, daemon=True
    ).start()
    return answer


def _finding(check: Check, ground: Ground) -> Finding:
    try:
        return check.run(ground)
    except GuardError as error:
        return failed(error.sentence, "Do what the sentence says, then run `guard doctor` again.")
    except ModuleNotFoundError as error:
        return unknown(
            f"The package {error.name} is not installed here.",
            f"Install it, or leave it out where this host needs none: --skip {check.name}.",
        )
    except Exception as error:  # noqa: BLE001 - a broken service is a finding and never a traceback
        return unknown(
            f"The check itself failed ({type(error).__name__}: {error}).",
            "Report it, with the sentence.",
        )


def _answer(
    check: Check, answer: "queue.SimpleQueue[Finding]", until: float, limit: float
) -> Finding:
    try:
        found = answer.get(timeout=max(0.0, until - time.monotonic()))
    except queue.Empty:
        found = unknown(
            f"It gave no answer within {limit:g} s.",
            "See whether the service hangs, or allow more with --seconds.",
        )
    sentence = str(hidden(" ".join(found.sentence.split())))
    mend = found.mend if found.state is not State.OK else ""
    return replace(found, check=check.name, sentence=sentence, mend=mend)
