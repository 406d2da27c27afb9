"""The turn of a process that is killed is free at once, on both databases."""

import os
import signal

from sqlalchemy import Engine

from guard.store.session import make_engine
from guard.store.turns import turn


def test_the_turn_of_a_process_that_was_killed_is_free_at_once(engine: Engine, url: str) -> None:
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - it is killed
        with turn(make_engine(url), "sweep") as mine:
            os.write(tell, b"1" if mine else b"0")
            signal.pause()
    assert os.read(ready, 1) == b"1"
    with turn(engine, "sweep") as mine:
        assert not mine
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    for _ in range(1000):  # PostgreSQL's own process has to see that its client is gone
        with turn(engine, "sweep") as mine:
            if mine:
                return
    raise AssertionError("the turn is still taken")
