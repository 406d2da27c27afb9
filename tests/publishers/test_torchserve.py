"""TorchServe, the real one: what goes wrong on the way to serving, and what an intruder may try."""

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from guard.core.errors import InputError, IntegrityMismatch, Unavailable
from guard.doctor import CHECKS, Options, State, diagnose
from guard.local.supervisor import Stack
from guard.publishers._archive import write_archive
from guard.publishers._management import Management
from guard.publishers.torchserve import Torchserve
from guard.settings import load_settings
from tests.publishers.making import Authority, Vetted, flip, vetted, wait_until
from tests.publishers.serving_site import Site, the_site


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=2)


@pytest.fixture
def site() -> Iterator[Site]:
    found = the_site()
    found.clear()
    yield found
    found.clear()


def publish(
    site: Site, model: Vetted, name: str = "digits", version: str = "1.0", **options: float
) -> None:
    with model.open() as weights:
        site.publisher(**options).publish(
            site.authority.approve(model.digest, name, version), weights, model.smoke
        )


def listed(site: Site) -> list[tuple[str, str, str | None, bool]]:
    return [(it.name, it.version, it.digest, it.default) for it in site.publisher().state()]


def left(site: Site) -> list[str]:
    return [path.name for path in (*site.store.iterdir(), *site.extracts)]


def test_a_release_signed_by_a_stranger_is_rolled_back_and_the_old_version_stays(
    site: Site, one: Vetted, two: Vetted, tmp_path: Path
) -> None:
    publish(site, one)
    before = left(site)
    stranger = Authority(tmp_path / "keys" / "trusted.json")
    with (
        two.open() as weights,
        pytest.raises(IntegrityMismatch, match="No trusted key signed") as refusal,
    ):
        site.publisher().publish(stranger.approve(two.digest, "digits", "2.0"), weights, two.smoke)

    assert refusal.value.code == "handler_refused"
    assert listed(site) == [("digits", "1.0", one.digest, True)]
    assert left(site) == before


def test_answers_that_differ_from_the_vetted_ones_are_rolled_back(site: Site, one: Vetted) -> None:
    first, *rest = one.smoke.probabilities
    other = replace(one.smoke, probabilities=((first[1], first[0], first[2]), *rest))
    approved = site.authority.approve(one.digest, "digits")
    with one.open() as weights, pytest.raises(IntegrityMismatch) as refusal:
        site.publisher().publish(approved, weights, other)

    assert refusal.value.code == "smoke_differs"
    assert listed(site) == []
    assert left(site) == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.mark.parametrize(
    ("call", "when"), [("register", "after"), ("set_default", "before"), ("unregister", "before")]
)
def test_a_publish_that_is_killed_and_run_again_ends_as_one_that_was_not(
    site: Site, one: Vetted, two: Vetted, monkeypatch: pytest.MonkeyPatch, call: str, when: str
) -> None:
    publish(site, one, version="1.0")
    real: Callable[..., None] = getattr(Management, call)

    def killed(self: Management, *arguments: object, **options: object) -> None:
        if when == "after":
            real(self, *arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Management, call, killed)
        with pytest.raises(Killed):
            publish(site, two, version="2.0")
    publish(site, two, version="2.0")

    assert listed(site) == [("digits", "2.0", two.digest, True)]
    assert len(left(site)) == 2  # one archive, one unpacked copy


@pytest.mark.row(41)
def test_clients_notice_nothing_of_a_new_version(site: Site, one: Vetted, two: Vetted) -> None:
    publish(site, one, version="1.0")
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            answer = site.predict("digits", one.smoke.images[0])
            answers.append((answer.status_code, answer.headers.get("x-guard-digest", "")))

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    publish(site, two, version="2.0")
    stop.set()
    for thread in threads:
        thread.join()

    assert {status for status, _ in answers} == {200}
    assert answers[0][1] == one.digest
    assert answers[-1][1] == two.digest


