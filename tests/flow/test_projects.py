"""Projects: their members, what they may use, whose turn it is, and their clean set."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import InputError
from guard.core.identity import Identity
from guard.core.projects import MemberKind, Priority
from guard.core.roles import Act, Role
from guard.core.states import ScanState
from guard.flow import _fair_share, projects, review, tokens
from guard.flow._cleanset_map import chosen
from guard.flow._quotas import QuotaExceeded
from guard.flow.identities import sign_on
from guard.flow.principals import Forbidden, Principal
from guard.flow.submit import submit
from guard.store import acts, nominations, scans, uploaders
from guard.store import projects as stored
from guard.store.project_rows import ProjectRow
from guard.store.rows import NominationState
from guard.store.session import reading, transaction
from tests import people
from tests.flow.intake import CONFIG, World, new_world
from tests.flow.place import Place
from tests.flow.test_principals import held

TAKEN, WAITS = NominationState.ACCEPTED, NominationState.NEW


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = new_world(tmp_path)
    yield made
    made.engine.dispose()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def root(place: Place) -> Principal:
    return people.who(place.guard, "olga", Role.OPERATOR)


def make(world: World, name: str, **limits: Any) -> None:
    """A project of `models/NAME/`."""
    values = {
        "cleanset": None,
        "scans_a_day": None,
        "bytes_a_day": None,
        "open_scans": None,
        "priority": Priority.NORMAL,
        **limits,
    }
    row = ProjectRow(
        name=name,
        bucket=world.bucket.name,
        prefix=f"models/{name}/",
        created_at=world.now(),
        **values,
    )
    with transaction(world.engine) as session:
        stored.add(session, row)


def put(world: World, folder: str, data: bytes = b"weights") -> str:
    """Upload a model and take it in; the nomination's id."""
    world.put(f"models/{folder}/config.json", CONFIG)
    key = f"models/{folder}/m.pt"
    nomination = world.nominate(key, world.put(key, data))
    world.receive(nomination)
    return nomination


def states(world: World, *ids: str) -> list[NominationState]:
    return [world.nomination(one).state for one in ids]


def end_all(world: World) -> None:
    for row in world.scans():
        if row.state is not ScanState.FAILED:
            with transaction(world.engine) as session:
                scans.move(session, row.id, ScanState.FAILED, world.now())


@pytest.mark.row(54)
def test_what_is_beyond_a_days_scans_waits_and_is_taken_in_when_there_is_room(
    world: World,
) -> None:
    make(world, "vision", scans_a_day=2)
    ids = [put(world, f"vision/{number}") for number in range(3)]
    other = put(world, "other")

    assert states(world, *ids, other) == [TAKEN, TAKEN, WAITS, TAKEN]
    why = world.nomination(ids[2]).reason
    assert why == "Project vision uploaded 2 models in 24 hours, its most."

    end_all(world)
    world.pass_time(3600)
    world.work()
    assert states(world, ids[2]) == [WAITS], "the day is not over"
    world.pass_time(24 * 3600)
    world.work()
    assert (states(world, ids[2]), world.nomination(ids[2]).reason) == ([TAKEN], "")


def test_bytes_count_before_they_are_read(world: World) -> None:
    make(world, "vision", bytes_a_day=25)
    ids = [put(world, f"vision/{number}", b"0123456789") for number in range(3)]
    large = put(world, "vision/large", bytes(26))

    assert states(world, *ids, large) == [TAKEN, TAKEN, WAITS, NominationState.REFUSED]
    assert world.nomination(ids[2]).reason == (
        "Project vision uploaded 20 bytes in 24 hours, its most."
    )
    assert "may upload 25 a day" in world.nomination(large).reason


def test_scans_that_are_open_count_until_they_end(world: World) -> None:
    make(world, "vision", open_scans=1)
    ids = [put(world, f"vision/{number}") for number in range(2)]
    assert states(world, *ids) == [TAKEN, WAITS]

    end_all(world)
    world.pass_time(31)
    world.work()

    assert states(world, *ids) == [TAKEN, TAKEN]


@pytest.mark.row(55)
@pytest.mark.threat("C17")
def test_projects_share_what_may_be_open_by_priority_and_none_is_starved(world: World) -> None:
    make(world, "urgent", priority=Priority.HIGH)
    make(world, "later", priority=Priority.LOW)
    world.set_rules(shared_scans=7)
    alone = [put(world, f"later/{number}") for number in range(8)]
    assert states(world, *alone) == [TAKEN] * 7 + [WAITS], "alone, it has all"
    assert "share" in world.nomination(alone[7]).reason

    urgent = [put(world, f"urgent/{number}") for number in range(6)]
    rest = [put(world, f"rest/{number}") for number in range(3)]
    assert states(world, *urgent) == [TAKEN] * 5 + [WAITS], "4 of 5 parts of 7"
    assert states(world, *rest) == [TAKEN, TAKEN, WAITS], "2 of 7 parts of 7"

    end_all(world)
    world.pass_time(601)
    world.work()
    assert states(world, alone[7], urgent[5], rest[2]) == [TAKEN] * 3


