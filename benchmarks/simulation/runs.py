"""Run schedules: one seed, one schedule, and what was wrong in it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmarks.simulation import audit
from benchmarks.simulation.steps import KEYS, STEPS, Schedule
from benchmarks.simulation.turns import Odds
from benchmarks.simulation.watch import Violation, Watch
from benchmarks.simulation.world import World

STEPS_PER_RUN = (15, 30)


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


def one(
    world: World,
    seed: int,
    totals: Totals | None = None,
    *,
    prepare: Callable[[World], None] = lambda _world: None,
) -> tuple[Schedule, list[Violation]]:
    """The schedule of a seed, up to the first step in which an invariant does not hold."""
    totals = Totals() if totals is None else totals
    world.reset(seed)
    prepare(world)
    rng = world.rng
    run = Schedule(world=world, rng=rng, keys=tuple(rng.sample(KEYS, 3)))
    watch = Watch(run)
    # A third of the schedules without crashes, a third with some, a third with many.
    world.turns.odds = rng.choice((Odds(0.0, 0.05), Odds(0.01, 0.03), Odds(0.04, 0.06)))
    found: list[Violation] = []
    for _ in range(rng.randint(*STEPS_PER_RUN)):
        world.turns.step += 1
        step = rng.choices(list(STEPS), list(STEPS.values()))[0]
        run.reconciled, run.ran = False, []
        world.pass_time(rng.randint(1, 3))
        getattr(run, step)()
        totals.steps[step] += 1
        found += watch.look()
        if found:
            break
    if not found:
        found = list(audit.rest(run, watch)) or list(audit.final(run, watch, totals.excused))
    for worker in list(world.turns.waiting):
        world.turns.kill(worker)
    _count(totals, run, watch)
    totals.violations += [(seed, violation) for violation in found]
    return run, found


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