@pytest.mark.threat("C24")
def test_the_workers_are_isolated_and_see_no_secret(site: Site, one: Vetted) -> None:
    publish(site, one)
    (worker,) = [
        child
        for child in psutil.Process(site.pid).children()
        if "model_service_worker" in " ".join(child.cmdline())
    ]

    assert worker.cmdline()[1:3] == ["-I", "-B"]
    assert not [
        name for name in worker.environ() if "GUARD" in name or "KEY" in name or "AWS" in name
    ]
    assert stat.S_IMODE((site.run_dir / "key_file.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(site.run_dir.stat().st_mode) == 0o700


@pytest.mark.threat("A07")
def test_code_and_changed_weights_in_the_unpacked_copy_are_told_and_never_run(
    site: Site, one: Vetted, tmp_path: Path
) -> None:
    publish(site, one)
    (folder,) = site.extracts
    marker = tmp_path / "ran"
    for name in ("sitecustomize.py", "torch.py", "guard.py"):
        (folder / name).write_text(f"open({str(marker)!r}, 'w').close()\n")
    (extra,) = site.publisher().state()
    flip(folder / "weights.safetensors")
    (flipped,) = site.publisher().state()
    site.api.set_workers("digits", "1.0", 0)
    site.api.set_workers("digits", "1.0", 1)

    assert (extra.digest, extra.detail["problem"]) == (
        None,
        "its unpacked copy holds 'guard.py', which was not published",
    )
    assert flipped.digest not in (None, one.digest)
    assert wait_until((folder / "refused.txt").exists)
    assert not site.publisher().state()[0].ready
    assert not marker.exists()


def test_an_archive_changed_in_the_store_is_told(site: Site, one: Vetted) -> None:
    publish(site, one)
    (file,) = site.store.iterdir()
    flip(file)
    (found,) = site.publisher().state()

    assert found.digest is None
    assert "was changed" in found.detail["problem"]


def test_a_good_archive_under_a_second_name_is_told_and_goes_alone(site: Site, one: Vetted) -> None:
    publish(site, one)
    (file,) = site.store.iterdir()
    site.api._ask(
        "POST",
        "/models",
        {"url": file.name, "model_name": "alias", "initial_workers": "1", "synchronous": "false"},
    )
    alias, good = site.publisher().state()
    site.publisher().withdraw("alias", "1.0")

    assert (alias.name, alias.digest, alias.detail["problem"]) == (
        "alias",
        None,
        "the guard did not publish it",
    )
    assert good.digest == one.digest
    assert listed(site) == [("digits", "1.0", one.digest, True)]
    assert site.predict("digits", one.smoke.images[0]).status_code == 200


def folder_archive(folder: Path, name: str) -> Path:
    """A folder that TorchServe takes for an unpacked archive.

    It looks below the folder's own name.
    """
    inner = folder / folder.name / "MAR-INF"
    inner.mkdir(parents=True)
    (inner / "MANIFEST.json").write_text(
        json.dumps(
            {
                "runtime": "python",
                "model": {"modelName": name, "handler": "x", "modelVersion": "1.0"},
            }
        )
    )
    return folder


@pytest.mark.threat("A06")
def test_an_absolute_folder_is_told_and_its_own_files_are_left_alone(
    site: Site, tmp_path: Path
) -> None:
    """TorchServe registers any folder of the host, whatever `allowed_urls` says."""
    folder = folder_archive(tmp_path, "evil")
    site.api._ask("POST", "/models", {"url": str(folder), "initial_workers": "0"})
    (found,) = site.publisher().state()
    site.publisher().withdraw("evil", "1.0")

    assert (found.name, found.digest) == ("evil", None)
    assert listed(site) == []
    assert (folder / folder.name / "MAR-INF" / "MANIFEST.json").exists()


def test_workers_taken_away_are_told_and_a_repeated_publish_brings_them_back(
    site: Site, one: Vetted
) -> None:
    publish(site, one)
    site.api.set_workers("digits", "1.0", 0)

    assert wait_until(lambda: not site.publisher().state()[0].ready)
    assert site.publisher().state()[0].digest == one.digest
    publish(site, one)
    assert site.publisher().state()[0].ready


@pytest.mark.threat("A08")
def test_a_default_is_withdrawn_even_while_other_versions_are_there(
    site: Site, one: Vetted, two: Vetted
) -> None:
    publish(site, one, version="1.0")
    with two.open() as weights:
        archive = write_archive(
            site.authority.approve(two.digest, "digits", "2.0"), weights, site.store
        )
    site.api._ask("POST", "/models", {"url": archive.file, "initial_workers": "0"})
    site.publisher().withdraw("digits", "1.0")

    assert [(name, version) for name, version, _, _ in listed(site)] == [("digits", "2.0")]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("token", "1.0"),
        ("my-tokens", "1.0"),
        ("digits", "all"),
        ("digits", "default"),
        ("digits", "token1"),
    ],
)
def test_words_of_torchserves_own_interface_are_refused(
    site: Site, one: Vetted, name: str, version: str
) -> None:
    with pytest.raises(InputError):
        publish(site, one, name, version)


