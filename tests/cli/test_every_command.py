"""Every command is known to leave an act in the ledger's chain, or to change nothing.

A command that is added must be put into one of the groups, and one that changes something needs a
doing that shows its act.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.core import TyperGroup
from typer.main import get_command

from guard.attest import acts as signing
from guard.attest import dsse
from guard.cli.main import app
from guard.core.hooks import DeliveryState, HookKind
from guard.core.projects import MemberKind
from guard.core.roles import Act, Role
from guard.core.trainset import TrainingSetFacts
from guard.flow import hooks, keys, projects, run_stage, tokens
from guard.flow._standing import standing
from guard.flow.principals import authenticate
from guard.policy.rules import RetrainRule
from guard.store import alarms, dead_letters, deliveries, ledger_acts, migrate, trainsets
from guard.store.rows import TrainingSetRow
from guard.store.session import reading, transaction
from tests import people
from tests.cli.conftest import Answer
from tests.flow.place import MANIFEST, finding
from tests.flow.shop import BUCKET
from tests.flow.test_waivers import FINDING
from tests.flow.test_waivers import Scene as Waivable
from tests.registries.standin import Registry, serving

Cli = Callable[..., Answer]

#: The checks of `guard doctor` that ask services.
ELSEWHERE = (
    *("broker", "broker_messages", "workers", "serving", "device"),
    *("buckets", "bucket_versions", "bucket_events", "clock", "blobs_apart"),
)
#: What only reads the registry, as it is called; with whatever exit code.
READING: dict[str, tuple[str, ...]] = {
    "acts list": (),
    "alarms list": (),
    "alarms show": ("ALARM",),
    "bom": ("SCAN",),
    "card": ("SCAN",),
    "cleanset check": ("set.npz",),
    "cleanset list": (),
    "dead-letters list": (),
    "export": ("fraud", "--out", "carried"),
    "dead-letters show": ("LETTER",),
    "hook list": (),
    "hook log": (),
    "hook show": ("HOOK",),
    # With --apply it sets a bucket's policy and leaves an act: tests/flow/test_quarantine.py.
    "quarantine policy": ("--store", "minio", "--principal", "guard"),
    # Prints SQL. With --apply the owner of the tables changes rights, which the ledger never knew.
    "db roles": (),
    # Without what would ask services of other hosts: tests/doctor has them.
    "doctor": tuple(part for name in ELSEWHERE for part in ("--skip", name)),
    "keys list": (),
    "methods list": ("--kind", "formats"),
    "name list": (),
    "policy check": (),
    "policy simulate": ("default",),
    "project list": (),
    "project show": ("PROJECT",),
    "report": ("SCAN",),
    "review list": (),
    "review show": ("SCAN",),
    "served": (),
    "status": ("SCAN",),
    "token list": (),
    "trainset list": (),
    "verify": (),
    "waive list": (),
}
#: What changes only files of whoever calls it, and knows no registry or only looks names up there.
#: `keys make` makes a key that nothing trusts.
FILES_ONLY = frozenset(
    {
        "backup create",
        "calibrate",
        "compare",
        "generate",
        "keys make",
        "methods canary",
        "purify",
        "scan",
        "trainset check",
    }
)
#: What starts other processes, each of which records its own acts.
STARTING = frozenset({"up"})
#: What needs a place without a database; tests/cli/test_backup.py shows its act.
RESTORING = frozenset({"backup restore"})


class Scene(Waivable):
    """A rejected model, a served one, and people."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.opened = ExitStack()
        self.first = self.serve("models/fraud/m.pt", 0, at=1)
        np.savez(
            folder / "set.npz",
            images=np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8),
            labels=np.arange(60) % 3,
        )

    def share(self) -> None:
        """Let everybody read what is in no project: who may act on it is another question."""
        settings = replace(self.guard.settings, read_unassigned=True)
        self.guard = replace(self.guard, settings=settings)

    def token(self, role: Role, name: str = "") -> str:
        return people.give(self.guard, name or f"the-{role}", role)

    @property
    def seq(self) -> int:
        with reading(self.guard.engine) as session:
            last = ledger_acts.last(session)
        return last.seq if last is not None else 0

    def since(self, seq: int) -> list[tuple[str, str]]:
        """What was signed into the chain behind a row: which act, and whose."""
        with reading(self.guard.engine) as session:
            rows = ledger_acts.rows(session, seq)
        read = [signing.read_act(dsse.verify(row.envelope, self.guard.trusted)) for row in rows]
        return [(str((act.entry or {}).get("act", act.kind)), act.by) for act in read]


