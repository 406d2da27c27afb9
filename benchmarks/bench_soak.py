"""A soak of the embedded stack: is every upload answered once, whatever dies?

Uploads of many kinds (good, bad, hostile, repeated, reordered; `benchmarks/soak/kinds.py`) come in
bursts to `guard up` with PostgreSQL, while workers, jobs, Redis, S3, database, TorchServe, API,
relay and beat are killed with SIGKILL and started again, all by a schedule drawn from the seed. All
the while and at the end these must hold: every version that the store took has an answer that a
person can read; no scan has two verdicts and no network two kinds of verdict; nothing is served or
published without a verdict that permits it; no payload ran; no lease, message, temporary file or
archive is left; the ledger verifies. The policy is `benchmarks/soak/policy.toml`, which takes
seconds: how good methods are is measured elsewhere.
"""

import argparse
import json
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.demo.models import Payload
from benchmarks.record import write
from benchmarks.soak import books, page, schedule
from benchmarks.soak.ground import Ground, running
from benchmarks.soak.models import Bases, trained
from benchmarks.soak.sender import Sender
from benchmarks.soak.watch import Watch, at_rest, final, scratch
from guard.local.supervisor import interrupted_by_signals

LOOK_SECONDS = 15.0
SENDING = 0.7  # of the time; the rest is for what is still open
QUIET = 20.0  # seconds of rest before the end is checked: a lease, some rounds of reconcile
FIRST_SECONDS = 420.0  # for the first uploads, which take the names


def main() -> None:
    """Run, print and write a record; exit status 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--kills", type=int, help="default: one for eight uploads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, with all waiting")
    parser.add_argument("--parts", nargs="*", default=list(schedule.KILLED), help="what is killed")
    parser.add_argument("--out", type=Path, default=Path("run/soak"), help="logs and all rows")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    folder = scratch()
    try:
        with interrupted_by_signals(), running(folder) as ground:
            result = soak(ground, given)
            shutil.copytree(
                ground.folder / "stack" / "run", given.out / "run",
                ignore=shutil.ignore_patterns("*.sock", "ts", "weed"), dirs_exist_ok=True,
            )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (given.out / "result.json").write_text(json.dumps(result, indent=1, default=str))
    print(page.page(result))
    if given.record:
        rows = result.pop("rows")
        assert rows
        write("soak", result, f"# A soak of the embedded stack\n\n{__doc__}\n{page.page(result)}")
    raise SystemExit(bool(result["violations"] or result["died"] or result["open"]))


def soak(ground: Ground, given: argparse.Namespace) -> dict[str, Any]:
    """Upload and kill as the seed has it, wait until all rests, and check."""
    canary = ground.folder / "payload-ran"
    bases = trained(Payload(canary))
    watch, began = Watch(ground, canary), time.monotonic()
    first = schedule.first_uploads()
    names = send(ground, bases, first)
    until = began + FIRST_SECONDS
    while not (names.done == len(first) and at_rest(ground)) and time.monotonic() < until:
        time.sleep(0.5)
    say(began, "the shared names are taken")
    seconds = given.minutes * 60 * SENDING - (time.monotonic() - began)
    sender = send(ground, bases, schedule.uploads(given.uploads, seconds, given.seed))
    count = given.kills if given.kills is not None else given.uploads // 8
    kills = schedule.kills(count, seconds, given.seed, given.parts)
    killed = list[dict[str, Any]]()
    with suppress(KeyboardInterrupt):  # then what there is by now is checked
        harm(ground, watch, sender, kills, given.seed, killed)
        say(began, f"{sender.done} uploads were sent, {len(killed)} processes killed")
        settle(ground, watch, began + given.minutes * 60)
    sender.stopped.set()
    found = books.read(ground.guard.engine)
    sent = [*names.sent.values(), *sender.sent.values()]
    answers = final(watch, sent, found)
    return page.result(given, watch, sent, answers, found, killed, seconds=time.monotonic() - began)


def send(ground: Ground, bases: Bases, uploads: list[schedule.Upload]) -> Sender:
    """Start the uploaders."""
    sender = Sender(ground.guard.settings, ground.stack.api_address, bases, uploads)
    sender.start()
    return sender


def harm(
    ground: Ground,
    watch: Watch,
    sender: Sender,
    kills: list[schedule.Kill],
    seed: int,
    done: list[dict[str, Any]],
) -> None:
    """Kill and start again until the schedule is done and everything was sent.

    Args:
        done: gets what was killed.
    """
    rng, start = random.Random(f"harm {seed}"), time.monotonic()
    waiting, back = list(kills), list[tuple[float, str]]()
    looked = 0.0
    while waiting or back or sender.is_alive():
        now = time.monotonic() - start
        if waiting and now >= waiting[0].at:
            one = waiting.pop(0)
            what = ground.kill(one.part, rng)
            if what:
                done.append({"at": round(now, 1), "part": one.part, "outage": round(one.outage, 1)})
                say(start, f"killed {what} for {one.outage:.1f} s; {sender.done} were sent")
            if what == one.part:
                back.append((now + one.outage, one.part))
        for due in [due for due in back if due[0] <= now]:
            back.remove(due)
            ground.start(due[1])
        ground.look()
        if now - looked > LOOK_SECONDS:
            looked = now
            watch.look()
        time.sleep(0.1)


def settle(ground: Ground, watch: Watch, until: float) -> None:
    """Wait until nothing is open for a while, at most `until`."""
    quiet = None
    looked = 0.0
    while (now := time.monotonic()) < until:
        ground.look()
        quiet = (quiet or now) if at_rest(ground) else None
        if quiet is not None and now - quiet > QUIET:
            return
        if now - looked > LOOK_SECONDS:
            looked = now
            watch.look()
        time.sleep(1.0)


def say(began: float, text: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)


if __name__ == "__main__":
    main()
