"""compose.yaml: it can start, nothing in it has more than it needs, and its schema holds."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from guard.core.queues import QUEUES
from guard.inference.__main__ import Config
from guard.publishers.open_inference import OpenInference
from guard.settings import load_settings
from guard.store.grants import DatabaseRole
from tests.docker import compose
from tests.docker.dockerfile import stages
from tests.house.sources import ROOT

ENV = compose.new_env()
MODEL = compose.load(ENV)
SERVICES: dict[str, Any] = MODEL["services"]
#: Whose login each process of the guard has; beat has none.
LOGINS = {
    "migrate": "guard",
    "api": "guard_api",
    "relay": "guard_api",
    "poller": "guard_api",
    "worker-inspect": "guard_worker",
    "worker-scan": "guard_worker",
    "worker-scan-gpu": "guard_worker",
    "worker-train": "guard_worker",
    "worker-train-gpu": "guard_worker",
    "worker-control": "guard_signer",
    "worker-watch": "guard_signer",
    "worker-notify": "guard_notifier",
}
OURS = [*LOGINS, "beat", "buckets"]
services = pytest.mark.parametrize("name", list(SERVICES))


@pytest.mark.parametrize(
    "files", [(), (compose.COMPOSE, compose.OPEN_INFERENCE)], ids=["alone", "open-inference"]
)
def test_the_file_is_one_of_the_compose_specification(files: tuple[Path, ...]) -> None:
    text = yaml.safe_dump(compose.load(ENV, *files))
    compose_spec.PyCompose.from_yaml(text).validate()

    with pytest.raises(Exception, match="volume"):
        compose_spec.PyCompose.from_yaml(text.replace("volumes:", "volume:"))


@services
def test_a_service_cannot_get_more_rights_nor_take_the_whole_machine(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & set(service)
    assert re.fullmatch(r"[1-9]\d*g", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 1024
    assert "/tmp" in compose.in_memory(service)
    if "user" not in service:  # then it is that of our own image
        assert stages()[image_of(name)].user == "10001"


def image_of(name: str) -> str:
    return str(SERVICES[name]["image"]).removeprefix("registry-guard-").removesuffix("-gpu")


@services
def test_a_service_is_in_the_networks_that_it_needs_and_in_no_common_one(name: str) -> None:
    service = SERVICES[name]
    addresses = " ".join(compose.environment(service).values())
    needed = {"@db/": "database", "@broker:": "queue", "//s3:": "store", "//torchserve:": "serving"}
    serves = {
        "db": ["database"],
        "broker": ["queue"],
        "s3": ["store", "uploads"],
        "torchserve": ["serving", "inference"],
        "api": ["web", "issuer"],
        "worker-notify": ["receivers"],
        "poller": ["store"],  # the queue of events is beside the store
    }
    wanted = {network for sign, network in needed.items() if sign in addresses}

    assert set(service["networks"]) == wanted | set(serves.get(name, []))


def test_only_networks_that_publish_or_lead_to_the_store_are_open() -> None:
    networks = MODEL["networks"]
    published = {name for name, network in networks.items() if network.get("driver_opts")}

    def internal(**more: str) -> set[str]:
        found = compose.load(ENV | more)["networks"]
        return {name for name in found if found[name].get("internal")}

    closed = {"database", "issuer", "queue", "serving"}
    assert internal() == closed | {"store"}  # with what docker/new-env sets
    assert internal(STORE_INTERNAL="") == closed
    assert published == {"web", "uploads", "inference"}
    for name in published:
        assert networks[name]["driver_opts"] == {
            "com.docker.network.bridge.enable_ip_masquerade": "false"
        }
        (alone,) = [service for service in SERVICES if name in SERVICES[service]["networks"]]
        assert SERVICES[alone]["ports"]


def test_the_api_alone_reaches_an_identity_provider_and_that_only_where_the_site_says_so() -> None:
    open_to = compose.load(ENV | {"ISSUER_INTERNAL": "false"})
    before = {name: one.get("internal", False) for name, one in MODEL["networks"].items()}
    after = {name: one.get("internal", False) for name, one in open_to["networks"].items()}

    assert {name for name in after if after[name] != before[name]} == {"issuer"}
    assert [name for name, one in SERVICES.items() if "issuer" in one["networks"]] == ["api"]
    # `web` has a gateway as well and hides nobody behind it: the first by name is the way out.
    ways = sorted(name for name in SERVICES["api"]["networks"] if not after[name])
    assert ways == ["issuer", "web"]
    assert "driver_opts" not in open_to["networks"]["issuer"]


@services
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_no_two_services_write_to_one_volume_but_for_keys_and_serving() -> None:
    writers: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for mount in compose.mounts(service):
            assert mount.named or mount.read_only, f"{name} writes to {mount.source} of the host"
            assert not mount.named or mount.source in MODEL["volumes"]
            if not mount.read_only:
                writers.setdefault(mount.source, set()).add(name)
    signers = {"worker-control", "worker-watch"}

    assert {source for source in writers if len(writers[source]) > 1} == {"keys", "trust", "ts"}
    assert (writers["keys"], writers["trust"]) == (signers, signers)
    assert writers["ts"] == {*signers, "torchserve"}


@pytest.mark.parametrize("name", OURS)
def test_a_process_has_one_folder_of_its_own_to_write_to(name: str) -> None:
    volumes = {mount.target for mount in compose.mounts(SERVICES[name])}
    memory = set(compose.in_memory(SERVICES[name]))

    assert ("/var/lib/guard" in volumes) != ("/var/lib/guard" in memory)


@services
def test_what_a_service_mounts_from_the_host_exists(name: str) -> None:
    for mount in compose.mounts(SERVICES[name]):
        assert mount.named or (compose.FOLDER / mount.source).exists()


@pytest.mark.parametrize("name", OURS)
def test_a_process_of_the_guard_gets_valid_settings_and_its_own_login(name: str) -> None:
    settings = load_settings(compose.environment(SERVICES[name]))
    login = re.match(r"postgresql://(\w+):", settings.database_url)

    assert (login[1] if login else None) == LOGINS.get(name)
    assert str(settings.trusted_keys_file) == "/etc/guard-trust/trusted.json"


def test_every_role_of_the_database_has_a_login() -> None:
    script = (compose.FOLDER / "postgres" / "roles.sh").read_text()

    for role in DatabaseRole:
        assert f"ALTER ROLE guard_{role} LOGIN PASSWORD :'{role}';" in script
        assert f"\\getenv {role} {role.upper()}_DB_PASSWORD" in script
        assert SERVICES["db"]["environment"][f"{role.upper()}_DB_PASSWORD"]


def test_who_reads_untrusted_files_has_neither_the_key_nor_a_way_to_torchserve() -> None:
    for name, login in LOGINS.items():
        settings = load_settings(compose.environment(SERVICES[name]))
        signs = login == "guard_signer"
        mounted = {mount.target for mount in compose.mounts(SERVICES[name])}

        assert (settings.signing_key_file.parent == Path("/run/guard-keys")) == signs
        assert ("/run/guard-keys" in mounted, "/run/guard-ts" in mounted) == (signs, signs)
    assert not load_settings(compose.environment(SERVICES["api"])).s3_secret_key


@pytest.mark.parametrize("profiles", [(), ("s3",), ("sqs",), ("s3", "sqs", "gpu")])
def test_services_start_behind_what_they_need(profiles: tuple[str, ...]) -> None:
    order = list(compose.running(MODEL, profiles))

    assert ("s3" in order, "poller" in order) == ("s3" in profiles, "sqs" in profiles)
    assert order.index("db") < order.index("migrate") < order.index("worker-control")
    for name in order:
        for other, how in SERVICES[name].get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"


def test_each_image_of_ours_is_built_once_and_never_pulled() -> None:
    built: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        if service["image"].startswith("registry-guard-"):
            assert service["pull_policy"] == "never"
            builder = built.setdefault(service["image"], [])
            builder += [name] if "build" in service else []
    targets = {
        image: SERVICES[names[0]]["build"]["target"] for image, names in built.items() if names
    }

    assert all(len(names) == 1 for names in built.values())
    assert targets == {
        image: image.removeprefix("registry-guard-").removesuffix("-gpu") for image in built
    }
    assert set(targets.values()) <= set(stages())


@pytest.mark.row(60)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_env_of_a_device_starts_everything_with_its_store_and_its_workers(device: str) -> None:
    env = compose.new_env(device)
    started = compose.running(compose.load(env), env["COMPOSE_PROFILES"].split(","))
    queues = [
        queue
        for service in started.values()
        if "-Q" in (command := service.get("command", []))
        for queue in command[command.index("-Q") + 1].split(",")
    ]

    assert sorted(queues) == sorted(QUEUES)  # each has one worker, and not two of another device
    assert {"db", "broker", "s3", "buckets", "api", "relay", "beat", "torchserve"} <= set(started)
    assert {name for name in started if "deploy" in started[name]} == (
        {"worker-scan-gpu", "worker-train-gpu"} if device == "gpu" else set()
    )


def test_a_device_that_is_none_gets_no_env() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        compose.new_env("tpu")


@pytest.mark.parametrize("name", ["worker-scan", "worker-train"])
def test_a_worker_with_a_gpu_is_the_other_but_for_its_device(name: str) -> None:
    plain, with_gpu = SERVICES[name], SERVICES[f"{name}-gpu"]
    differs = {key for key in plain.keys() | with_gpu.keys() if plain.get(key) != with_gpu.get(key)}

    assert differs - {"build"} == {"profiles", "image", "environment", "deploy", "volumes"}
    assert with_gpu["environment"] == plain["environment"] | {"GUARD_DEVICE": "cuda"}
    assert with_gpu["image"] == "registry-guard-worker-gpu"
    builds = SERVICES["worker-scan-gpu"]["build"]
    assert builds["args"]["TORCH_INDEX"] == "https://pypi.org/simple"


def test_a_secret_that_is_not_set_stops_compose_before_anything_starts() -> None:
    for name in ENV:
        if name.endswith("_PASSWORD") or name == "WEBHOOK_TOKEN":
            with pytest.raises(compose.Missing, match=name):
                compose.load({key: value for key, value in ENV.items() if key != name})


def test_settings_of_the_site_reach_every_process_and_do_not_win_over_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "guard.env").write_text(
        "# a comment\nGUARD_POLICY_FILE=strict\nGUARD_DATA_DIR=/elsewhere\n"
    )
    for name in OURS:
        found = load_settings(compose.environment(SERVICES[name], tmp_path))
        assert (str(found.policy_file), str(found.data_dir)) == ("strict", "/var/lib/guard")


def test_a_store_of_its_own_and_that_of_aws_are_settings() -> None:
    def endpoint(**more: str) -> str:
        service = compose.load(ENV | more)["services"]["worker-inspect"]
        return load_settings(compose.environment(service)).s3_endpoint

    assert endpoint() == "http://s3:8333"
    assert endpoint(S3_ENDPOINT="https://s3.example") == "https://s3.example"
    assert not endpoint(S3_ENDPOINT="")


def test_secrets_and_files_of_the_site_are_in_neither_git_nor_an_image() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"docker/.env", "docker/guard.env", "docker/site/*"} <= set(ignored)


def test_the_inference_server_takes_the_place_of_torchserve_with_all_its_locks() -> None:
    services = compose.load(ENV, compose.COMPOSE, compose.OPEN_INFERENCE)["services"]
    server, before = services["torchserve"], SERVICES["torchserve"]
    config = json.loads((compose.FOLDER / "open-inference" / "config.json").read_text())
    start = (compose.FOLDER / "open-inference" / "start").read_text()

    assert {name for name in server if server[name] != before[name]} == {"build", "image"}
    assert server["image"] == f"registry-guard-{server['build']['target']}"
    assert server["build"]["target"] in stages()
    for name in ("worker-control", "worker-watch"):
        settings = load_settings(compose.environment(services[name]))
        OpenInference.configured(settings)

        assert settings.publisher == "open_inference"
        assert settings.open_inference_management == f"unix:{config['management']}"
        assert str(settings.open_inference_run_dir) == config["run_dir"]
        assert str(settings.open_inference_store) == config["store"]
        assert settings.open_inference_address == f"http://torchserve:{config['port']}"
        assert str(settings.trusted_keys_file) == config["trusted"]
    assert Path(config["store"]).name in start
    assert "-I -B -m guard.inference" in start
    assert Config(**config).workers == 2