def test_without_projects_nothing_is_shared(world: World) -> None:
    world.set_rules(shared_scans=1)
    assert states(world, *[put(world, f"a{number}") for number in range(3)]) == [TAKEN] * 3


def test_the_longest_prefix_says_whose_an_upload_is(world: World) -> None:
    make(world, "vision")
    make(world, "vision/faces")
    put(world, "vision/faces/m")
    put(world, "visionary/m")

    with reading(world.engine) as session:
        assert stored.open_by_project(session) == {"vision/faces": 1, None: 1}
        found = stored.usage(session, "vision/faces", world.now() - timedelta(days=1))
    assert (found.scans, found.bytes, found.open, found.oldest) == (1, 7, 1, world.now())


def test_submitting_beyond_a_limit_is_refused_with_a_time(place: Place, root: Principal) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/models/vision", {"scans_a_day": 1})
    first = place.upload(b"one", name="vision/a")
    with transaction(guard.engine) as session:
        stored.record_upload(session, "vision", first, 3, place.clock)
    place.clock += timedelta(hours=23)

    with pytest.raises(QuotaExceeded, match="1 models in 24 hours") as refused:
        submit(guard, root, "models", "models/vision/b/m.pt")

    assert refused.value.retry_after == 3600
    assert submit(guard, root, "models", "models/other/m.pt")
    place.clock += timedelta(hours=1)
    assert submit(guard, root, "models", "models/vision/b/m.pt")
    with reading(guard.engine) as session:
        assert len(nominations.list_recent(session)) == 2


@pytest.mark.row(54)
@pytest.mark.threat("A13")
def test_members_upload_under_the_prefix_and_do_not_review_it(
    place: Place, root: Principal
) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/models/model", {})
    uma = people.who(guard, "uma", Role.UPLOADER)
    with pytest.raises(Forbidden, match="nor is an uploader of its project"):
        submit(guard, uma, "models", "models/model/m.pt")

    for _ in range(2):  # once is enough
        projects.add_member(guard, root, "vision", MemberKind.PRINCIPAL, "uma", Role.UPLOADER)
    assert submit(guard, uma, "models", "models/model/m.pt")

    scan_id = held(place)
    with reading(guard.engine) as session:
        assert "uma" in uploaders.of_scan(session, scan_id)
    reviewer = people.who(guard, "uma", Role.REVIEWER)
    with pytest.raises(Exception, match="cannot approve it"):
        review.approve(guard, scan_id, reviewer, "mine")

    projects.remove_member(guard, root, "vision", MemberKind.PRINCIPAL, "uma", Role.UPLOADER)
    with pytest.raises(Forbidden):
        submit(guard, uma, "models", "models/model/m2.pt")


def test_a_group_is_whoever_was_in_it_when_they_last_signed_on(
    place: Place, root: Principal
) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/models/model", {})
    projects.add_member(guard, root, "vision", MemberKind.GROUP, "ml", Role.UPLOADER)

    def members() -> frozenset[str]:
        with reading(guard.engine) as session:
            return uploaders.may_upload(session, "models", "models/model/m.pt")

    assert members() == frozenset()
    ann = Identity(issuer="https://a.example", subject="1", name="ann", groups=("ml", "x"))
    sign_on(guard, ann, [Role.UPLOADER], attempt="1")
    assert members() == {"ann"}
    left = Identity(issuer="https://a.example", subject="1", name="ann", groups=("x",))
    sign_on(guard, left, [Role.UPLOADER], attempt="2")
    assert members() == frozenset()


def test_where_a_project_has_reviewers_nobody_else_reviews_it(
    place: Place, root: Principal
) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/models/model", {})
    scan_id, bob = held(place), people.who(guard, "bob", Role.REVIEWER)
    projects.add_member(guard, root, "vision", MemberKind.GROUP, "leads", Role.REVIEWER)

    with pytest.raises(InputError, match="There is no scan"):
        review.reject(guard, scan_id, bob, "no")
    projects.add_member(guard, root, "vision", MemberKind.PRINCIPAL, "bob", Role.VIEWER)
    with pytest.raises(Forbidden, match="bob is no reviewer of project vision"):
        review.reject(guard, scan_id, bob, "no")

    projects.add_member(guard, root, "vision", MemberKind.PRINCIPAL, "bob", Role.REVIEWER)
    assert review.reject(guard, scan_id, bob, "no")


