"""The Helm chart: what Helm renders is valid, restricted, and the same service as compose.yaml."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from typing import Any

import kubernetes_validate
import pytest

from guard.core.queues import QUEUES, WATCH
from guard.core.secret import Secret
from guard.inference._clients import LIVE, READY
from guard.settings import Settings, load_settings
from tests.docker import chart, compose
from tests.docker.chart import EXAMPLE, PROCESSES, Manifest, Rendered
from workers.app import STAGE_QUEUE

SITES = pytest.mark.parametrize("site", list(chart.SITES))
THEIRS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}  # the package has no schema of these
ENV = compose.new_env()
SERVICES: dict[str, Any] = compose.load(ENV)["services"]
#: What compose brings along and a cluster has elsewhere.
OUTSIDE = {"db", "broker", "s3", "buckets"}
#: The same containers with `gpu.enabled`.
WITH_GPU = {"worker-scan", "worker-train"}


@pytest.mark.row(60)
@SITES
def test_helm_finds_nothing_and_kubernetes_takes_every_manifest(site: str) -> None:
    rendered = chart.sites()[site]

    assert (rendered.refused, list(rendered.complaints)) == ("", [])
    for manifest in rendered.manifests:
        if manifest["apiVersion"] not in THEIRS:
            _validate(json.dumps(manifest))
    names = [(item["kind"], item["metadata"]["name"]) for item in rendered.manifests]
    assert len(set(names)) == len(names)


@cache
def _validate(manifest: str) -> None:
    kubernetes_validate.validate(json.loads(manifest), "1.33", strict=True)


def test_the_validator_refuses_what_kubernetes_does_not_know() -> None:
    manifest = copy.deepcopy(chart.sites()["example"].of("Deployment")["scan"])
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContexts"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(json.dumps(manifest))


def shortcomings(pod: Manifest) -> Iterator[str]:
    """What of the profile `restricted`, and of our own rules beside it, a pod lacks.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    own = pod.get("securityContext", {})
    if own.get("runAsNonRoot") is not True or own.get("runAsUser", 0) == 0:
        yield "root"
    if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp"
    if pod.get("automountServiceAccountToken") is not False:
        yield "token"
    if pod.get("enableServiceLinks") is not False:
        yield "links"
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if pod.get(name):
            yield name
    for volume in pod["volumes"]:
        kinds = set(volume) - {"name"}
        if not kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}:
            yield f"volume {kinds}"
    for one in [*pod.get("initContainers", []), *pod["containers"]]:
        yield from _of_container(one)


def _of_container(one: Manifest) -> Iterator[str]:
    own = one.get("securityContext", {})
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged") is not False:
        yield "escalation"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "writable root"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "capabilities"
    if own.get("runAsNonRoot") is not True:
        yield "root"
    if any("hostPort" in port for port in one.get("ports", [])):
        yield "hostPort"
    resources = one.get("resources", {})
    if not resources.get("limits", {}).get("memory") or not resources.get("requests", {}):
        yield "resources"
    if ":latest" in one["image"] or not re.search(r":\d|@sha256:", one["image"]):
        yield "image"


@pytest.mark.row(60)
@pytest.mark.threat("C24")
@SITES
def test_every_pod_is_restricted(site: str) -> None:
    for name, pod in chart.sites()[site].pods().items():
        assert list(shortcomings(pod)) == [], name


def _drop(*path: str | int) -> Callable[[Manifest], None]:
    def change(pod: Manifest) -> None:
        at: Any = pod
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]

    return change


CONTROLS: dict[str, Callable[[Manifest], None]] = {
    "root": _drop("securityContext", "runAsNonRoot"),
    "seccomp": _drop("securityContext", "seccompProfile"),
    "token": _drop("automountServiceAccountToken"),
    "links": _drop("enableServiceLinks"),
    "escalation": _drop("containers", 0, "securityContext", "allowPrivilegeEscalation"),
    "writable root": _drop("containers", 0, "securityContext", "readOnlyRootFilesystem"),
    "capabilities": _drop("containers", 0, "securityContext", "capabilities"),
    "resources": _drop("containers", 0, "resources", "limits"),
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "hostPort": lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}]),
    "image": lambda pod: pod["containers"][0].update(image="registry.example/a:latest"),
    "volume {'hostPath'}": lambda pod: pod["volumes"].append({"name": "h", "hostPath": {}}),
}


@pytest.mark.parametrize("control", list(CONTROLS))
def test_a_control_that_is_taken_away_is_noticed(control: str) -> None:
    pod = copy.deepcopy(chart.sites()["example"].pods()["scan"])
    CONTROLS[control](pod)

    assert list(shortcomings(pod)) == [control]


