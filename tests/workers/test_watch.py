"""What watches over serving has a queue and a worker of its own, where no upload has a stage."""

from pathlib import Path

import pytest
import yaml

from guard.core.queues import QUEUES, WATCH
from guard.local.guard_processes import Relay, Worker
from guard.local.supervisor import Stack
from guard.settings import load_settings
from workers.app import STAGE_QUEUE, make_app

WATCHING = ("reconcile", "rescue")
COMPOSE = Path(__file__).parents[2] / "docker" / "compose.yaml"


def queues_of(arguments: list[str]) -> list[str]:
    return arguments[arguments.index("-Q") + 1].split(",")


def test_no_stage_of_an_upload_is_in_the_queue_of_the_watch() -> None:
    assert WATCH in QUEUES
    assert WATCH not in STAGE_QUEUE.values()


def test_beat_sends_the_watch_to_its_queue_and_nothing_waits_there_for_longer_than_its_period() -> (
    None
):
    beats = make_app(load_settings({})).conf.beat_schedule

    for name in WATCHING:
        assert beats[name]["options"] == {"queue": WATCH, "expires": beats[name]["schedule"]}
    assert [name for name in beats if beats[name].get("options", {}).get("queue") == WATCH] == [
        name for name in beats if name in WATCHING
    ]


@pytest.mark.parametrize("where", ["guard up", "compose"])
def test_each_queue_has_a_worker_and_those_that_uploads_can_hold_are_apart(
    tmp_path: Path, where: str
) -> None:
    if where == "compose":
        services = yaml.safe_load(COMPOSE.read_text())["services"]
        commands = [list(service.get("command", [])) for service in services.values()]
    else:
        with Stack(tmp_path / "data", {}) as stack:
            parts = [part for part in stack._components.values() if isinstance(part, Worker)]
            commands = [list(part.arguments()) for part in parts]
    consumed = [queues_of(command) for command in commands if "-Q" in command]

    assert [WATCH] in consumed
    assert ["inspect"] in consumed
    assert {name for queues in consumed for name in queues} >= {"watch", "inspect", "control"}
    assert sum("control" in queues for queues in consumed) == 1


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/queue"])
def test_the_poller_of_a_queue_is_started_where_a_queue_is_set(tmp_path: Path, url: str) -> None:
    with Stack(tmp_path / "data", {"GUARD_SQS_QUEUE_URL": url}) as stack:
        pollers = [
            part.arguments()
            for part in stack._components.values()
            if isinstance(part, Relay) and part.name == "poller"
        ]

    assert pollers == ([["-m", "workers.poller"]] if url else [])