def held(scene: Scene) -> str:
    scan_id = scene.put("models/natural/m.pt", 2)
    scene.with_evidence(scan_id, finding(suspicious=True, natural=0.95))
    run_stage.work(scene.guard, "decide", scan_id)
    return scan_id


def unpublished(scene: Scene) -> str:
    guard = scene.guard
    scene.guard = replace(guard, settings=replace(guard.settings, auto_publish=False))
    return scene.serve("models/other/m.pt", 2)


def newer(scene: Scene) -> str:
    scene.serve("models/fraud/m.pt", 2, at=2)
    return "fraud"


def new_key(scene: Scene, *, trusted: bool) -> str:
    path = scene.folder / f"new-{trusted}.pem"
    keys.make_key(path)
    if not trusted:
        return str(path)
    return keys.trust(scene.guard, str(path), "yearly", people.who(scene.guard, "o", Role.OPERATOR))


def owner(scene: Scene) -> str:
    people.give(scene.guard, "uma", Role.UPLOADER, prefixes=["models/uma"])
    return "uma"


def project(scene: Scene) -> str:
    """A project, and somebody who is in none."""
    people.give(scene.guard, "bob", Role.UPLOADER)
    if not projects.every(scene.guard):
        who = people.who(scene.guard, "otto", Role.OPERATOR)
        projects.create(scene.guard, who, "vision", "models/vision", {})
    return "vision"


def joined(scene: Scene) -> str:
    name, who = project(scene), people.who(scene.guard, "otto", Role.OPERATOR)
    projects.add_member(scene.guard, who, name, MemberKind.PRINCIPAL, "bob", Role.UPLOADER)
    return name


def older_schema(scene: Scene) -> str:
    migrate.downgrade(scene.guard.settings.database_url, "0008")
    return "upgrade"


def registered(scene: Scene) -> str:
    """A cleared model in an MLflow registry."""
    registry = Registry()
    url = scene.opened.enter_context(serving(registry))
    scene.guard = replace(scene.guard, settings=replace(scene.guard.settings, mlflow_url=url))
    registry.answer("POST", "registered-models/create", {}, {"name": "fraud"})
    source = f"s3://{BUCKET}/models/fraud"
    registry.answer("POST", "model-versions/create", {}, {"name": "fraud", "source": source})
    return "sync"