def test_a_projects_clean_set_counts_before_the_mapping_and_the_wish(
    place: Place, root: Principal
) -> None:
    guard = place.guard
    place.add_cleanset("squares")
    scan = place.scan(place.upload(b"one"))
    made = projects.create(guard, root, "vision", "models/models/model", {"cleanset": "squares"})

    assert chosen(guard.settings, scan, "wish", made) == "squares"
    changed = projects.change(guard, root, "vision", {"cleanset": None})
    assert chosen(guard.settings, scan, "wish", changed) == "wish"


def test_every_change_is_an_act_of_its_operator_and_nobody_else_may(
    place: Place, root: Principal
) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/a", {"open_scans": 3})
    projects.change(guard, root, "vision", {"priority": Priority.HIGH, "open_scans": None})
    group = (MemberKind.GROUP, "ml", Role.REVIEWER)
    projects.add_member(guard, root, "vision", *group)
    projects.remove_member(guard, root, "vision", *group)

    with reading(guard.engine) as session:
        changes = {Act.CREATE_PROJECT, Act.CHANGE_PROJECT, Act.ADD_MEMBER, Act.REMOVE_MEMBER}
        done = [row for row in acts.walk(session, 0, 100) if row.act in changes]
    assert [(row.act, row.principal, row.detail) for row in done] == [
        (Act.CREATE_PROJECT, "olga", "models/a/"),
        (Act.CHANGE_PROJECT, "olga", ""),
        (Act.ADD_MEMBER, "olga", "group ml as reviewer"),
        (Act.REMOVE_MEMBER, "olga", "group ml as reviewer"),
    ]
    assert done[1].facts == {"open_scans": "none", "priority": "high"}
    assert [one.project.name for one in projects.every(guard)] == ["vision"]
    assert projects.view(guard, "vision").members == ()

    bob = people.who(guard, "bob", Role.REVIEWER)
    for attempt in (
        lambda: projects.create(guard, bob, "other", "models/b", {}),
        lambda: projects.change(guard, bob, "vision", {"open_scans": 1}),
        lambda: projects.add_member(guard, bob, "vision", *group),
        lambda: projects.remove_member(guard, bob, "vision", *group),
    ):
        with pytest.raises(Forbidden):
            attempt()


def test_what_cannot_be_a_project_or_a_member_is_refused(place: Place, root: Principal) -> None:
    guard = place.guard
    projects.create(guard, root, "vision", "models/a", {})
    principal, group = MemberKind.PRINCIPAL, MemberKind.GROUP
    refused: list[tuple[str, Any]] = [
        ("bad_project", lambda: projects.create(guard, root, "Vision!", "models/b", {})),
        ("bad_prefix", lambda: projects.create(guard, root, "b", "elsewhere/b", {})),
        ("project_exists", lambda: projects.create(guard, root, "vision", "models/b", {})),
        ("project_exists", lambda: projects.create(guard, root, "b", "models/a/", {})),
        ("bad_project", lambda: projects.create(guard, root, "b", "models/b", {"open_scans": 0})),
        ("bad_project", lambda: projects.change(guard, root, "vision", {"bytes_a_day": 2**63})),
        ("bad_project", lambda: projects.change(guard, root, "vision", {})),
        ("cleanset_unknown", lambda: projects.change(guard, root, "vision", {"cleanset": "x"})),
        ("unknown_project", lambda: projects.change(guard, root, "x", {"open_scans": 1})),
        ("unknown_project", lambda: projects.view(guard, "x")),
    ]
    refused += [
        ("bad_member", lambda one=one: projects.add_member(guard, root, "vision", *one))
        for one in (
            (principal, "nobody", Role.UPLOADER),
            (principal, "olga", Role.OPERATOR),
            (group, "", Role.REVIEWER),
            (group, "a\nb", Role.REVIEWER),
            (group, "x" * 256, Role.REVIEWER),
        )
    ]
    refused += [
        (
            "bad_member",
            lambda: projects.remove_member(guard, root, "vision", group, "ml", Role.REVIEWER),
        )
    ]
    for code, attempt in refused:
        with pytest.raises(InputError) as found:
            attempt()
        assert found.value.code == code
    tokens.revoke(guard, root, "olga")


def test_a_turn_says_what_it_waits_for() -> None:
    assert _fair_share.turn(timedelta(0), _fair_share.TURN) == (30.0, _fair_share.TURN)
