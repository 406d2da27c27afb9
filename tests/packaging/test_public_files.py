"""What a contributor reads and what CI runs name things that exist."""

import re
from pathlib import Path

import pytest
import yaml

from tests.house.sources import ROOT

PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")


@pytest.mark.parametrize("page", [*PAGES, ".github/pull_request_template.md"])
def test_every_path_and_command_on_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    makefile = (ROOT / "Makefile").read_text()

    for target in re.findall(r"\bmake ([a-z-]+)\b", text):
        assert re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", makefile, re.MULTILINE), target
    for path in re.findall(r"[`(]((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|toml|txt))[`)]", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_no_address_is_invented(page: str) -> None:
    assert not re.search(r"https?://|\w@\w", (ROOT / page).read_text())


def test_ci_runs_the_developers_script_and_nothing_else() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]

    assert commands == ["bash .ci/run"]
    assert yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())["run"]["script"] == commands


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_every_configuration_of_the_platform_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)
