"""The handler in an isolated Python, on folders unpacked from real archives.

What it refuses, and what it answers.
"""

import base64
import inspect
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from guard.attest import dsse
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.manifest import PolarizerPlace
from guard.core.states import GateMode, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.publishers._archive import write_archive
from guard.serving import _released, handler
from tests.publishers.making import Authority, Vetted, flip, vetted

ISOLATED = Path(__file__).with_name("isolated.py")


class Bench:
    """A vetted model, unpacked as TorchServe would, and a Python that serves it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model: Vetted = vetted(root)
        self.colour: Vetted = vetted(root, seed=3, size=(3, 8, 8))
        self.purified = [
            vetted(
                root,
                seed=5,
                polarizer=PolarizerPlace(before="layer1.0", channels=4, conditional=both),
            )
            for both in (False, True)
        ]
        self.authority = Authority(root / "keys" / "trusted.json")

    def unpack(
        self,
        to: str,
        model: Vetted | None = None,
        authority: Authority | None = None,
        **options: Any,
    ) -> Path:
        model = model or self.model
        store = self.root / f"store-{to}"
        store.mkdir()
        with model.open() as weights:
            archive = write_archive(
                (authority or self.authority).approve(model.digest, "digits", **options),
                weights,
                store,
            )
        with zipfile.ZipFile(store / archive.file) as file:
            file.extractall(self.root / to)
        return self.root / to

    def run(
        self,
        jobs: list[dict[str, Any]],
        *,
        python: tuple[str, ...] = ("-I", "-B"),
        trusted: bool = True,
    ) -> list[dict[str, Any]]:
        option = ["-X", f"guard_trust={self.authority.trusted}"] if trusted else []
        done = subprocess.run(
            [sys.executable, *python, *option, str(ISOLATED)],
            input=json.dumps(
                [
                    {"name": "digits", "version": "1.0", **job, "folder": str(job["folder"])}
                    for job in jobs
                ]
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def rewrite_release(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "release.dsse.json"
        envelope = json.loads(path.read_text())
        change(envelope)
        path.write_text(json.dumps(envelope))

    return apply


def longer_life(envelope: dict[str, Any]) -> None:
    said = dsse.payload(envelope)
    said["predicate"]["expires_at"] = "2999-01-01T00:00:00Z"
    envelope["payload"] = base64.b64encode(json.dumps(said).encode()).decode()


def link_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    shutil.copy(weights, folder.parent / f"{folder.name}-elsewhere")
    weights.unlink()
    weights.symlink_to(folder.parent / f"{folder.name}-elsewhere")


#: What is done to a good folder, and a word of the refusal.
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped weights": (lambda folder: flip(folder / "weights.safetensors"), "other bytes"),
    "no signature": (rewrite_release(lambda envelope: envelope.update(signatures=[])), "signed"),
    "statement changed": (rewrite_release(longer_life), "signed"),
    "statement is a list": (
        lambda folder: (folder / "release.dsse.json").write_text("[]"),
        "not an envelope",
    ),
    "statement is no JSON": (
        lambda folder: (folder / "release.dsse.json").write_text("{"),
        "refuses",
    ),
    "statement gone": (lambda folder: (folder / "release.dsse.json").unlink(), "published files"),
    "weights gone": (lambda folder: (folder / "weights.safetensors").unlink(), "published files"),
    "extra code": (lambda folder: (folder / "sitecustomize.py").write_text(""), "published files"),
    "extra in a folder": (
        lambda folder: (folder / "MAR-INF" / "x.py").write_text(""),
        "published files",
    ),
    "weights are a link": (link_weights, "published files"),
}


@pytest.fixture(scope="module")
def refusals(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One worker start for all broken folders."""
    jobs: list[dict[str, Any]] = []
    for index, (break_it, _) in enumerate(BROKEN.values()):
        folder = bench.unpack(f"broken-{index}")
        break_it(folder)
        jobs.append({"folder": folder})
    stranger = Authority(tmp_path_factory.mktemp("stranger") / "keys" / "trusted.json")
    jobs += [
        {"folder": bench.unpack("signed-by-stranger", authority=stranger)},
        {
            "folder": bench.unpack(
                "expired", seconds=60.0, now=datetime.now(UTC) - timedelta(hours=1)
            )
        },
        {"folder": bench.unpack("other-name"), "name": "letters"},
        {"folder": bench.unpack("other-version"), "version": "2.0"},
        {"folder": bench.unpack("mended")},
    ]
    (bench.root / "mended" / "refused.txt").write_text("an earlier reason")
    names = [*BROKEN, "stranger", "expired", "other name", "other version", "good, refused before"]
    return {
        name: done.get("refused", "") for name, done in zip(names, bench.run(jobs), strict=True)
    }


