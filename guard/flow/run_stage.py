"""Run one stage of one scan under a lease, count its crashes, and end it if it cannot be done."""

from collections.abc import Callable

from guard.core.errors import MethodFailed
from guard.flow import _handover, decide, detect, inspect, publish, purify
from guard.flow._lease import Held, hold
from guard.flow._modality import for_scan
from guard.flow._observed import Seen, scan_stage
from guard.flow.context import Guard
from guard.store.rows import ScanRow

STAGES: dict[str, Callable[[Guard, Held], None]] = {
    "inspect": inspect.run,
    "detect": detect.run,
    "decide": decide.run,
    "purify": purify.run,
    "publish": publish.run,
}
MAX_CRASHES = 3  # a scan that crashed its worker this often is a poison message


def work(guard: Guard, name: str, scan_id: str) -> bool:
    """Run the stage `name` of a scan; return False where another worker holds the scan."""
    with hold(guard, scan_id) as held:
        if held is None:
            return False
        scan = held.scan()
        with scan_stage(guard, name, scan) as seen:
            _run(guard, name, held, scan, seen)
    return True


def _run(guard: Guard, name: str, held: Held, scan: ScanRow, seen: Seen) -> None:
    if held.lease.attempts > MAX_CRASHES:
        seen.gave_up()
        _handover.give_up(
            guard, held, name, f"The {name} stage took its worker down {MAX_CRASHES} times."
        )
        return
    try:
        STAGES[name](for_scan(guard, scan), held)
    except MethodFailed as error:
        if error.code == "job_crashed" and held.lease.attempts < MAX_CRASHES:
            raise  # the kernel may have been short of memory for a moment
        # The job failed in a known way (crash, time, memory); another try would fail as well.
        seen.gave_up(error)
        _handover.give_up(guard, held, name, error.sentence)


def bury(guard: Guard, name: str, scan_id: str, sentence: str) -> None:
    """End a scan whose stage cannot be done, unless another worker holds it."""
    with hold(guard, scan_id) as held:
        if held is not None:
            _handover.give_up(guard, held, name, sentence)
