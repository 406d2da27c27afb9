"""Run one stage of one scan, whatever happens to it.

The lease, the count of crashes, the way out.
"""

from collections.abc import Callable

from guard.core.errors import MethodFailed
from guard.flow import _handover, decide, detect, inspect, publish, purify
from guard.flow._lease import Held, hold
from guard.flow.context import Guard

STAGES: dict[str, Callable[[Guard, Held], None]] = {
    "inspect": inspect.run,
    "detect": detect.run,
    "decide": decide.run,
    "purify": purify.run,
    "publish": publish.run,
}
MAX_CRASHES = 3  # a scan that took its worker down this often is a poison message


def work(guard: Guard, name: str, scan_id: str) -> bool:
    """Do what is due; False where another worker holds the scan, whose word is enough."""
    with hold(guard, scan_id) as held:
        if held is None:
            return False
        if held.lease.attempts > MAX_CRASHES:
            _handover.give_up(
                guard, held, name, f"The {name} stage took its worker down {MAX_CRASHES} times."
            )
            return True
        try:
            STAGES[name](guard, held)
        except MethodFailed as error:
            if error.code == "job_crashed" and held.lease.attempts < MAX_CRASHES:
                raise  # perhaps the kernel was short of memory for a moment
            # The job itself failed in a known way (crash, time, memory): trying again would end the
            # same.
            _handover.give_up(guard, held, name, error.sentence)
    return True


def bury(guard: Guard, name: str, scan_id: str, sentence: str) -> None:
    """End a scan whose stage cannot be done, unless another worker is at it."""
    with hold(guard, scan_id) as held:
        if held is not None:
            _handover.give_up(guard, held, name, sentence)
