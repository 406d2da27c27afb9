"""How often one address may fail to sign in."""

import threading
from collections import OrderedDict, deque

MOST = 20
SECONDS = 60.0
CAPACITY = 10_000  # addresses; the oldest are dropped first


class Attempts:
    """Failures of the last minute, by address; each process has its own."""

    def __init__(self, most: int = MOST, capacity: int = CAPACITY) -> None:
        self._most = most
        self._capacity = capacity
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str, now: float) -> float:
        """For how many seconds an address has to wait before it may try; 0 for none."""
        with self._lock:
            failures = self._failures.get(address, deque())
            while failures and failures[0] <= now - SECONDS:
                failures.popleft()
            return 0.0 if len(failures) < self._most else failures[0] + SECONDS - now

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        with self._lock:
            self._failures.setdefault(address, deque(maxlen=self._most)).append(now)
            self._failures.move_to_end(address)
            if len(self._failures) > self._capacity:
                self._failures.popitem(last=False)