# One source of truth: what compose.yaml starts.


def test_every_process_of_compose_is_a_container_with_the_same_image_and_command() -> None:
    containers = chart.sites()["everything"].containers()

    assert set(containers) == set(SERVICES) - OUTSIDE - {f"{name}-gpu" for name in WITH_GPU}
    for name, one in containers.items():
        service = SERVICES[name]
        image = one["image"].rpartition("/")[2].partition(":")[0].partition("@")[0]
        wanted = SERVICES[f"{name}-gpu" if name in WITH_GPU else name]["image"]
        assert image == wanted
        assert one.get("command") == service.get("command"), name


def variables(one: Manifest, secrets: dict[str, str]) -> dict[str, str]:
    """A container's variables as Kubernetes sets them, its secrets being `secrets` by their key."""
    found: dict[str, str] = {}
    for item in one.get("env", []):
        if "value" in item:
            value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], item["value"])
        else:
            value = secrets[item["valueFrom"]["secretKeyRef"]["key"]]
        found[item["name"]] = value
    return {name: value for name, value in found.items() if name.startswith("GUARD_")}


def test_a_container_has_the_settings_of_its_service_and_no_others() -> None:
    env = compose.new_env() | {"WEBHOOK_HMAC_KEY": "h", "SQS_QUEUE_URL": "https://sqs.example/1/q"}
    services = compose.load(env | {"S3_ENDPOINT": "https://s3.example"})["services"]
    secrets = {
        "owner": env["POSTGRES_PASSWORD"],
        "worker": env["WORKER_DB_PASSWORD"],
        "signer": env["SIGNER_DB_PASSWORD"],
        "api": env["API_DB_PASSWORD"],
        "notifier": env["NOTIFIER_DB_PASSWORD"],
        "password": env["REDIS_PASSWORD"],
        "access-key": env["S3_ACCESS_KEY"],
        "secret-key": env["S3_SECRET_KEY"],
        "token": env["WEBHOOK_TOKEN"],
        "hmac-key": "h",
        "value": "-",
    }
    for name, one in chart.sites()["everything"].containers().items():
        wanted = compose.environment(services[f"{name}-gpu" if name in WITH_GPU else name])
        found = variables(one, secrets)
        if name == "torchserve":
            assert "env" not in one
            assert "envFrom" not in one
            continue
        found.pop("GUARD_OTHER_SECRET", None)
        # The one difference: TorchServe is in the same pod.
        if found.get("GUARD_TORCHSERVE_INFERENCE") == "http://127.0.0.1:8080":
            found["GUARD_TORCHSERVE_INFERENCE"] = "http://torchserve:8080"
        assert {key: _short(value) for key, value in found.items()} == wanted, name
        load_settings(found)


