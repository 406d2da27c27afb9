"""A project's own policy decides about what lies under its prefix, and about nothing else."""

from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from guard.core.errors import PolicyError
from guard.core.projects import MemberKind
from guard.core.roles import Act, Role
from guard.core.states import GateMode, ScanState, Verdict
from guard.flow import projects, rescan, review, run_stage, simulate, watch
from guard.flow._modality import in_force
from guard.flow.served import served
from guard.flow.signed import signed
from guard.policy import NamedPolicies, default_policy
from guard.store import acts
from guard.store.session import reading
from tests import people
from tests.flow.registry import Registry

DEFAULT = (files("guard.policy") / "default.toml").read_text()


class Shared:
    """A registry with the projects `lab` and `plant`, and a folder of policies."""

    def __init__(self, folder: Path) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.registry = Registry(folder)
        place = self.registry.place
        place.guard = replace(place.guard, named_policy=NamedPolicies(self.policies))
        self.root = people.who(place.guard, "olga", Role.OPERATOR)
        for name in ("lab", "plant"):
            projects.create(place.guard, self.root, name, f"models/models/{name}", {})

    def write(
        self, name: str, *, days: int = 30, always: bool = False, warns: bool = False
    ) -> None:
        """A policy like the packaged default but for these rules."""
        text = DEFAULT.replace('name = "default"', f'name = "{name}"')
        text = text.replace("lifetime_days = 30", f"lifetime_days = {days}")
        text = text.replace("always = false", f"always = {str(always).lower()}")
        gate = '\n[gate]\nmode = "warn"\n' if warns else ""
        (self.policies / f"{name}.toml").write_text(text + gate)

    def give(self, project: str, policy: str | None) -> None:
        projects.change(self.registry.place.guard, self.root, project, {"policy": policy})

    def upload(self, place: str, seed: int = 0) -> str:
        """An upload to PROJECT/NAME that is worked on; served as PROJECT-NAME."""
        under, _, _ = place.rpartition("/")
        more = {"under": f"{under}/"} if under else {}
        return self.registry.upload(place.replace("/", "-"), seed=seed, **more)

    def verdict(self, scan_id: str) -> Verdict:
        row = self.registry.place.verdicts(scan_id)[-1]
        return row.verdict

    def rules(self, scan_id: str) -> str:
        """The name of the policy in the newest signed verdict of a scan."""
        return signed(self.registry.place.verdicts(scan_id)[-1].envelope).policy.name

    def in_place(self, scan_id: str) -> str | None:
        """The verdict of which a scan has the id; one of a re-scan's, where there was one."""
        return self.registry.scan(scan_id).verdict_id

    def names(self) -> set[str]:
        return set(self.registry.served())


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


@pytest.mark.row(54)
def test_what_lies_under_a_projects_prefix_is_decided_by_its_policy_and_nothing_else(
    shared: Shared,
) -> None:
    shared.write("brief", days=5)
    shared.give("lab", "brief")
    inside = shared.upload("lab/m")
    outside = shared.upload("plant/m", seed=1)
    nowhere = shared.upload("m", seed=2)

    assert [shared.rules(one) for one in (inside, outside, nowhere)] == [
        "brief",
        "default",
        "default",
    ]
    days = [
        row.expires_at - row.issued_at
        for one in (inside, outside)
        for row in shared.registry.place.verdicts(one)
    ]
    assert days == [timedelta(days=5), timedelta(days=30)]


def test_the_choice_is_an_act_with_the_policys_digest_and_so_is_the_first_decision_by_it(
    shared: Shared,
) -> None:
    shared.write("brief", days=5)
    shared.give("lab", "brief")
    for seed, name in enumerate(("lab/a", "plant/a", "lab/b", "plant/b")):
        shared.upload(name, seed=seed)

    guard = shared.registry.place.guard
    own = guard.named_policy("brief")
    with reading(guard.engine) as session:
        chosen = acts.of_kind(session, Act.CHANGE_PROJECT)[-1]
        changes = acts.of_kind(session, Act.CHANGE_POLICY)
    assert (chosen.principal, chosen.facts) == (
        "olga",
        {"policy": "brief", "policy_digest": own.digest},
    )
    assert [(row.subject, row.facts) for row in changes] == [
        (own.digest, {"before": "", "project": "lab"}),
        (guard.policy.digest, {"before": ""}),
    ]
    shared.give("lab", None)
    with reading(guard.engine) as session:
        assert acts.of_kind(session, Act.CHANGE_PROJECT)[-1].facts == {"policy": "none"}


