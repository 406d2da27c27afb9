"""Run schedules: one seed, one schedule, and what was wrong in it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from random import Random

from benchmarks.simulation import audit
from benchmarks.simulation.steps import KEYS, STEPS, THEMES, Schedule, Theme
from benchmarks.simulation.turns import Odds
from benchmarks.simulation.watch import Violation, Watch
from benchmarks.simulation.world import World

STEPS_PER_RUN = (15, 30)
EARLY = ("upload", "notice", "lose_notice", "work", "kill", "lose_message", "lease_time")


@dataclass
class Totals:
    """What many schedules did."""

    schedules: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    uploads: int = 0
    crashed: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    served: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, Violation]] = field(default_factory=list)

    def add(self, other: "Totals") -> None:
        """Count in what other schedules did."""
        for one in fields(self):
            mine, more = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, mine + more)


def one(
    world: World,
    seed: int,
    totals: Totals | None = None,
    *,
    theme: str = "",
    prepare: Callable[[World], None] = lambda _world: None,
) -> tuple[Schedule, list[Violation]]:
    """The schedule of a seed, up to the first step in which an invariant does not hold.

    Args:
        theme: one of `THEMES`; drawn where none is named.
        prepare: what is done to the service before the schedule begins.
    """
    totals = Totals() if totals is None else totals
    world.reset(seed)
    prepare(world)
    rng = world.rng
    drawn = rng.choice(list(THEMES))
    about = THEMES[theme or drawn]
    run = Schedule(
        world=world, rng=rng, keys=tuple(rng.sample(KEYS, about.keys)), twice=about.twice
    )
    world.obey(world.policies[about.policy])
    watch, found = Watch(run), list[Violation]()
    run.after = lambda: found.extend(watch.look())
    # A third of the schedules without crashes, a third with some, a third with many.
    world.turns.odds = Odds(crash=rng.choice((0.0, 0.01, 0.04)), wait=about.wait)
    count = rng.randint(*STEPS_PER_RUN)
    for number in range(count):
        world.turns.step += 1
        run.reconciled, run.ran = False, []
        world.pass_time(rng.randint(1, 3))
        if number == count // 3 and rng.random() < about.quiet:
            audit.catch_up(run)
        step = _step(rng, about, early=number < count // 3)
        step(run)
        totals.steps[step.__name__] += 1
        found += watch.look()
        if found:
            break
    if not found:
        found += audit.rest(run, watch)
    if not found:
        found += audit.final(run, watch, totals.excused)
    for worker in list(world.turns.waiting):
        world.turns.kill(worker)
    _count(totals, run, watch)
    totals.violations += [(seed, violation) for violation in found]
    return run, found


def _step(rng: Random, about: Theme, *, early: bool) -> Callable[[Schedule], None]:
    """The next step; a schedule begins with uploads, since without them nothing happens."""
    odds = {
        step: odds * (1.0 if early else about.more.get(step.__name__, 1.0))
        for step, odds in STEPS.items()
        if not early or step.__name__ in EARLY
    }
    return rng.choices(list(odds), list(odds.values()))[0]


def many(world: World, seeds: Iterable[int]) -> Totals:
    """All schedules of these seeds."""
    totals = Totals()
    for seed in seeds:
        one(world, seed, totals)
    return totals


def _count(totals: Totals, run: Schedule, watch: Watch) -> None:
    totals.schedules += 1
    totals.uploads += len(run.uploads)
    totals.crashed += run.crashed
    totals.served += len(watch.released)
    totals.verdicts.update(str(row.verdict) for row in watch.ledger)
    totals.ends.update(str(state) for state in watch.states.values())