def test_the_guards_own_server_takes_torchserves_place_as_in_compose() -> None:
    services = compose.load(ENV, compose.COMPOSE, compose.OPEN_INFERENCE)["services"]
    before, after = chart.sites()["example"], chart.sites()["open-inference"]
    config = json.loads((compose.FOLDER / "open-inference" / "config.json").read_text())

    own = {
        "GUARD_PUBLISHER",
        *(f"GUARD_OPEN_INFERENCE_{name}" for name in ("MANAGEMENT", "ADDRESS", "RUN_DIR", "STORE")),
    }
    for name, one in after.containers().items():
        found = {item["name"]: item.get("value") for item in one.get("env", [])}
        if name in {"worker-control", "worker-watch"}:
            wanted = compose.environment(services[name])
            assert wanted["GUARD_OPEN_INFERENCE_ADDRESS"] == "http://torchserve:8080"
            wanted["GUARD_OPEN_INFERENCE_ADDRESS"] = "http://127.0.0.1:8080"  # in the same pod
            assert {key: found.pop(key) for key in own} == {key: wanted[key] for key in own}
        rest = {key: value for key, value in one.items() if key not in {"image", "env"}}
        same = {k: v for k, v in before.containers()[name].items() if k not in {"image", "env"}}
        assert own.isdisjoint(found)
        assert name == "torchserve" or rest == same, name
    server = after.containers()["torchserve"]
    image = server["image"].rpartition("/")[2].partition(":")[0]
    assert image == services["torchserve"]["image"] == "registry-guard-open-inference"
    assert "env" not in server
    assert "envFrom" not in server
    assert server["ports"] == [{"name": "http", "containerPort": config["port"]}]
    # Its health tells more than an open port, and needs no token.
    probes = {name: server[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert probes == {"liveness": LIVE, "readiness": READY}
    assert server["securityContext"] == before.containers()["torchserve"]["securityContext"]
    assert after.of("NetworkPolicy") == before.of("NetworkPolicy")


def _short(value: str) -> str:
    """An address as compose has it."""
    value = value.replace("@db.data.svc:5432/", "@db/").removesuffix("?sslmode=require")
    return value.replace("@broker.data.svc:", "@broker:")


def test_a_container_mounts_what_its_service_mounts_and_nobody_else_has_the_key() -> None:
    for name, one in chart.sites()["everything"].containers().items():
        service = SERVICES[name]
        wanted = {mount.target for mount in compose.mounts(service)} | set(
            compose.in_memory(service)
        )
        found = {mount["mountPath"] for mount in one["volumeMounts"]}
        found -= {"/run/guard-keys/checkpoints"}  # a volume within that of the keys
        assert found == wanted, name
        assert ("/run/guard-keys" in found) == (name in {"worker-control", "worker-watch"})
        trust = next(m for m in one["volumeMounts"] if m["mountPath"] == "/etc/guard-trust")
        assert trust["readOnly"] is True


def test_nothing_but_references_to_secrets_is_in_a_manifest() -> None:
    for rendered in chart.sites().values():
        assert not rendered.of("Secret")
        for one in rendered.containers().values():
            for item in one.get("env", []):
                secret = re.search(r"PASSWORD$|TOKEN$|SECRET|HMAC|ACCESS_KEY", item["name"])
                assert bool(secret) == ("valueFrom" in item), item["name"]


def test_the_key_is_copied_to_memory_for_its_user_alone() -> None:
    pod = chart.sites()["example"].pods()["serving"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (first,) = pod["initContainers"]

    assert volumes["keys"]["emptyDir"]["medium"] == "Memory"
    assert first["command"][:3] == ["install", "-m", "0600"]
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    for one in pod["containers"]:
        assert "secret" not in {mount["name"] for mount in one["volumeMounts"]}


# The network


def reach(rendered: Rendered, pod: str) -> set[int]:
    """The ports that a pod may open, but for DNS."""
    policy = rendered.of("NetworkPolicy")[pod]["spec"]
    rules = [rule for rule in policy["egress"] if rule["ports"][0]["port"] != 53]
    assert all(rule["to"] for rule in rules)  # an empty list would be everywhere
    return {rule["ports"][0]["port"] for rule in rules}


def test_nothing_passes_but_what_is_allowed_by_pod() -> None:
    rendered = chart.sites()["example"]
    policies = rendered.of("NetworkPolicy")
    nothing = policies["nothing"]["spec"]

    assert set(nothing) == {"podSelector", "policyTypes"}
    assert set(nothing["policyTypes"]) == {"Ingress", "Egress"}
    for name, item in (rendered.of("Deployment") | rendered.of("Job")).items():
        labels = item["spec"]["template"]["metadata"]["labels"]
        for selector in (nothing["podSelector"], policies[name]["spec"]["podSelector"]):
            assert selector["matchLabels"].items() <= labels.items()
        assert (
            policies[name]["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            == labels["app.kubernetes.io/component"]
        )
        assert set(policies[name]["spec"]["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.threat("C24")
@pytest.mark.parametrize("pod", [*PROCESSES, "migrate"])
def test_a_pod_reaches_what_its_service_reaches_in_compose(pod: str) -> None:
    ports = {"database": 5432, "queue": 6379, "store": 443}
    networks = {
        network
        for name in PROCESSES.get(pod, {"containers": {"migrate": {}}})["containers"]
        for network in SERVICES[name]["networks"]
    }

    assert reach(chart.sites()["everything"], pod) == {
        port for network, port in ports.items() if network in networks
    }


def test_only_the_api_and_torchserve_are_reached_and_that_by_their_clients() -> None:
    policies = chart.sites()["example"].of("NetworkPolicy")
    entered = {
        name: item["spec"]["ingress"]
        for name, item in policies.items()
        if "ingress" in item["spec"]
    }

    assert {name: rules[0]["ports"][0]["port"] for name, rules in entered.items()} == {
        "api": 8000,
        "serving": 8080,
    }
    assert entered["serving"][0]["from"] == [
        {"podSelector": {"matchLabels": {"registry-guard/client": "true"}}}
    ]
    closed = EXAMPLE | {"networkPolicy": EXAMPLE["networkPolicy"] | {"apiClients": []}}
    (rendered,) = chart.render(closed)
    assert "ingress" not in rendered.of("NetworkPolicy")["api"]["spec"]


def test_a_pod_reaches_hosts_outside_that_the_site_names_for_it_and_no_other_does() -> None:
    way = {"to": [{"ipBlock": {"cidr": "203.0.113.9/32"}}], "ports": [{"port": 8443}]}
    network = EXAMPLE["networkPolicy"] | {"egress": {"notify": [way]}}
    (rendered,) = chart.render(EXAMPLE | {"networkPolicy": network})

    assert {pod for pod in PROCESSES if 8443 in reach(rendered, pod)} == {"notify"}
    policy = rendered.of("NetworkPolicy")["notify"]
    assert policy["spec"]["egress"][-1] == way
    _validate(json.dumps(policy))


# The key of destinations


def test_only_who_adds_destinations_and_who_reaches_them_can_open_their_addresses() -> None:
    for site, there in (("everything", {"api", "notify"}), ("example", set())):
        pods = chart.sites()[site].pods()
        volumes = {
            name: [one for one in pod["volumes"] if one["name"] == "hooks"]
            for name, pod in pods.items()
        }
        assert {name for name, found in volumes.items() if found} == there
        for (volume,) in filter(None, volumes.values()):
            assert volume["secret"]["secretName"] == "guard-hooks"
    for one in chart.sites()["everything"].containers().values():
        for mount in one["volumeMounts"]:
            assert mount["name"] != "hooks" or mount["readOnly"] is True


# Scaling, starting, ending


def test_every_queue_has_a_worker_and_those_that_grow_scale_by_their_list_in_redis() -> None:
    rendered = chart.sites()["everything"]
    commands = [one.get("command", []) for one in rendered.containers().values()]
    served = {
        queue
        for command in commands
        if "-Q" in command
        for queue in command[command.index("-Q") + 1].split(",")
    }
    triggers = {
        name: item["spec"]["triggers"][0]["metadata"]
        for name, item in rendered.of("ScaledObject").items()
    }

    assert served == set(QUEUES) == {*STAGE_QUEUE.values(), WATCH}
    assert {name: trigger["listName"] for name, trigger in triggers.items()} == {
        name: name for name in ("inspect", "scan", "train")
    }
    for name, item in rendered.of("ScaledObject").items():
        target = rendered.of("Deployment")[name]
        assert item["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
        assert "replicas" not in target["spec"]  # else each upgrade would set it back
        (trigger,) = item["spec"]["triggers"]
        assert trigger["metadata"]["address"] == "broker.data.svc:6379"
        auth = rendered.of("TriggerAuthentication")["broker"]
        assert trigger["authenticationRef"]["name"] == auth["metadata"]["name"]
    assert rendered.of("Deployment")["relay"]["spec"]["replicas"] == 1


def test_what_must_be_alone_is_and_ends_before_the_next_begins() -> None:
    deployments = chart.sites()["everything"].of("Deployment")
    alone = {
        name
        for name, item in deployments.items()
        if item["spec"].get("strategy", {}).get("type") == "Recreate"
    }

    assert alone == {"beat", "serving"}
    assert all(deployments[name]["spec"]["replicas"] == 1 for name in alone)
    budgets = chart.sites()["everything"].of("PodDisruptionBudget")
    assert set(budgets) == set(deployments) - alone
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        labels = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.row(56)
def test_gpus_are_asked_for_by_scans_and_trainings_alone() -> None:
    pods = chart.sites()["everything"].pods()
    with_gpu = {
        name: pod
        for name, pod in pods.items()
        if any("nvidia.com/gpu" in one["resources"]["limits"] for one in pod["containers"])
    }

    assert set(with_gpu) == {"scan", "train"}
    for pod in with_gpu.values():
        assert pod["nodeSelector"] == {"gpu": "h200"}
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pods["inspect"]["nodeSelector"] == {"disk": "fast"}
    plain = chart.sites()["example"]
    assert "nvidia" not in json.dumps(plain.manifests)


def test_every_container_is_probed_and_ends_no_sooner_than_in_compose() -> None:
    rendered = chart.sites()["everything"]
    for name, pod in rendered.pods().items():
        if name == "migrate":
            continue
        assert pod["terminationGracePeriodSeconds"] >= 60
        for one in pod["containers"]:
            assert {"startupProbe", "livenessProbe"} <= set(one), one["name"]
            assert ("readinessProbe" in one) == ("ports" in one)


def test_the_schema_is_migrated_before_anything_else_starts() -> None:
    rendered = chart.sites()["example"]
    job = rendered.of("Job")["migrate"]
    hook = job["metadata"]["annotations"]
    policy = rendered.of("NetworkPolicy")["migrate"]["metadata"]["annotations"]

    assert hook["helm.sh/hook"] == policy["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(policy["helm.sh/hook-weight"]) < int(hook["helm.sh/hook-weight"])
    # What a hook names of the chart's own would not exist yet.
    (pod,) = [pod for name, pod in rendered.pods().items() if name == "migrate"]
    assert "serviceAccountName" not in pod
    assert "envFrom" not in pod["containers"][0]


def test_settings_of_the_site_reach_every_process_and_a_change_restarts_it() -> None:
    rendered = chart.sites()["everything"]
    (data,) = [item["data"] for item in rendered.of("ConfigMap").values()]
    before = chart.sites()["example"].of("Deployment")["scan"]["spec"]["template"]
    after = rendered.of("Deployment")["scan"]["spec"]["template"]

    assert data == {"GUARD_POLICY_FILE": "strict", "GUARD_LEASE_SECONDS": "60"}
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]
    for name, one in rendered.containers().items():
        assert ("envFrom" in one) == (name not in {"migrate", "torchserve"})


def test_a_service_account_has_what_the_site_gives_its_tier() -> None:
    accounts = chart.sites()["everything"].of("ServiceAccount")

    assert set(accounts) == {process["tier"] for process in PROCESSES.values()}
    assert "role-arn" in json.dumps(accounts["worker"])
    assert not [name for name in accounts if "annotations" in accounts[name]["metadata"]][1:]
    for account in accounts.values():
        assert account["automountServiceAccountToken"] is False
    keyless = chart.sites()["roles"].containers()["worker-scan"]["env"]
    assert not [item for item in keyless if item["name"] == "GUARD_S3_SECRET_KEY"]


REFUSED: dict[str, dict[str, Any]] = {
    "nothing is set": {},
    "a secret among the settings": EXAMPLE | {"settings": {"GUARD_WEBHOOK_TOKEN": "x"}},
    "a setting of somebody else": EXAMPLE | {"settings": {"LD_PRELOAD": "x"}},
    "a secret in an address": EXAMPLE
    | {"store": EXAMPLE["store"] | {"endpoint": "https://a:b@s3.example"}},
    "no way out is named": EXAMPLE | {"networkPolicy": {"database": []}},
    "a way out to everywhere": EXAMPLE
    | {
        "networkPolicy": EXAMPLE["networkPolicy"]
        | {"egress": {"notify": [{"to": [], "ports": [{"port": 443}]}]}}
    },
    "a name that is no name": EXAMPLE | {"signing": {"existingSecret": "a b", "trustedKeys": "t"}},
    "a value that the chart does not know": EXAMPLE | {"netwrokPolicy": {}},
    "an ingress without encryption": EXAMPLE | {"ingress": {"enabled": True, "host": "a.example"}},
    "a publisher that there is not": EXAMPLE | {"publisher": "triton"},
    "metrics without a token": EXAMPLE | {"serviceMonitor": {"enabled": True}},
}


def test_values_that_would_weaken_it_are_refused_before_anything_is_installed() -> None:
    for what, rendered in zip(REFUSED, chart.render(*REFUSED.values()), strict=True):
        assert rendered.refused, what
        assert not rendered.manifests


def test_a_database_is_known_by_its_certificate_where_the_site_says_so() -> None:
    strict = {"sslmode": "verify-full", "rootCertificate": "system"}
    (rendered,) = chart.render(EXAMPLE | {"database": EXAMPLE["database"] | strict})
    for name, one in rendered.containers().items():
        urls = [item["value"] for item in one.get("env", []) if "DATABASE_URL" in item["name"]]
        for url in urls:
            assert url.endswith("?sslmode=verify-full&sslrootcert=system"), name


def test_every_secret_setting_of_the_guard_is_refused_as_a_plain_one() -> None:
    secret = {
        f"GUARD_{one.name.upper()}" for one in fields(Settings) if "Secret" in str(one.type)
    } | {"GUARD_DATABASE_URL", "GUARD_REDIS_URL", "GUARD_S3_ACCESS_KEY"}
    wrong = [EXAMPLE | {"settings": {name: "x"}} for name in sorted(secret)]

    assert isinstance(Settings.__dataclass_fields__["s3_secret_key"].default, Secret)
    assert len(secret) > 4
    for name, rendered in zip(sorted(secret), chart.render(*wrong), strict=True):
        assert name in rendered.refused, name


def test_helm_runs_in_a_process_of_its_own() -> None:
    assert "helm_python" not in sys.modules
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import tests.docker.chart, sys; print('helm_python' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