def trainable(scene: Scene) -> str:
    """A stored training set for the served model, and a policy that lets it be trained anew."""
    facts = TrainingSetFacts(
        uri="/data/digits.npz",
        digest="b" * 64,
        images=100,
        total=100,
        channels=1,
        height=8,
        width=8,
        class_names=MANIFEST.label_names or tuple(map(str, range(MANIFEST.num_classes))),
        per_class=(100 // MANIFEST.num_classes,) * MANIFEST.num_classes,
    )
    row = TrainingSetRow(
        name="digits", uri=facts.uri, class_names=(), facts=facts, added_at=scene.guard.now()
    )
    with transaction(scene.guard.engine) as session:
        trainsets.put(session, row)
    rule = RetrainRule(methods=("sifted",), budget_seconds=60.0, max_open=2)
    scene.guard = replace(scene.guard, policy=replace(scene.guard.policy, retrain=rule))
    return "digits"


def sifted(scene: Scene) -> str:
    trainable(scene)
    return "fraud"


def without_checkpoints(scene: Scene) -> str:
    (scene.guard.settings.checkpoint_dir / "checkpoints.jsonl").unlink()
    return "accept"


def alarm(scene: Scene) -> str:
    with transaction(scene.guard.engine) as session:
        alarms.raise_(session, "name_taken", "s3://models/a", "It is taken.", scene.guard.now())
        return alarms.open_alarms(session, "name_taken")[0].id


def letter(scene: Scene) -> str:
    scan_id = scene.upload(name="lost")
    run_stage.bury(scene.guard, "inspect", scan_id, "It broke.")
    with reading(scene.guard.engine) as session:
        return dead_letters.list_all(session)[0].id


def hook(scene: Scene) -> str:
    who = people.who(scene.guard, "an-operator", Role.OPERATOR)
    return hooks.add(scene.guard, who, HookKind.SLACK, "https://a.example/in").row.id


def delivery(scene: Scene) -> str:
    who = people.who(scene.guard, "another-operator", Role.OPERATOR)
    row = hooks.test(scene.guard, who, hook(scene))
    with transaction(scene.guard.engine) as session:
        deliveries.end(session, row.id, DeliveryState.DEAD, scene.guard.now())
    return row.id


ARTIFACT = ("--finding", FINDING, "--reason", "a square", "--until", "2026-12-11")
BOB = ("--principal", "bob", "--role", "uploader")
WHY = ("--reason", "for the test")
#: What each command is called with; the first word is made by a function where it depends on more.
DOINGS: dict[str, tuple[Act | str, Role, Callable[[Scene], str], tuple[str, ...]]] = {
    "attest": (Act.ATTEST, Role.OPERATOR, lambda s: s.first, ("--as", "svr")),
    "alarms ack": (Act.ACKNOWLEDGE, Role.OPERATOR, alarm, WHY),
    "cleanset add": (Act.ADD_CLEANSET, Role.OPERATOR, lambda _: "threes", ("set.npz",)),
    "db upgrade": (Act.UPGRADE_DATABASE, Role.OPERATOR, older_schema, ()),
    "dead-letters retry": (Act.RETRY, Role.OPERATOR, letter, ()),
    "hook add": (
        Act.ADD_HOOK,
        Role.OPERATOR,
        lambda _: "webhook",
        ("https://a.example/in", "--type", "guard.verdict.*"),
    ),
    "hook remove": (Act.REMOVE_HOOK, Role.OPERATOR, hook, ()),
    "hook retry": (Act.TEST_HOOK, Role.OPERATOR, delivery, ()),
    "hook test": (Act.TEST_HOOK, Role.OPERATOR, hook, ()),
    "keys distrust": ("distrust", Role.SIGNER, lambda s: new_key(s, trusted=True), WHY),
    "keys trust": ("trust", Role.SIGNER, lambda s: new_key(s, trusted=False), WHY),
    "ledger accept": ("accept", Role.SIGNER, without_checkpoints, WHY),
    "mlflow sync": (Act.SYNC_MLFLOW, Role.OPERATOR, registered, ()),
    "name transfer": (Act.TRANSFER, Role.OPERATOR, lambda _: "fraud", ("--owner", "dora", *WHY)),
    "project create": (
        Act.CREATE_PROJECT,
        Role.OPERATOR,
        lambda _: "vision",
        ("--prefix", "models/vision", "--priority", "high"),
    ),
    "project member add": (Act.ADD_MEMBER, Role.OPERATOR, project, BOB),
    "project member remove": (Act.REMOVE_MEMBER, Role.OPERATOR, joined, BOB),
    "project set": (Act.CHANGE_PROJECT, Role.OPERATOR, project, ("--open-scans", "5")),
    "publish": (Act.PUBLISH, Role.OPERATOR, unpublished, ()),
    "rescan": (Act.RESCAN, Role.REVIEWER, lambda _: "fraud", ()),
    "retrain": (
        Act.RETRAIN,
        Role.OPERATOR,
        trainable,
        ("--like", "fraud", "--method", "sifted", "--submit"),
    ),
    "review approve": (Act.APPROVE, Role.REVIEWER, held, WHY),
    "review reject": (Act.REJECT, Role.REVIEWER, held, WHY),
    "rollback": (Act.ROLLBACK, Role.OPERATOR, newer, ("--to", "1.0", *WHY)),
    "sift": (Act.SIFT, Role.OPERATOR, sifted, ("digits", "--submit")),
    "submit": (Act.SUBMIT, Role.OPERATOR, lambda _: "s3://models/models/new/m.pt", ()),
    "token create": (Act.GIVE_TOKEN, Role.OPERATOR, lambda _: "new", ("--role", "viewer")),
    "token disown": (Act.REMOVE_OWNER, Role.OPERATOR, owner, ("models/uma",)),
    "token revoke": (Act.REVOKE_TOKEN, Role.OPERATOR, owner, ()),
    "trainset add": (Act.ADD_TRAINSET, Role.OPERATOR, lambda _: "stripes", ("set.npz",)),
    "waive approve": (Act.APPROVE_WAIVER, Role.REVIEWER, lambda s: s.ask().waiver_id, ()),
    "waive ask": (Act.WAIVE, Role.REVIEWER, lambda s: s.digest, ARTIFACT),
    "waive revoke": (Act.REVOKE_WAIVER, Role.OPERATOR, lambda s: s.ask().waiver_id, WHY),
    "withdraw": (Act.WITHDRAW, Role.OPERATOR, lambda _: "fraud", WHY),
}
#: Words that a doing makes that are part of the command already.
PART = frozenset({"upgrade", "accept", "sync"})


def commands(group: Any) -> Iterator[str]:
    """Every command below a group, as it is typed."""
    return (name for name, _ in below(group))


def below(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with what Typer knows of it."""
    for name in group.list_commands(None):
        one = group.get_command(None, name)
        if isinstance(one, TyperGroup):
            yield from below(one, (*path, name))
        else:
            yield " ".join((*path, name)), one


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    monkeypatch.chdir(tmp_path)
    with made.opened:
        yield made
    made.guard.engine.dispose()


#: What answers with a document of a form of its own, and what does something and shows nothing.
OWN_FORM = {"attest", "bom", "card", "quarantine policy"}
NOTHING_TO_SHOW = {
    "backup create",
    "backup restore",
    "db roles",
    "db upgrade",
    "keys distrust",
    "keys make",
    "keys trust",
    "ledger accept",
    "project member add",
    "project member remove",
    "token disown",
}


@pytest.mark.row(48)
def test_every_command_that_shows_something_shows_it_as_json_too() -> None:
    forms = {
        name: [
            one.type_descriptor.annotation
            for one in command.params
            if "--format" in getattr(one, "opts", ())
        ]
        for name, command in below(get_command(app))
    }

    assert {name for name, found in forms.items() if not found} == OWN_FORM | NOTHING_TO_SHOW
    for name, found in forms.items():
        assert all("json" in set(form) for form in found), name


def test_every_command_is_in_one_group() -> None:
    groups = [set(DOINGS), set(READING), FILES_ONLY, STARTING, RESTORING]

    assert sorted(commands(get_command(app))) == sorted(name for group in groups for name in group)


@pytest.mark.threat("B04")
@pytest.mark.parametrize("command", DOINGS)
def test_what_changes_something_leaves_a_sealed_act_of_whoever_called_it(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    kind, role, prepare, more = DOINGS[command]
    monkeypatch.setenv("GUARD_TOKEN", token := scene.token(role))
    name = authenticate(scene.guard, token).name
    first = prepare(scene)
    before = scene.seq

    answer = cli(*command.split(), *(() if first in PART else (first,)), *more)

    assert answer.code == 0, answer.err
    assert (str(kind), name) in scene.since(before)
    assert standing(scene.guard, whole=True).unsealed == ()


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("cleanset add", Role.REVIEWER),
        ("trainset add", Role.UPLOADER),
        ("rescan", Role.UPLOADER),
        ("alarms ack", Role.REVIEWER),
        ("dead-letters retry", Role.REVIEWER),
        ("db upgrade", Role.REVIEWER),
    ],
)
def test_who_may_not_changes_nothing(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str, role: Role
) -> None:
    _, _, prepare, more = DOINGS[command]
    monkeypatch.setenv("GUARD_TOKEN", scene.token(role))
    first = prepare(scene)
    before, schema = scene.seq, migrate.current(scene.guard.settings.database_url)
    messages = scene.messages()

    answer = cli(*command.split(), *(() if first in PART else (first,)), *more)

    assert (answer.code, scene.since(before)) == (4, [])
    assert "role" in answer.err
    assert migrate.current(scene.guard.settings.database_url) == schema
    assert scene.messages() == messages


def test_what_only_reads_leaves_the_chain_as_it_was(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_TOKEN", scene.token(Role.OPERATOR))
    ids = {
        "SCAN": scene.first,
        "ALARM": alarm(scene),
        "LETTER": letter(scene),
        "HOOK": hook(scene),
        "PROJECT": project(scene),
    }
    before, state = scene.seq, standing(scene.guard)

    for command, more in READING.items():
        answer = cli(*command.split(), *(ids.get(one, one) for one in more))
        assert "Traceback" not in answer.err, command
        assert answer.out, command

    assert scene.seq == before
    assert standing(scene.guard) == state


def test_an_upgrade_without_a_token_is_the_login_s_and_marked(scene: Scene, cli: Cli) -> None:
    older_schema(scene)
    before = scene.seq

    assert cli("db", "upgrade").code == 0

    ((kind, _),) = scene.since(before)
    (row, *_) = json.loads(cli("acts", "list", "--format", "json").out)
    assert (kind, row["act"]) == ("db_upgrade", "db_upgrade")
    assert (row["authenticated"], row["role"], row["detail"]) == (False, "", "from 0008")
    assert row["subject"] == migrate.head()
    before = scene.seq
    assert cli("db", "upgrade").code == 0
    assert scene.seq == before, "there was nothing to do"


def test_a_token_that_counts_no_more_upgrades_nothing(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_TOKEN", scene.token(Role.OPERATOR, "otto"))
    tokens.revoke(scene.guard, people.who(scene.guard, "o", Role.OPERATOR), "otto")
    older_schema(scene)

    assert cli("db", "upgrade").code == 4

    assert migrate.current(scene.guard.settings.database_url) == "0008"
