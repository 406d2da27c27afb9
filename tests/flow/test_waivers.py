"""Two people may waive one finding for a time, and nothing else is let through by it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from guard.core.errors import InputError, NotServable
from guard.core.evidence import Outcome
from guard.core.roles import Act, Role
from guard.core.states import ScanState, Verdict
from guard.core.waivers import Waiver
from guard.detectors import DETECTORS
from guard.flow import _acts, _aging, rescan, review, run_stage, tokens, waivers
from guard.flow._seal import tend
from guard.flow._waivers import counting
from guard.flow.detect import early_end
from guard.flow.principals import Forbidden, Principal, Unauthorised
from guard.flow.reconcile import reconcile_guard
from guard.flow.report import report_for
from guard.flow.signed import signed
from guard.flow.simulate import simulate
from guard.flow.verify import verify
from guard.policy.rules import LifetimeRule
from guard.store import acts, ledger, outbox, scans, uploaders
from guard.store.session import reading, transaction
from tests import people
from tests.flow.place import finding
from tests.flow.shop import Shop
from tests.services import scratch

FINDING = "patch_inversion:2"


@cache
def _first() -> "Scene":
    return Scene(scratch("scene"), anew=True)


class Scene(Shop):
    """A model that is held by one finding, its uploader, and reviewers.

    They are made once in a process; each scene begins with a copy of that one's data.
    """

    scan_id: str
    rita: Principal
    sam: Principal

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        super().__init__(folder, data=None if anew else _first().folder / "data")
        policy = self.guard.policy
        only = {"patch_inversion": policy.detectors["patch_inversion"]}
        self.guard = replace(self.guard, policy=replace(policy, defenses=(), detectors=only))
        self.digest = self.models[1]
        if anew:
            self._begin()
            self.guard.engine.dispose()
        else:
            first = _first()
            self.clock, self.scan_id = first.clock, first.scan_id
            self.rita, self.sam = first.rita, first.sam

    def _begin(self) -> None:
        with transaction(self.guard.engine) as session:  # what inspection of the template left
            left = outbox.due(session, self.clock, 100)
            outbox.mark_sent(session, [row.id for row in left], self.clock)
        people.give(self.guard, "ann", Role.UPLOADER, prefixes=["models/models/odd"])
        self.rita = people.who(self.guard, "rita", Role.REVIEWER)
        self.sam = people.who(self.guard, "sam", Role.REVIEWER)
        self.scan_id = self.examined("models/odd/m.pt")

    def examined(self, key: str, model: int = 1, *, natural: float | None = None) -> str:
        scan_id = self.put(key, model)
        self.with_evidence(scan_id, finding(suspicious=True, natural=natural))
        self.work()
        run_stage.work(self.guard, "decide", scan_id)
        self.work()
        return scan_id

    def work(self) -> None:
        """Do every message that is due, as workers would."""
        while True:
            with transaction(self.guard.engine) as session:
                due = outbox.due(session, self.clock, 100)
                outbox.mark_sent(session, [row.id for row in due], self.clock)
            if not due:
                return
            for row in due:
                assert row.task != "detect", "no detector is asked"
                run_stage.work(self.guard, row.task, str(row.payload["scan_id"]))

    def ask(self, who: Principal | None = None, **changes: Any) -> Waiver:
        wanted = {"reason": "class 2 is a white square by nature", "until": self.later(days=20)}
        return waivers.ask(
            self.guard, who or self.rita, self.scan_id, FINDING, **{**wanted, **changes}
        )

    def waive(self, **changes: Any) -> Waiver:
        made, _ = waivers.approve(self.guard, self.sam, self.ask(**changes).waiver_id)
        self.work()
        return made

    def later(self, **span: float) -> datetime:
        return self.clock + timedelta(**span)

    def again(self) -> None:
        """Decide anew from what is stored."""
        scan = self.scan(self.scan_id)
        rescan.begin(self.guard, scan, scan, "a test asks")
        self.work()

    @property
    def facts(self) -> Any:
        """What the verdict in force says."""
        return signed(self.in_force.envelope).facts

    @property
    def in_force(self) -> Any:
        with reading(self.guard.engine) as session:
            return ledger.get(session, self.scan(self.scan_id).verdict_id or "")

    @property
    def states(self) -> list[str]:
        return [row.state for row in waivers.listed(self.guard)]

    def sql(self, *statements: str) -> None:
        """Change the database as somebody with all rights on it."""
        with closing(sqlite3.connect(self.folder / "data" / "guard.db")) as connection:
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()


@pytest.mark.row(29)
def test_a_waived_finding_no_longer_rejects_and_no_detector_runs_again(scene: Scene) -> None:
    before = scene.facts.verdict
    assert (before, scene.answers) == (Verdict.REJECTED, {})

    made = scene.waive()

    assert scene.facts.verdict is Verdict.CLEARED
    assert scene.facts.waivers == (made,)
    assert scene.facts.coverage == ("patch",)
    assert (made.owner, made.approver, made.artifact) == ("rita", "sam", scene.digest)
    assert scene.states == ["in force"]
    assert scene.answers == {"odd": 1}
    assert verify(scene.guard) == []


def test_the_verdict_report_and_statement_list_what_was_waived(scene: Scene) -> None:
    made = scene.waive()

    statement = signed(scene.in_force.envelope)
    report = report_for(scene.guard, scene.scan_id).to_dict()
    (shown,) = report["waivers"]

    assert statement.facts.waivers == (made,)
    assert (shown["method"], shown["target"]) == ("patch_inversion", 2)
    assert (shown["owner"], shown["approver"]) == ("rita", "sam")
    assert shown["reason"] == made.reason
    assert report["score"] == 0.9, "what was measured is shown as it was"
    assert report["target"] is None
    json.dumps(report)


@pytest.mark.row(29)
def test_one_person_is_not_enough(scene: Scene) -> None:
    scene.ask()
    scene.again()

    assert scene.states == ["waiting"]
    assert scene.facts.verdict is Verdict.REJECTED
    assert scene.facts.waivers == ()


def test_one_person_with_two_tokens_is_one_person(scene: Scene) -> None:
    asked = scene.ask()
    other_token = people.who(scene.guard, "rita", Role.REVIEWER)

    for who in (scene.rita, other_token):
        with pytest.raises(NotServable, match="second person"):
            waivers.approve(scene.guard, who, asked.waiver_id)
    assert scene.states == ["waiting"]


def test_no_uploader_asks_or_agrees(scene: Scene) -> None:
    ann = people.who(scene.guard, "ann", Role.REVIEWER)
    with pytest.raises(NotServable, match="uploaded this model"):
        scene.ask(ann)
    asked = scene.ask()
    with pytest.raises(NotServable, match="uploaded this model"):
        waivers.approve(scene.guard, ann, asked.waiver_id)
    assert scene.states == ["waiting"]


def test_nobody_who_uploaded_the_same_bytes_or_a_parent_agrees(scene: Scene) -> None:
    asked = scene.ask()
    dora = people.who(scene.guard, "dora", Role.REVIEWER, prefixes=["models/models/dora"])
    scene.put("models/dora/m.pt", 1, by=None)
    with pytest.raises(NotServable, match="same bytes"):
        waivers.approve(scene.guard, dora, asked.waiver_id)
    carl = people.who(scene.guard, "carl", Role.REVIEWER)
    with transaction(scene.guard.engine) as session:
        uploaders.record(session, scene.scan_id, ["carl"])
    scene.again()  # a child of the upload, whose parent is carl's
    with pytest.raises(NotServable, match="its parent"):
        waivers.approve(scene.guard, carl, asked.waiver_id)


def test_whoever_turns_out_to_be_an_uploader_has_waived_nothing(scene: Scene) -> None:
    scene.waive()
    people.give(scene.guard, "sam", Role.UPLOADER, prefixes=["models/models/odd"])
    scene.again()

    assert scene.facts.verdict is Verdict.REJECTED
    assert scene.facts.waivers == ()


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.REVIEWER}))
def test_only_reviewers_waive(scene: Scene, role: Role) -> None:
    asked, other = scene.ask(), people.who(scene.guard, "olga", role)
    with pytest.raises(Forbidden):
        scene.ask(other)
    with pytest.raises(Forbidden):
        waivers.approve(scene.guard, other, asked.waiver_id)


def test_no_login_waives_even_where_nobody_has_a_token(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    scan_id = shop.serve("models/odd/m.pt", 0)
    login = Principal(name="bob", role=None)
    with pytest.raises(Unauthorised):
        waivers.ask(
            shop.guard,
            login,
            scan_id,
            FINDING,
            reason="x",
            until=shop.clock + timedelta(days=1),
        )
    shop.guard.engine.dispose()


@pytest.mark.row(29)
def test_a_verdict_ends_with_the_waiver_that_it_rests_on(scene: Scene) -> None:
    made = scene.waive(until=scene.later(days=3))
    assert scene.in_force.expires_at == made.until
    assert scene.answers == {"odd": 1}

    scene.clock = made.until
    reconcile_guard(scene.guard)
    assert scene.answers == {}
    scene.again()
    assert scene.facts.verdict is Verdict.REJECTED
    assert scene.states == ["expired"]


def test_no_extension_lets_a_verdict_outlive_its_waiver(scene: Scene) -> None:
    rule = LifetimeRule(on_expiry="warn", rescan_before_days=0.5)
    scene.guard = replace(scene.guard, policy=replace(scene.guard.policy, lifetime=rule))
    scene.again()
    made = scene.waive(until=scene.later(days=3))
    scene.clock = made.until - timedelta(minutes=5)
    _aging.act(scene.guard)

    assert scene.in_force.expires_at == made.until
    with reading(scene.guard.engine) as session:
        newest = ledger.latest_for(session, scene.digest)
    assert newest == scene.in_force


def test_a_waiver_is_void_under_another_policy(scene: Scene) -> None:
    scene.waive()
    scene.guard = replace(scene.guard, policy=replace(scene.guard.policy, asr_limit=0.05))
    scene.again()

    assert scene.facts.verdict is Verdict.REJECTED
    assert scene.states == ["void"]


def test_a_waiver_is_void_for_another_version_of_the_method(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scene.ask()
    monkeypatch.setattr(DETECTORS.get("patch_inversion"), "version", 99)

    assert scene.states == ["void"]
    with pytest.raises(InputError, match="is void"):
        waivers.approve(scene.guard, scene.sam, asked.waiver_id)


@pytest.mark.row(29)
def test_a_waiver_says_nothing_about_another_artifact(scene: Scene) -> None:
    scene.waive()
    other = scene.examined("models/second/m.pt", 2)

    assert scene.scan(other).state is ScanState.DONE
    with reading(scene.guard.engine) as session:
        row = ledger.get(session, scene.scan(other).verdict_id or "")
    assert row.verdict is Verdict.REJECTED


def test_a_missing_examination_cannot_be_waived(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    blind = scene.put("models/blind/m.pt", 2)
    scene.with_evidence(blind, outcome=Outcome.COULD_NOT_LOOK)
    run_stage.work(scene.guard, "decide", blind)
    scene.scan_id = blind
    assert scene.facts.verdict is Verdict.INCONCLUSIVE

    with pytest.raises(InputError, match="never stands in for an examination") as refusal:
        scene.ask()
    assert refusal.value.code == "waiver_coverage"
    scene.guard.engine.dispose()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("patch_inversion:3", "waiver_no_finding"),
        ("patch_inversion:two", "waiver_no_finding"),
        ("mesa", "waiver_no_finding"),
        ("clean_accuracy", "waiver_no_finding"),
        ("", "waiver_no_finding"),
    ],
)
def test_only_a_finding_that_is_there_can_be_waived(scene: Scene, text: str, code: str) -> None:
    with pytest.raises(InputError) as refusal:
        waivers.ask(
            scene.guard, scene.rita, scene.digest, text, reason="x", until=scene.later(days=1)
        )
    assert refusal.value.code == code


def test_a_method_that_accuses_one_class_is_enough_to_name_the_finding(scene: Scene) -> None:
    made = waivers.ask(
        scene.guard,
        scene.rita,
        scene.digest,
        "patch_inversion",
        reason=" x ",
        until=scene.later(days=1),
    )
    assert (made.target, made.finding, made.reason) == (2, FINDING, "x")


@pytest.mark.row(29)
def test_a_waiver_needs_a_reason_and_an_end_that_is_near(scene: Scene) -> None:
    for changes, code in (
        ({"reason": " "}, "waiver_no_reason"),
        ({"until": scene.clock}, "waiver_until"),
        ({"until": scene.later(days=waivers.MAX_DAYS + 1)}, "waiver_until"),
    ):
        with pytest.raises(InputError) as refusal:
            scene.ask(**changes)
        assert refusal.value.code == code
    with pytest.raises(InputError, match="no verdict"):
        waivers.ask(
            scene.guard,
            scene.rita,
            scene.put("models/new/m.pt", 0),
            FINDING,
            reason="x",
            until=scene.later(days=1),
        )


def test_a_revoked_waiver_counts_no_more_and_what_it_let_through_is_taken_down(
    scene: Scene,
) -> None:
    made = scene.waive()
    assert scene.answers == {"odd": 1}

    with pytest.raises(InputError, match="reason"):
        waivers.revoke(scene.guard, scene.sam, made.waiver_id, " ")
    waivers.revoke(scene.guard, scene.sam, made.waiver_id[:8], "the square was a patch after all")
    scene.work()
    reconcile_guard(scene.guard)

    assert scene.facts.verdict is Verdict.REJECTED
    assert scene.answers == {}
    assert scene.states == ["revoked"]
    with pytest.raises(InputError, match="is revoked"):
        waivers.approve(scene.guard, scene.sam, made.waiver_id)
    with pytest.raises(InputError, match="revoked already"):
        waivers.revoke(scene.guard, scene.rita, made.waiver_id, "x")
    assert verify(scene.guard) == []


def test_a_request_that_was_revoked_is_never_agreed_to(scene: Scene) -> None:
    asked = scene.ask()
    _, begun = waivers.revoke(scene.guard, scene.rita, asked.waiver_id, "a mistake")

    assert begun == []
    with pytest.raises(InputError, match="is revoked"):
        waivers.approve(scene.guard, scene.sam, asked.waiver_id)


def test_what_is_served_on_a_waiver_that_ended_is_decided_anew_by_beat(scene: Scene) -> None:
    made = scene.waive()
    with transaction(scene.guard.engine) as session:  # as if the process died behind the commit
        _acts.note(scene.guard, session, scene.sam, Act.REVOKE_WAIVER, made.waiver_id, "x")

    (due,) = rescan.due(scene.guard)
    assert due.why == "a waiver ended"


def test_an_unknown_or_ambiguous_id_names_no_waiver(scene: Scene) -> None:
    made = scene.ask()
    for wanted in ("0" * 32, made.waiver_id[:7], ""):
        with pytest.raises(InputError) as refusal:
            waivers.approve(scene.guard, scene.sam, wanted)
        assert refusal.value.code == "unknown_waiver"


def test_a_waiver_that_was_changed_in_the_database_counts_no_more(scene: Scene) -> None:
    scene.waive(until=scene.later(days=2))
    with reading(scene.guard.engine) as session:
        (row,) = acts.of_kind(session, Act.WAIVE)
    facts = json.dumps({**row.facts, "until": "2027-03-01T00:00:00Z"})
    scene.sql(f"UPDATE acts SET facts = '{facts}' WHERE id = '{row.id}'")
    scene.again()

    assert scene.facts.verdict is Verdict.REJECTED
    assert any("was changed" in problem for problem in verify(scene.guard))


def test_a_waiver_counts_only_once_it_is_sealed(scene: Scene) -> None:
    key = scene.guard.settings.signing_key_file
    asked = scene.ask()
    key.rename(key.with_name("away.pem"))
    waivers.approve(scene.guard, scene.sam, asked.waiver_id)
    scan = scene.scan(scene.scan_id)
    assert counting(scene.guard, scan) == ()

    key.with_name("away.pem").rename(key)
    tend(scene.guard)
    assert [one.waiver_id for one in counting(scene.guard, scan)] == [asked.waiver_id]
    scene.work()
    assert scene.facts.verdict is Verdict.CLEARED


def test_each_act_on_a_waiver_is_signed_with_its_principal(scene: Scene) -> None:
    made = scene.waive()
    waivers.revoke(scene.guard, scene.rita, made.waiver_id, "enough")

    with reading(scene.guard.engine) as session:
        rows = [
            *acts.about(session, [scene.digest], Act.WAIVE),
            *acts.about(session, [made.waiver_id]),
        ]
        seals = acts.seals(session, [row.id for row in rows])
    assert [(row.act, row.principal) for row in rows] == [
        (Act.WAIVE, "rita"),
        (Act.APPROVE_WAIVER, "sam"),
        (Act.REVOKE_WAIVER, "rita"),
    ]
    assert len(seals) == 3


def test_an_approval_that_was_given_beside_a_waiver_is_not_renewed_without_it(
    scene: Scene,
) -> None:
    held = scene.put("models/twice/m.pt", 2)
    scene.with_evidence(
        held,
        finding(suspicious=True, natural=0.95),
        replace(finding(suspicious=True, natural=0.95), target=3),
    )
    run_stage.work(scene.guard, "decide", held)
    scene.scan_id = held
    made = scene.waive()
    assert scene.facts.verdict is Verdict.HELD
    assert scene.facts.waivers == (made,)
    review.approve(scene.guard, scene.in_force.scan_id, scene.rita, "class 3 is natural as well")
    scene.work()
    with reading(scene.guard.engine) as session:
        approved = ledger.latest_for(session, scene.models[2])
    assert approved is not None
    assert (approved.verdict, approved.expires_at) == (Verdict.CLEARED, made.until)

    waivers.revoke(scene.guard, scene.sam, made.waiver_id, "no")
    scene.work()
    assert scene.facts.verdict is Verdict.HELD


def test_the_same_bytes_elsewhere_rest_on_no_waived_verdict(scene: Scene) -> None:
    scene.waive()
    from guard.flow import _reuse

    second = scene.put("models/again/m.pt", 1, by="zoe")
    scan = replace(
        scene.scan(second),
        detail=replace(scene.scan(second).detail, reuses=scene.scan(scene.scan_id).verdict_id),
    )
    from guard.flow.decide import case_of

    assert _reuse.standing(scene.guard, scan, case_of) is None


def test_a_simulation_by_the_same_policy_changes_nothing(scene: Scene) -> None:
    scene.waive()

    assert simulate(scene.guard, scene.guard.policy).changes == ()
    other = replace(scene.guard.policy, asr_limit=0.05)
    assert [change.after for change in simulate(scene.guard, other).changes] == [Verdict.REJECTED]


def test_a_revoked_token_waives_nothing(scene: Scene) -> None:
    asked = scene.ask()
    tokens.revoke(scene.guard, people.who(scene.guard, "ops", Role.OPERATOR), scene.sam.token_id)

    with pytest.raises(Unauthorised):
        waivers.approve(scene.guard, scene.sam, asked.waiver_id)


def test_no_detector_is_skipped_by_a_proof_that_may_rest_on_what_was_waived(scene: Scene) -> None:
    policy = replace(scene.guard.policy, stop_early=True)
    scene.guard = replace(scene.guard, policy=policy)
    scene.again()
    scan = scene.scan(scene.scan_id)
    assert early_end(scene.guard, scan) == policy.to_dict()

    scene.waive()
    assert early_end(scene.guard, scan) is None


def test_a_waiver_that_cannot_be_read_lets_nothing_through(scene: Scene) -> None:
    scene.waive()
    with reading(scene.guard.engine) as session:
        (row,) = acts.of_kind(session, Act.WAIVE)
    scene.sql(f"UPDATE acts SET facts = '{{}}' WHERE id = '{row.id}'")

    assert counting(scene.guard, scene.scan(scene.scan_id)) == ()
    assert scene.states == []
    assert [item.why for item in rescan.due(scene.guard)] == ["a waiver ended"]
    assert any("was changed" in problem for problem in verify(scene.guard))


def test_a_repair_under_way_is_not_overtaken_by_a_waiver(scene: Scene) -> None:
    asked = scene.ask()
    with transaction(scene.guard.engine) as session:
        scans.move(session, scene.scan_id, ScanState.PUBLISHING, scene.clock)

    assert waivers.approve(scene.guard, scene.sam, asked.waiver_id)[1] == []
    # Ending it is never put off.
    _, begun = waivers.revoke(scene.guard, scene.sam, asked.waiver_id, "no")
    assert len(begun) == 1


def test_a_process_that_dies_behind_the_approval_leaves_nothing_undecided(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scene.ask()

    def killed(_guard: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(waivers, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            waivers.approve(scene.guard, scene.sam, asked.waiver_id)
    scene.work()

    assert scene.facts.verdict is Verdict.CLEARED