@pytest.mark.parametrize(("case", "word"), [(name, word) for name, (_, word) in BROKEN.items()])
def test_a_broken_folder_is_refused(refusals: dict[str, str], case: str, word: str) -> None:
    assert refusals[case].startswith("the guard refuses to serve this: ")
    assert word in refusals[case]


@pytest.mark.row(40)
@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("stranger", "trusted key"),
        ("expired", "expire"),
        ("other name", "letters"),
        ("other version", "2.0"),
    ],
)
def test_a_release_of_somebody_else_or_of_yesterday_is_refused(
    refusals: dict[str, str], case: str, word: str
) -> None:
    assert word in refusals[case]


def test_the_reason_is_left_for_the_publisher_and_removed_after_a_good_start(
    bench: Bench, refusals: dict[str, str]
) -> None:
    reason = (bench.root / "broken-0" / "refused.txt").read_text()

    assert refusals["flipped weights"].endswith(reason)
    assert refusals["good, refused before"] == ""
    assert not (bench.root / "mended" / "refused.txt").exists()


@pytest.mark.threat("A09")
@pytest.mark.parametrize(
    ("python", "trusted", "word"),
    [(("-B",), True, "not isolated"), (("-I",), False, "no trusted keys")],
)
def test_a_worker_that_was_not_started_by_the_wrapper_serves_nothing(
    bench: Bench, python: tuple[str, ...], trusted: bool, word: str
) -> None:
    (done,) = bench.run(
        [{"folder": bench.unpack(f"wrapper-{word[:3]}")}], python=python, trusted=trusted
    )

    assert word in done["refused"]


def test_a_release_counts_until_its_last_moment_and_not_longer(bench: Bench) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    released = _released.Released(
        model=None,
        manifest=bench.model.manifest,
        digest="",
        name="digits",
        version="1.0",
        verdict_id="",
        expires_at=end,
    )
    _released.check_current(released, end - timedelta(microseconds=1))
    with pytest.raises(NotServable):
        _released.check_current(released, end)


