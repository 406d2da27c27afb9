"""What people do: review, withdraw, roll back, transfer, publish, hand out keys; some may not."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from guard.core.digests import is_digest
from guard.core.roles import Role
from guard.flow import keys, names, publish, rescan, review, tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal
from guard.flow.withdraw import withdraw
from guard.store import claims, publications, scans
from guard.store.session import reading

if TYPE_CHECKING:
    from benchmarks.simulation.steps import Schedule

OWN = 0.3
STRANGER = Principal(name="eve", role=None)


def act(run: "Schedule") -> None:
    """Somebody does something, perhaps without the right to."""
    run.rng.choices(list(ACTS), list(ACTS.values()))[0](run)


def _somebody(run: "Schedule", role: Role) -> Principal:
    """Mostly somebody with the role; otherwise anybody."""
    people = run.world.people
    fitting = [who for who in people.values() if who.role is role]
    anybody = [*people.values(), STRANGER]
    return run.rng.choice(fitting if run.rng.random() < 0.8 else anybody)


def _review(run: "Schedule") -> None:
    guard, who = run.world.guard, _somebody(run, Role.REVIEWER)
    waiting = [scan.id for scan in review.waiting(guard)]
    if not waiting:
        return
    scan_id = run.rng.choice(waiting)
    if run.rng.random() < OWN:  # somebody who may have uploaded it tries to approve it
        who = run.world.people["dora"]
    decide = review.approve if run.rng.random() < 0.7 else review.reject
    run.act(
        f"{who.name}: {decide.__name__}",
        lambda: decide(guard, scan_id, who, "looked at it"),
        scan_id,
    )


def _withdraw(run: "Schedule") -> None:
    guard, who = run.world.guard, _somebody(run, Role.OPERATOR)
    active = _active(guard)
    if active:
        row = run.rng.choice(active)
        what = run.rng.choice((row.name, row.digest))
        run.act(f"{who.name}: withdraw", lambda: withdraw(guard, what, "stolen", who), what)


def _rollback(run: "Schedule") -> None:
    guard, who = run.world.guard, _somebody(run, Role.OPERATOR)
    name = _name(run)
    if name is None:
        return
    with reading(guard.engine) as session:
        older = [row.version for row in publications.of_name(session, name)]
    to = run.rng.choice([None, *older])
    run.act(
        f"{who.name}: rollback",
        lambda: names.rollback(guard, name, to, "the new one is bad", _by(names.rollback, who)),
        f"{name} to {to}",
    )


def _transfer(run: "Schedule") -> None:
    guard, who = run.world.guard, _somebody(run, Role.OPERATOR)
    name = _name(run)
    if name is None:
        return
    owner = run.rng.choice(("ann", "ben", None))
    prefix = run.rng.choice((None, *(f"{key.rpartition('/')[0]}/" for key in run.keys)))
    run.act(
        f"{who.name}: transfer",
        lambda: names.transfer(guard, name, owner, prefix, "new team", _by(names.transfer, who)),
        f"{name} to {owner} {prefix}",
    )


def _publish(run: "Schedule") -> None:
    guard, who = run.world.guard, _somebody(run, Role.OPERATOR)
    scan_id = _scan(run)
    if scan_id:
        run.act(f"{who.name}: publish", lambda: publish.request(guard, scan_id, who), scan_id)


def _ask_rescan(run: "Schedule") -> None:
    guard, wanted = run.world.guard, _name(run) if run.rng.random() < 0.5 else _scan(run)
    who = run.world.people["root" if run.rng.random() < 0.5 else "bob"]
    if wanted:
        run.act(f"{who.name}: rescan", lambda: rescan.request(guard, wanted, who), wanted)


def _own(run: "Schedule") -> None:
    """Somebody gets a prefix; from then on they may have uploaded what lies there."""
    guard, root = run.world.guard, run.world.people["root"]
    name = run.rng.choice(("ann", "ben", "bob", "dora"))
    prefix = run.rng.choice(run.keys).rpartition("/")[0]
    role = Role.UPLOADER

    def own() -> None:
        tokens.create(guard, root, name, role, days=366, prefixes=(f"models/{prefix}",))
        # Only once it is done: it may be refused, or the process killed.
        owners = run.world.owners.setdefault(f"{prefix}/", {})
        owners.setdefault(name, run.world.turns.step)

    run.act("root: own", own, f"{prefix} for {name}")


def _disown(run: "Schedule") -> None:
    guard, root = run.world.guard, run.world.people["root"]
    name, prefix = run.rng.choice(
        (("ann", "models/models/team-a"), ("ben", "models/models/team-b"))
    )
    run.act("root: disown", lambda: tokens.disown(guard, root, name, prefix), f"{prefix} {name}")


def _rotate(run: "Schedule") -> None:
    """A new signing key: made, trusted, and used from now on."""
    world = run.world
    path = world.guard.settings.data_dir / "keys" / f"key-{run.rng.getrandbits(24):06x}.pem"

    def rotate() -> None:
        keys.make_key(path)
        keys.trust(world.guard, str(path), "a new year", "root")
        world.settle(signing_key_file=path)

    run.act("root: rotate", rotate)


def _distrust(run: "Schedule") -> None:
    guard = run.world.guard
    known = sorted(guard.trusted.keys)
    key = run.rng.choice(known)
    if is_digest(key) and len(known) > 1:
        run.act("root: distrust", lambda: keys.distrust(guard, key, "lost", "root"), key[:8])


def _revoke(run: "Schedule") -> None:
    """A reviewer's token ends; whoever showed it may not review any more."""
    guard, root = run.world.guard, run.world.people["root"]
    run.act("root: revoke bob", lambda: tokens.revoke(guard, root, "bob"))


def _by(act: Any, who: Principal) -> Any:
    """The name, where an act asks for no principal."""
    return who.name if act.__annotations__["by"] is str else who


def _active(guard: Guard) -> list[Any]:
    with reading(guard.engine) as session:
        return publications.active(session)


def _name(run: "Schedule") -> str | None:
    with reading(run.world.guard.engine) as session:
        known = [row.name for row in claims.list_all(session)]
    return run.rng.choice(known) if known else None


def _scan(run: "Schedule") -> str | None:
    with reading(run.world.guard.engine) as session:
        known = [row.id for row in scans.list_recent(session)]
    return run.rng.choice(known) if known else None


#: Each act with how often it is drawn.
ACTS: Mapping[Callable[["Schedule"], None], float] = {
    _review: 6.0, _withdraw: 2.5, _rollback: 2.0, _transfer: 0.5, _publish: 1.0,
    _ask_rescan: 0.7, _own: 0.4, _disown: 0.4, _rotate: 0.2, _distrust: 0.15, _revoke: 0.1,
}  # fmt: skip
