"""The chart in docker/helm as Helm itself renders it, in a process of its own.

`helm_python` holds Helm's own Go code. A Go runtime stays out of the process that runs tests, where
others fork and lock threads down.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from tests.docker.compose import FOLDER
from tests.house.sources import ROOT

CHART = FOLDER / "helm" / "registry-guard"
EXAMPLE: dict[str, Any] = yaml.safe_load((FOLDER / "helm" / "example.yaml").read_text())
PROCESSES: dict[str, Any] = yaml.safe_load((CHART / "files" / "processes.yaml").read_text())
NAME = "guard-registry-guard"
Manifest = dict[str, Any]

#: All that a site can switch on at once.
EVERYTHING: dict[str, Any] = {
    **EXAMPLE,
    "image": {**EXAMPLE["image"], "digests": {"api": f"sha256:{'a' * 64}"}, "pullSecrets": ["r"]},
    "events": {"queueUrl": "https://sqs.example/1/q"},
    "gpu": {"enabled": True, "nodeSelector": {"gpu": "h200"}},
    "autoscaling": {"enabled": True},
    "settings": {"GUARD_POLICY_FILE": "strict", "GUARD_LEASE_SECONDS": 60},
    "secretSettings": [
        {"name": "GUARD_OTHER_SECRET", "secret": "other", "key": "value", "pods": ["api"]}
    ],
    "hooks": {"existingSecret": "guard-hooks"},
    "site": "guard-site",
    "serviceAccounts": {"worker": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/w"}},
    "ingress": {"enabled": True, "host": "guard.example", "tlsSecret": "guard-tls"},
    "serviceMonitor": {"enabled": True, "tokenSecret": "guard-metrics"},
    "pods": {"inspect": {"nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "x"}]}},
}
#: The identity of a service account in place of keys, and what exists already.
WITH_ROLES: dict[str, Any] = {
    **EXAMPLE,
    "store": {"existingSecret": "", "region": "eu-central-1"},
    "signing": {**EXAMPLE["signing"], "checkpoints": {"existingClaim": "mine"}},
    "podDisruptionBudgets": False,
    "networkPolicy": {"enabled": False},
}
#: The guard's own server in TorchServe's place.
OPEN_INFERENCE: dict[str, Any] = {**EXAMPLE, "publisher": "open_inference"}
SITES = {
    "example": EXAMPLE,
    "everything": EVERYTHING,
    "roles": WITH_ROLES,
    "open-inference": OPEN_INFERENCE,
}


@dataclass(frozen=True)
class Rendered:
    """What Helm made of one file of values: manifests, or the sentence of its refusal."""

    manifests: tuple[Manifest, ...] = ()
    refused: str = ""
    complaints: tuple[str, ...] = ()

    def of(self, kind: str) -> dict[str, Manifest]:
        """The manifests of a kind, by name without the release's."""
        return {
            item["metadata"]["name"].removeprefix(f"{NAME}-"): item
            for item in self.manifests
            if item["kind"] == kind
        }

    def pods(self) -> dict[str, Manifest]:
        """Every pod's spec, by the name of its Deployment or Job."""
        found = self.of("Deployment") | self.of("Job")
        return {name: item["spec"]["template"]["spec"] for name, item in found.items()}

    def containers(self) -> dict[str, Manifest]:
        """Every container but those that come first, by name."""
        return {one["name"]: one for pod in self.pods().values() for one in pod["containers"]}


@cache
def sites() -> dict[str, Rendered]:
    """Each of SITES, rendered."""
    return dict(zip(SITES, render(*SITES.values()), strict=True))


def render(*values: dict[str, Any]) -> list[Rendered]:
    """What Helm makes of each; skips at home where it is missing, fails in CI."""
    if find_spec("helm_python") is None:
        missing = "the chart is not tested: install helm-python-sdk"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run(
        [sys.executable, "-m", "tests.docker.chart"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [Rendered(**item) for item in json.loads(done.stdout)]


def main() -> None:
    """Read a list of values, and print what Helm makes of each."""
    import helm_python as helm

    answers: list[dict[str, Any]] = []
    with helm.Chart.load(CHART) as chart:
        for values in json.load(sys.stdin):
            try:
                chart.validate_schema(values)
                files = chart.render(values, name="guard", namespace="guard")
            except helm.HelmError as error:
                answers.append({"refused": str(error)})
                continue
            report = helm.lint(CHART, values, strict=True)
            found = [
                item
                for name, text in files.items()
                if name.endswith(".yaml")
                for item in yaml.safe_load_all(text)
                if item
            ]
            complaints = [line["error"] for line in report["messages"] if line["severity"] > 1]
            answers.append({"manifests": found, "complaints": complaints})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