def encoded(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def answers(bench: Bench) -> dict[str, dict[str, Any]]:
    """One batch for the grey model, with good and bad rows, and one for the colour model."""
    grey = Image.new("L", (8, 8), 128)
    rows: dict[str, dict[str, Any]] = {
        "png": {"bytes": base64.b64encode(bench.model.smoke.images[0]).decode()},
        "other size": {"bytes": encoded(Image.new("L", (9, 8)), "PNG")},
        "second png": {"bytes": base64.b64encode(bench.model.smoke.images[1]).decode()},
        "describe": {"headers": {"describe": "True"}},
        "json": {
            "row": {
                "body": {
                    "image": [
                        [[pixel / 255 for pixel in row] for row in plane]
                        for plane in bench.model.pictures.images[0].tolist()
                    ]
                }
            }
        },
        "instances": {"row": {"body": {"instances": [[[[0.5] * 8] * 8], [[[0.25] * 8] * 8]]}}},
        "form": {"row": {"data": base64.b64decode(encoded(grey, "PNG")).decode("latin-1")}},
        "colour for grey": {"bytes": encoded(Image.new("RGB", (8, 8), (128, 128, 128)), "PNG")},
        "grey jpeg": {"bytes": encoded(grey, "JPEG")},
        "nothing": {},
    }
    colour = {
        "grey for colour": {"bytes": encoded(grey, "PNG")},
        "colour jpeg": {"bytes": encoded(Image.new("RGB", (8, 8), (9, 9, 9)), "JPEG")},
    }
    done = bench.run(
        [
            {"folder": bench.unpack("answers"), "rows": list(rows.values())},
            {"folder": bench.unpack("answers-colour", bench.colour), "rows": list(colour.values())},
            {"folder": bench.root / "answers", "rows": [rows["png"]], "expired": True},
            *(
                {
                    "folder": bench.unpack(f"purified-{row}", model),
                    "rows": [{"bytes": base64.b64encode(model.smoke.images[0]).decode()}],
                }
                for row, model in enumerate(bench.purified)
            ),
        ]
    )
    names = [*rows, *colour, "expired", "polarized", "conditionally polarized"]
    return dict(zip(names, [answer for job in done for answer in job["answers"]], strict=True))


def test_pictures_and_numbers_get_the_vetted_answer(
    bench: Bench, answers: dict[str, dict[str, Any]]
) -> None:
    expected = bench.model.smoke.probabilities

    assert answers["png"]["body"]["probabilities"] == pytest.approx(expected[0], abs=1e-5)
    assert answers["second png"]["body"]["probabilities"] == pytest.approx(expected[1], abs=1e-5)
    assert answers["json"]["body"]["probabilities"] == pytest.approx(expected[0], abs=1e-5)


def test_a_model_with_a_polarizer_gives_the_vetted_answer(
    bench: Bench, answers: dict[str, dict[str, Any]]
) -> None:
    bare = vetted(bench.root, seed=5)

    for name, model in zip(("polarized", "conditionally polarized"), bench.purified, strict=True):
        expected = model.smoke.probabilities[0]
        assert answers[name]["body"]["probabilities"] == pytest.approx(expected, abs=1e-5)
        assert expected != pytest.approx(bare.smoke.probabilities[0], abs=1e-3)


def test_an_answer_names_the_class_and_its_label(
    bench: Bench, answers: dict[str, dict[str, Any]]
) -> None:
    body = answers["png"]["body"]

    assert body["class"] == max(range(3), key=body["probabilities"].__getitem__)
    assert body["label"] == ("cat", "dog", "cow")[body["class"]]


def test_several_instances_get_several_predictions(answers: dict[str, dict[str, Any]]) -> None:
    assert [len(one["probabilities"]) for one in answers["instances"]["body"]["predictions"]] == [
        3,
        3,
    ]


def test_channels_are_converted(answers: dict[str, dict[str, Any]]) -> None:
    assert [
        answers[name]["status"]
        for name in ("colour for grey", "grey jpeg", "grey for colour", "colour jpeg")
    ] == [200] * 4


def test_a_bad_row_gets_its_own_status_and_the_others_their_answers(
    answers: dict[str, dict[str, Any]],
) -> None:
    assert (answers["other size"]["status"], answers["other size"]["body"]["code"]) == (
        400,
        "bad_shape",
    )
    assert (answers["nothing"]["status"], answers["nothing"]["body"]["code"]) == (
        400,
        "bad_request",
    )
    assert answers["second png"]["status"] == 200


def test_a_release_that_expires_while_it_is_served_is_refused_from_then_on(
    answers: dict[str, dict[str, Any]],
) -> None:
    assert (answers["expired"]["status"], answers["expired"]["body"]["code"]) == (
        403,
        "release_expired",
    )


def test_a_describe_row_is_answered_where_it_stands(
    bench: Bench, answers: dict[str, dict[str, Any]]
) -> None:
    body = answers["describe"]["body"]

    assert (body["digest"], body["name"], body["version"]) == (bench.model.digest, "digits", "1.0")
    assert body["extract"] == "answers"


def test_every_row_carries_the_digest_and_a_content_type(
    bench: Bench, answers: dict[str, dict[str, Any]]
) -> None:
    grey = [
        answer
        for name, answer in answers.items()
        if not name.endswith(("for colour", "colour jpeg", "polarized"))
    ]

    assert {answer["headers"]["X-Guard-Digest"] for answer in grey} == {bench.model.digest}
    assert {answer["headers"]["content-type"] for answer in answers.values()} == {
        "application/json"
    }


def test_a_model_that_a_warning_gate_let_through_says_so_in_every_answer(bench: Bench) -> None:
    said = Gated(mode=GateMode.WARN, would_be=WouldBe.REJECTED)
    envelope = bench.authority.envelope(
        bench.model.digest, "digits", verdict=Verdict.REJECTED, said=said
    )
    rows = [
        {"bytes": base64.b64encode(bench.model.smoke.images[0]).decode()},
        {"headers": {"describe": "True"}},
        {},
    ]
    (done,) = bench.run(
        [
            {
                "folder": bench.unpack("warned", envelope=envelope, mode=GateMode.WARN),
                "rows": rows,
            }
        ]
    )

    headers = [answer["headers"] for answer in done["answers"]]
    assert {(one["X-Guard-Gate"], one["X-Guard-Would-Be"]) for one in headers} == {
        ("warn", "rejected")
    }
    assert done["answers"][1]["body"]["gate"] == {"mode": "warn", "would_be": "rejected"}


def test_an_enforcing_gate_adds_no_header(answers: dict[str, dict[str, Any]]) -> None:
    assert all("X-Guard-Gate" not in answer["headers"] for answer in answers.values())
    assert answers["describe"]["body"]["gate"] is None


def test_a_rejected_model_whose_release_is_silent_is_not_loaded(bench: Bench) -> None:
    def silence(envelope: dict[str, Any]) -> None:
        said = dsse.payload(envelope)
        said["predicate"]["verdict"] = "rejected"
        envelope |= dsse.sign(said, bench.authority.signer)

    folder = bench.unpack("silent")
    rewrite_release(silence)(folder)

    (done,) = bench.run([{"folder": folder}])

    assert "does not say that the gate only warned" in done["refused"]


def test_the_module_holds_exactly_one_class_as_torchserve_wants() -> None:
    own = [
        name
        for name, value in inspect.getmembers(handler, inspect.isclass)
        if value.__module__ == handler.__name__
    ]

    assert own == ["GuardHandler"]


@pytest.mark.threat("A09")
def test_a_handler_that_lies_in_the_archives_folder_is_refused() -> None:
    with pytest.raises(IntegrityMismatch, match="imported from the archive"):
        _released._check_installed(Path(_released.__file__).parent)