def test_of_projects_that_nest_the_inner_ones_policy_rules(shared: Shared) -> None:
    guard = shared.registry.place.guard
    shared.write("outer")
    shared.write("inner")
    shared.give("lab", "outer")
    projects.create(guard, shared.root, "deep", "models/models/lab/deep", {"policy": "inner"})
    projects.create(guard, shared.root, "plain", "models/models/lab/plain", {})

    found = [
        shared.rules(shared.upload(name, seed=seed))
        for seed, name in enumerate(("lab/m", "lab/deep/m", "lab/plain/m"))
    ]

    assert found == ["outer", "inner", "default"], "a project without one has the installation's"


def test_another_policy_has_what_its_project_serves_decided_again_and_nothing_else(
    shared: Shared,
) -> None:
    inside = shared.upload("lab/m")
    outside = shared.upload("plant/m", seed=1)
    shared.write("careful", always=True)
    shared.give("lab", "careful")
    shared.registry.pass_time(hours=7)

    (opened,) = shared.registry.tick()

    assert shared.registry.scan(opened).parent_scan_id == inside
    assert shared.verdict(opened) is Verdict.HELD
    assert shared.names() == {"plant-m"}
    assert shared.in_place(outside) == shared.registry.place.verdicts(outside)[0].id
    assert rescan.renew(shared.registry.place.guard) == []


def test_a_policy_that_cannot_be_read_clears_nothing_and_says_so(shared: Shared) -> None:
    shared.write("brief", days=5)
    shared.give("lab", "brief")
    shared.upload("lab/old")
    shared.upload("plant/old", seed=1)
    (shared.policies / "brief.toml").unlink()

    new = shared.upload("lab/new", seed=2)

    row = shared.registry.place.verdicts(new)[-1]
    assert row.verdict is Verdict.INCONCLUSIVE
    (reason,) = signed(row.envelope).facts.reasons
    assert reason.startswith("The policy 'brief' of project lab cannot be used")
    assert signed(row.envelope).policy.name == "brief (unreadable)"
    assert shared.names() == {"lab-old", "plant-old"}, "what was cleared stands until its end"
    for _ in range(6):
        shared.registry.pass_time(days=1)
        shared.registry.tick()
    assert shared.names() == {"plant-old"}

    shared.write("brief", days=5)
    shared.registry.tick()
    assert shared.rules(shared.upload("lab/newer", seed=3)) == "brief"


def test_the_detectors_do_not_start_without_a_policy(shared: Shared) -> None:
    shared.write("brief")
    shared.give("lab", "brief")
    scan_id = shared.registry.place.upload(name="lab-m", under="lab/")
    guard = shared.registry.place.guard
    run_stage.work(guard, "inspect", scan_id)
    assert shared.registry.scan(scan_id).state is ScanState.DETECTING
    (shared.policies / "brief.toml").write_text("[policy]\nname = 3\n[detectors.margin]\n")

    run_stage.work(guard, "detect", scan_id)

    outcome = shared.registry.scan(scan_id).detail.outcome
    assert outcome is not None
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert "policy.name" in outcome.reasons[0]


def test_a_lenient_project_clears_nothing_for_a_strict_one_nor_takes_it_out(
    shared: Shared,
) -> None:
    shared.write("careful", always=True)
    shared.give("lab", "careful")
    strict = shared.upload("lab/m")
    assert (shared.rules(strict), shared.verdict(strict)) == ("careful", Verdict.HELD)
    lenient = shared.upload("plant/m")
    assert shared.verdict(lenient) is Verdict.CLEARED
    assert signed(shared.registry.place.verdicts(lenient)[-1].envelope).basis["kind"] == "policy"

    shared.registry.tick()
    assert shared.names() == {"plant-m"}, "the clearing is the lenient project's alone"
    guard = shared.registry.place.guard
    rita = people.who(guard, "rita", Role.REVIEWER)
    projects.add_member(guard, shared.root, "lab", MemberKind.PRINCIPAL, "rita", Role.REVIEWER)
    review.reject(guard, strict, rita, "not for us")
    shared.registry.tick()
    assert shared.names() == {"plant-m"}, "and so is the rejection the strict one's"
    assert [row.vetted for row in served(guard)] == [True]


