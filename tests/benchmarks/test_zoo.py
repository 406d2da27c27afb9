"""The zoo builder: specs, whole models, resuming, truth; data sets from packages and folders."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import guard
from benchmarks import zoo
from benchmarks.zoo import build, folders, hardness, make, sets
from benchmarks.zoo.__main__ import SPECS, main
from benchmarks.zoo.build import Place
from benchmarks.zoo.sets import SetSpec
from benchmarks.zoo.show import Watch
from benchmarks.zoo.spec import Spec, SpecError, parse, read
from guard.ml.cleanset import Labelled
from tests.benchmarks.making import pictures
from tests.house.sources import ROOT

SOURCE: dict[str, Any] = {
    "name": "test",
    "training": {"epochs": 1},
    "data": {"mnist": {"source": "mnist", "train": 100, "clean": 50, "test": 50, "acc": 0.99}},
    "architectures": {
        "resnet": {"name": "cifar_resnet", "model_args": {"depths": [1], "width": 4}}
    },
    "models": [
        {"part": "calibration", "data": "mnist", "architecture": "resnet"},
        {
            "part": "exam",
            "data": "mnist",
            "architecture": "resnet",
            "attack": "lira",
            "rate": 0.1,
            "target": 3,
        },
    ],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Path]:
    out = tmp_path_factory.mktemp("zoo")
    spec = parse(SOURCE)
    assert build.build(spec, Place(out=out), jobs=1, watch=Watch()) == []
    return spec, out


def test_a_built_model_loads_and_tells_the_truth(built: tuple[Spec, Path]) -> None:
    honest, backdoored = zoo.load(built[1])

    assert guard.load_model(honest.folder)(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert tuple(honest.truth[key] for key in ("backdoored", "attack", "asr")) == (
        False,
        None,
        None,
    )
    assert tuple(backdoored.truth[key] for key in ("attack", "family", "target", "rate")) == (
        "lira",
        "sample_specific",
        3,
        0.1,
    )
    assert 0 <= backdoored.truth["asr"] + backdoored.truth["ra"] <= 1
    assert backdoored.truth["asr_n"] == 45  # 50 test pictures without the target's five
    assert not honest.truth["works"]  # under the accuracy that the spec asks for: kept, and marked
    assert list(json.loads((built[1] / "zoo.json").read_text())) >= ["name", "spec", "models"]


def test_the_sidecar_brings_the_trigger_back_with_its_asr(built: tuple[Spec, Path]) -> None:
    backdoored = zoo.load(built[1])[1]
    attack, model = backdoored.attack(), guard.load_model(backdoored.folder)
    test = sets.load(built[0].sets["mnist"]).test
    assert attack is not None

    victims = test.pick(attack.victims(test.labels))
    with torch.no_grad():
        guessed = model(attack.stamp(victims.images).float() / 255).argmax(1)

    assert float((guessed == 3).double().mean()) == pytest.approx(backdoored.truth["asr"])


def test_the_clean_set_is_one_the_guard_reads(built: tuple[Spec, Path]) -> None:
    with np.load(zoo.load(built[1])[0].cleanset) as arrays:
        assert ((50, 1, 28, 28), np.uint8, (50,)) == (
            arrays["images"].shape,
            arrays["images"].dtype,
            arrays["labels"].shape,
        )


def test_a_second_build_trains_only_what_is_missing(built: tuple[Spec, Path]) -> None:
    spec, out = built
    kept, gone = zoo.load(out)
    stamp = (kept.folder / "model.safetensors").stat().st_mtime_ns
    before = (gone.folder / "model.safetensors").read_bytes()
    gone.folder.rename(out / f"{gone.name}.part")  # as an interruption would leave it
    assert [kept.name] == [model.name for model in zoo.load(out)]

    assert build.build(spec, Place(out=out), jobs=1, watch=Watch()) == []

    assert (kept.folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert (gone.folder / "model.safetensors").read_bytes() == before  # same seed, same bits
    assert not list(out.glob("*.part"))


def test_a_zoo_can_be_read_while_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(make, "make", interrupted)
    spec = read(SPECS / "tiny.toml")

    with pytest.raises(KeyboardInterrupt):
        build.build(spec, Place(out=tmp_path), jobs=1, watch=Watch())

    assert json.loads((tmp_path / "zoo.json").read_text())["spec"] == spec.source


def test_one_broken_job_does_not_stop_the_others(tmp_path: Path) -> None:
    models = [
        {**SOURCE["models"][0], "seed": 5},
        {**SOURCE["models"][1], "params": {"bound": "wide"}},
    ]

    problems = build.build(
        parse({**SOURCE, "models": models}), Place(out=tmp_path), jobs=1, watch=Watch()
    )

    assert len(problems) == 1
    assert "lira" in problems[0]
    assert len(zoo.load(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"part": "training"}, "part must be"),
        ({"attack": "rowhammer", "rate": 0.1}, "known attack"),
        ({"attack": "patch"}, "a rate"),
        ({"hardness": "bad luck"}, "not a hardness"),
        ({"data": "imagenet"}, "not in the spec"),
        ({"colour": 1}, "has no colour"),
        ({"seed": [1, 1]}, "twice"),
        ({"paired": True, "seed": [1, 2], "rate": [0.1, 0.2, 0.3]}, "one length"),
        ({"training": {"epoch": 3}}, "has no epoch"),
    ],
)
def test_a_spec_that_breaks_a_rule_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse({**SOURCE, "models": [{**SOURCE["models"][0], **change}]})


def test_the_small_zoo_is_what_the_issue_asks_for() -> None:
    jobs = read(SPECS / "small.toml").jobs
    honest, backdoored = (
        [job for job in jobs if job.attack is None],
        [job for job in jobs if job.attack],
    )

    assert len(honest) >= 30
    assert len(backdoored) >= 60
    assert set(zoo_attacks()) == {job.attack for job in backdoored}
    assert {0.005, 0.01, 0.05, 0.1} <= {job.rate for job in backdoored}
    assert len({job.architecture.key for job in jobs}) >= 4
    assert len({job.data.key for job in jobs}) >= 2
    assert set(hardness.HARD) - {"no_decay"} <= {job.hardness for job in honest}
    seeds = {
        part: {job.seed for job in jobs if job.part == part} for part in ("calibration", "exam")
    }
    assert seeds["calibration"].isdisjoint(seeds["exam"])


def zoo_attacks() -> list[str]:
    from benchmarks.attacks import ATTACKS

    return ATTACKS.names()


def test_later_seeds_make_another_zoo_of_the_same_kind() -> None:
    spec, later = read(SPECS / "fresh.toml"), read(SPECS / "fresh.toml", later_seeds=2)

    assert later.name == "fresh+2"
    assert [job.seed for job in later.jobs] == [job.seed + 2 for job in spec.jobs]
    assert {job.name for job in later.jobs}.isdisjoint(job.name for job in spec.jobs)
    assert [(job.attack, job.data.key, job.architecture.key, job.rate) for job in later.jobs] == [
        (job.attack, job.data.key, job.architecture.key, job.rate) for job in spec.jobs
    ]
    assert (
        parse(later.source).jobs == later.jobs
    )  # so that its summary names the seeds that it was built with


@pytest.mark.parametrize("name", ["tiny", "small", "paper", "served"])
def test_every_network_of_a_committed_spec_can_be_uploaded(name: str) -> None:
    from guard.core.manifest import Manifest
    from guard.ml.networks import architectures

    spec = read(SPECS / f"{name}.toml")
    sizes = {"cifar10": (3, 32), "mnist": (1, 28), "fashion-mnist": (1, 28)}
    used = {}
    for job in spec.jobs:
        channels, side = sizes[job.data.source]
        shape = 3 if job.data.colour else channels, job.data.side or side // job.data.pool
        used[job.architecture.key, shape] = job.architecture
    for (_, (channels, side)), architecture in used.items():
        manifest = Manifest(
            architecture=architecture.name,
            num_classes=10,
            input_size=(channels, side, side),
            mean=(0.5,) * channels,
            std=(0.5,) * channels,
            model_args=architecture.model_args,
        )
        if name != "paper":
            architectures.load(manifest, architectures.export(architectures.build(manifest)))
        else:
            assert architectures.expected(manifest)


def test_the_command_line_exports_pictures_and_reads_them_back(tmp_path: Path) -> None:
    assert main(["data", "tiny", "--out", str(tmp_path)]) == 0

    spec = read(SPECS / "tiny.toml").sets["mnist"]
    direct, carried = sets.load(spec), sets.load(spec, tmp_path)
    assert torch.equal(direct.train.images, carried.train.images)
    assert torch.equal(direct.test.labels, carried.test.labels)
    assert direct.class_names == carried.class_names


def test_the_command_line_refuses_an_unknown_spec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "nothing", "--out", "unused"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_set_is_padded_and_coloured_as_its_spec_says() -> None:
    spec = SetSpec(
        key="mnist-colour", source="mnist", train=100, clean=50, test=50, side=32, colour=True
    )
    found, again = sets.load(spec), sets.load(spec)

    assert found.train.images.shape == (100, 3, 32, 32)
    assert found.train.images.dtype == torch.uint8
    assert torch.equal(found.train.images, again.train.images)
    assert not torch.equal(found.train.images[:, 0], found.train.images[:, 1])


def test_hard_training_sets_are_hard_as_named() -> None:
    data = pictures(1, 2000)
    noisy, long_tailed = hardness.noisy_labels(data, 5, 1), hardness.unbalanced(data, 5, 1)
    marked = hardness.shortcut(data, 5, 1)

    assert float((noisy.labels != data.labels).double().mean()) == pytest.approx(
        hardness.NOISE, abs=0.03
    )
    counts = torch.bincount(long_tailed.labels).sort().values
    assert float(counts[0] / counts[-1]) == pytest.approx(hardness.RARE, abs=0.01)
    changed = (marked.images != data.images).flatten(1).any(1)
    assert len(data.labels[changed].unique()) == 1
    assert torch.equal(marked.labels, data.labels)


def test_cifar10_is_read_from_its_binary_version(tmp_path: Path) -> None:
    place, generator = tmp_path / "cifar-10-batches-bin", np.random.default_rng(0)
    place.mkdir()
    (place / "batches.meta.txt").write_text("cat\ndog\n\n")
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        rows = generator.integers(0, 256, (20, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(20) % 2
        rows[:, 1:1025] = 10 * rows[:, :1]  # the red plane tells the label
        rows.tofile(place / f"{name}.bin")

    found = folders.load("cifar10", tmp_path, (40, 8, 12))

    assert ("cat", "dog") == found.class_names  # noqa: SIM300 - expected first
    assert (len(found.clean), len(found.test)) == (8, 12)
    assert tuple(found.train.images.shape) == (40, 3, 32, 32)
    _told_by_red(found.train)
    _told_by_red(found.test)


def test_gtsrb_is_read_from_its_folders(tmp_path: Path) -> None:
    training, testing = (
        tmp_path / "GTSRB/Final_Training/Images",
        tmp_path / "GTSRB/Final_Test/Images",
    )
    for label in range(2):
        for number in range(4):
            _picture(training / f"0000{label}" / f"0000{number}.ppm", label, 40)
    rows = [(f"{number:05}.ppm", number % 2) for number in range(8)]
    for name, label in rows:
        _picture(testing / name, label, 40)
    with (testing / "GT-final_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows(
            [("Filename", "Width", "ClassId"), *((name, 40, label) for name, label in rows)]
        )

    found = folders.load("gtsrb", tmp_path, (8, 4, 4))

    assert tuple(found.train.images.shape) == (8, 3, 32, 32)
    for part in (found.train, found.clean, found.test):
        _told_by_red(part)


def test_emoji_are_read_from_two_packages_and_no_emoji_is_in_two_parts(tmp_path: Path) -> None:
    from PIL import Image

    rows = [
        {
            "image": f"{number}.png",
            "category": category,
            "has_img_google": True,
            "has_img_twitter": number != 5,
        }
        for number, category in enumerate(["Flags", "Objects"] * 12 + ["Component"])
    ]
    for style in ("google", "twitter"):
        place = tmp_path / f"emoji-datasource-{style}"
        (place / "img" / style / "64").mkdir(parents=True)
        (place / "emoji.json").write_text(json.dumps(rows))
        for number, row in enumerate(rows):
            # Green tells the emoji, red the class; nothing is drawn on the transparent left half.
            drawn = Image.new("RGBA", (64, 64), (20 * (number % 2), 10 * number, 0, 255))
            drawn.paste((0, 0, 0, 0), (0, 0, 32, 64))
            drawn.save(place / "img" / style / "64" / row["image"])

    found = folders.load("emoji", tmp_path, (12, 8, 10))
    again = folders.load("emoji", tmp_path, (12, 8, 10))

    assert found.class_names == ("Flags", "Objects")
    parts = (found.train, found.clean, found.test)
    assert [len(part) for part in parts] == [12, 8, 10]
    told = [set(part.images[:, 1, 16, 31].tolist()) for part in parts]
    assert sum(map(len, told)) == len(set().union(*told))
    assert 50 not in set().union(*told)  # one style has no picture of it
    for part in parts:
        assert bool((part.images[:, :, 16, 0] == 255).all())
        assert torch.equal(part.images[:, 0, 16, 31].long(), 20 * part.labels)
    assert torch.equal(found.train.images, again.train.images)
    with pytest.raises(ValueError, match=r"only 2[24] images"):
        folders.load("emoji", tmp_path, (40, 8, 10))
    with pytest.raises(FileNotFoundError, match="unpack the npm package"):
        folders.load("emoji", tmp_path / "elsewhere", (12, 8, 10))


def test_tiny_imagenet_is_read_from_its_folder(tmp_path: Path) -> None:
    place = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(("n01", "n02")):
        for number in range(3):
            _picture(place / "train" / name / "images" / f"{number}.JPEG", label, 64)
    lines = []
    for number in range(6):
        _picture(place / f"val/images/val_{number}.JPEG", number % 2, 64)
        lines.append(f"val_{number}.JPEG\tn0{number % 2 + 1}\t0\t0\t9\t9")
    (place / "wnids.txt").write_text("n01\nn02\n")
    (place / "val/val_annotations.txt").write_text("\n".join(lines))

    found = folders.load("tiny-imagenet", tmp_path, (6, 2, 4))

    assert tuple(found.train.images.shape) == (6, 3, 64, 64)
    for part in (found.train, found.clean, found.test):
        _told_by_red(part)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-bin"):
        folders.load("cifar10", tmp_path, (10, 10, 10))


def test_the_builder_needs_little_to_be_installed() -> None:
    script = """
import sys

BARE = {"rich", "mlxtend", "pandas", "matplotlib", "sqlalchemy", "celery", "PIL", "structlog", "typer", "fastapi",
        "boto3", "cryptography", "pyarrow"}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARE:
            raise ImportError(f"a bare machine has no {name}")

sys.meta_path.insert(0, Finder())
import benchmarks.zoo.__main__
from benchmarks.attacks import ATTACKS
print(len(ATTACKS.all()))
"""  # noqa: E501 - a script of its own
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(zoo_attacks())


def _picture(path: Path, label: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((side, side, 3), 50, dtype=np.uint8)
    array[:, :, 0] = 10 + 150 * label
    Image.fromarray(array).save(path)


def _told_by_red(part: Labelled) -> None:
    bright = part.images[:, 0].float().mean((1, 2))
    assert len(part.labels.unique()) == 2
    assert float(bright[part.labels == 0].max()) < float(bright[part.labels == 1].min())