@pytest.mark.threat("A11")
def test_keys_that_changed_are_read_again_and_wrong_ones_reported(site: Site) -> None:
    path = site.run_dir / "key_file.json"
    good = path.read_text()
    publisher = site.publisher()
    try:
        path.write_text(
            json.dumps({kind: {"key": "wrong"} for kind in ("management", "inference", "API")})
        )
        with pytest.raises(Unavailable, match="refuses the management key"):
            publisher.state()
    finally:
        path.write_text(good)

    assert publisher.state() == []


def test_a_torchserve_that_is_away_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "key_file.json").write_text('{"management": {"key": "k"}}')
    for address in (f"unix:{tmp_path / 'none.sock'}", "http://127.0.0.1:1"):
        away = Torchserve(
            management=address, inference="http://127.0.0.1:1", run_dir=tmp_path, store=tmp_path
        )
        with pytest.raises(Unavailable):
            away.state()


def test_more_models_than_one_page_are_all_listed(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("guard.publishers._management._PAGE", 1)
    folder_archive(tmp_path, "a")
    for name in ("a", "b", "c"):
        site.api._ask(
            "POST", "/models", {"url": str(tmp_path), "model_name": name, "initial_workers": "0"}
        )

    assert [found.name for found in site.publisher().state()] == ["a", "b", "c"]


def test_a_name_that_cannot_be_asked_about_does_not_escape_the_list(tmp_path: Path) -> None:
    """TorchServe takes `../evil name` and can then neither describe nor delete it."""
    with Stack(tmp_path / "d", dict(os.environ), parts=("torchserve",)) as stack:
        stack.start()
        found = stack.environment()
        options: dict[str, Any] = {
            "management": found["GUARD_TORCHSERVE_MANAGEMENT"],
            "inference": found["GUARD_TORCHSERVE_INFERENCE"],
        }
        run = Path(found["GUARD_TORCHSERVE_RUN_DIR"])
        publisher = Torchserve(**options, run_dir=run, store=Path(found["GUARD_TORCHSERVE_STORE"]))
        folder = folder_archive(tmp_path / "m", "../evil name")
        api = Management(**options, keys=run / "key_file.json", seconds=10)
        api._ask("POST", "/models", {"url": str(folder), "initial_workers": "0"})

        assert [(it.name, it.digest) for it in publisher.state()] == [("../evil name", None)]
        with pytest.raises(IntegrityMismatch, match="restart it"):
            publisher.withdraw("../evil name", publisher.state()[0].version)


@pytest.mark.threat("A11")
def test_prediction_without_the_key_is_refused(site: Site) -> None:
    assert httpx.get(f"{site.inference}/ping").status_code == 400


def test_a_client_that_follows_the_sentence_gets_an_answer(site: Site, one: Vetted) -> None:
    publish(site, one)

    sentence = site.publisher().calling("digits")
    found = re.search(r"to (http://\S+) with .*`inference\.key` in (\S+),", sentence)
    assert found is not None
    key = json.loads(Path(found[2]).read_text())["inference"]["key"]
    answer = httpx.post(
        found[1],
        content=one.smoke.images[0],
        headers={"Authorization": f"Bearer {key}", "Content-Type": "image/png"},
    )

    assert answer.status_code == 200
    assert answer.headers["X-Guard-Digest"] == one.digest
    assert len(answer.json()["probabilities"]) == len(one.smoke.probabilities[0])


def test_guard_doctor_finds_it_well_and_its_key_needed(site: Site, tmp_path: Path) -> None:
    settings = load_settings(
        {
            "GUARD_DATA_DIR": str(tmp_path),
            "GUARD_TORCHSERVE_MANAGEMENT": site.management,
            "GUARD_TORCHSERVE_INFERENCE": site.inference,
            "GUARD_TORCHSERVE_RUN_DIR": str(site.run_dir),
        }
    )
    others = frozenset(check.name for check in CHECKS) - {"serving"}
    (found,) = diagnose(settings, Options(skip=others, seconds=60))

    assert (found.state, found.mend) == (State.OK, "")