def test_no_verdict_is_reused_across_projects(shared: Shared) -> None:
    first, second, third = (shared.upload(one) for one in ("lab/m", "plant/m", "plant/n"))

    kinds = [
        signed(shared.registry.place.verdicts(one)[-1].envelope).basis["kind"]
        for one in (first, second, third)
    ]
    assert kinds == ["policy", "policy", "reuse"]


def test_a_gate_that_only_warns_does_so_in_its_project_alone(shared: Shared) -> None:
    shared.write("loose", always=True, warns=True)
    shared.write("tight", always=True)
    shared.give("lab", "loose")
    shared.give("plant", "tight")
    shared.upload("lab/m")
    shared.upload("plant/m", seed=1)
    shared.registry.tick()

    guard = shared.registry.place.guard
    assert shared.names() == {"lab-m"}
    (row,) = served(guard)
    assert row.gate is not None
    assert watch.look(guard).warns

    shared.give("lab", "tight")
    shared.registry.tick()
    assert shared.names() == set(), "what was let through ends with the warning"
    assert not watch.look(guard).warns


def test_what_a_warning_gate_extends_late_is_its_projects_alone(shared: Shared) -> None:
    shared.write("loose", days=5, warns=True)
    shared.give("lab", "loose")
    shared.upload("lab/m")
    shared.upload("plant/m", seed=1)
    shared.registry.pass_time(days=31)
    shared.registry.settle(rescan_limit=0)

    shared.registry.tick()

    assert shared.names() == {"lab-m"}


def test_one_projects_broken_parameters_keep_nobody_else_from_being_renewed(
    shared: Shared,
) -> None:
    shared.write("brief")
    shared.give("lab", "brief")
    shared.upload("lab/m")
    other = shared.upload("plant/m", seed=1)
    text = (shared.policies / "brief.toml").read_text()
    required = "[detectors.patch_inversion]"
    assert required in text
    odd = f"{required}\nparams = {{ no_such_parameter = 1 }}"
    (shared.policies / "brief.toml").write_text(text.replace(required, odd))
    shared.registry.pass_time(days=25)

    opened = rescan.renew(shared.registry.place.guard)

    assert [shared.registry.scan(one).parent_scan_id for one in opened] == [other]


def test_a_simulation_is_of_a_project_or_of_what_no_projects_policy_rules(
    shared: Shared,
) -> None:
    shared.write("brief")
    shared.give("lab", "brief")
    for seed, name in enumerate(("lab/m", "plant/m", "m")):
        shared.upload(name, seed=seed)
    guard = shared.registry.place.guard

    found = {
        project: simulate.simulate(guard, guard.policy, project).artifacts
        for project in ("", "lab", "plant")
    }

    assert found == {"": 2, "lab": 1, "plant": 1}
    with pytest.raises(PolicyError, match="no policy called"):
        shared.give("lab", "absent")
    with reading(guard.engine) as session:
        names = [policy.name for policy in in_force(guard, session)]
    assert names == ["default", "text-to-graph", "brief"]


def test_names_are_files_of_the_folder_or_packaged_and_never_both(tmp_path: Path) -> None:
    read = NamedPolicies(tmp_path)
    assert NamedPolicies()("strict") == read("strict")
    (tmp_path / "own.toml").write_text(DEFAULT)
    assert read("own") is read("own"), "a file that did not change is read once"
    (tmp_path / "own.toml").write_text(DEFAULT.replace("_days = 30", "_days = 3"))
    assert read("own").lifetime_days == 3
    assert read("own").gate_mode is GateMode.ENFORCE
    assert default_policy(read("own").modality) != read("own")

    (tmp_path / "strict.toml").write_text(DEFAULT)
    (tmp_path / "odd.toml").write_text('[policy]\nname = "odd"\n[detectors.nothing]\n')
    (tmp_path / "folder.toml").mkdir()
    refusals = {
        "absent": "no policy called 'absent'",
        "../own": "cannot name a policy",
        "strict": "is a packaged policy and a file",
        "odd": "names 'nothing'",
        "folder": "cannot be read",
    }
    for name, why in refusals.items():
        with pytest.raises(PolicyError, match=why):
            read(name)


def test_a_policy_for_other_models_leaves_these_to_the_installations(shared: Shared) -> None:
    shared.give("lab", "text-to-graph")
    assert shared.rules(shared.upload("lab/m")) == "default"
