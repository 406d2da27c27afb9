"""Training sets in every form give the same images, and bad ones one sentence and no files."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from guard.core.errors import TrainingSetError
from guard.core.progress import silent
from guard.trainsets import TrainingSet, read
from guard.trainsets import _image_folder as folder_reader
from guard.trainsets import _read as reader
from guard.trainsets import _shards as shard_reader
from guard.trainsets._npz import NpzFile
from guard.trainsets._source import Item
from tests.trainsets.making import (
    NAMES,
    folder,
    images_of,
    labels_of,
    npz,
    parquet_file,
    png,
)

COUNT = 30
IMAGES, LABELS = images_of(COUNT), labels_of(COUNT)
CELLS = [png(image) for image in IMAGES]


def as_folder(root: Path) -> Path:
    return folder(root / "set", IMAGES, LABELS)


def as_parquet(root: Path) -> Path:
    return parquet_file(root / "set.parquet", CELLS, LABELS.tolist(), NAMES)


def as_text_parquet(root: Path) -> Path:
    return parquet_file(root / "set.parquet", CELLS, [NAMES[label] for label in LABELS])


def as_npz(root: Path) -> Path:
    return npz(root / "set.npz", IMAGES, LABELS, NAMES)


def as_parquet_shards(root: Path) -> Path:
    for start in (0, 10, 20):
        part = slice(start, start + 10)
        path = root / "set" / "data" / f"train-{start:02}.parquet"
        parquet_file(path, CELLS[part], LABELS[part].tolist(), NAMES)
    (root / "set" / "README.md").write_text("A set.")
    return root / "set"


def as_npz_shards(root: Path) -> Path:
    for start in (0, 15):
        part = slice(start, start + 15)
        npz(root / "set" / f"{start:02}.npz", IMAGES[part], LABELS[part], NAMES)
    return root / "set"


FORMS = [as_folder, as_parquet, as_text_parquet, as_npz, as_parquet_shards, as_npz_shards]


def content(train: TrainingSet) -> set[tuple[int, bytes]]:
    return {
        (int(label), image.tobytes())
        for batch in train.batches(7)
        for image, label in zip(batch.images, batch.labels, strict=True)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_labels_and_names(
    form: Callable[[Path], Path], tmp_path: Path, into: Path
) -> None:
    train = read(form(tmp_path), into, uri="s3://sets/ours/")
    wanted = {(int(label), image.tobytes()) for label, image in zip(LABELS, IMAGES, strict=True)}

    assert content(train) == wanted
    assert train.facts.uri == "s3://sets/ours/"
    assert train.facts.class_names == NAMES
    assert (train.facts.images, train.facts.total, train.facts.skipped) == (COUNT, COUNT, 0)
    assert train.facts.per_class == (10, 10, 10)
    assert (train.facts.channels, train.facts.height, train.facts.width) == (1, 6, 5)


@pytest.mark.parametrize("form", FORMS)
def test_the_digest_is_that_of_the_content(
    form: Callable[[Path], Path], tmp_path: Path, into: Path
) -> None:
    path = form(tmp_path)
    first = read(path, into).facts.digest
    again = read(path, into, shape=(1, 6, 5)).facts.digest

    assert first == again
    assert re.fullmatch("[0-9a-f]{64}", first)


def test_one_other_pixel_label_or_name_gives_another_digest(tmp_path: Path, into: Path) -> None:
    other = IMAGES.copy()
    other[3, 0, 0, 0] ^= 1
    relabelled = LABELS.copy()
    relabelled[3] = 1
    sets = [(IMAGES, LABELS), (other, LABELS), (IMAGES, relabelled)]
    paths = [
        npz(tmp_path / "names.npz", IMAGES, LABELS, NAMES),
        npz(tmp_path / "deep" / "x.npz", IMAGES, LABELS).parent,
    ]
    digests = {read(npz(tmp_path / "set.npz", *one), into).facts.digest for one in sets}
    digests |= {read(path, into).facts.digest for path in paths}

    assert len(digests) == 5


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (as_folder, "ant/0000.png"),
        (as_parquet, "row 0"),
        (as_npz, "image 0"),
        (as_parquet_shards, "data/train-00.parquet row 0"),
    ],
)
def test_an_image_keeps_the_name_that_it_has_at_its_source(
    form: Callable[[Path], Path], name: str, tmp_path: Path, into: Path
) -> None:
    train = read(form(tmp_path), into)

    assert train.name_of(0) == name
    assert len({train.name_of(place) for place in range(COUNT)}) == COUNT


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path, into: Path) -> None:
    names = [str(number) for number in range(11)]
    labels = labels_of(22, 11)
    train = read(folder(tmp_path / "set", images_of(22), labels, names), into)

    assert train.facts.class_names == tuple(names)


def test_channels_last_and_grey_arrays_are_read_as_they_are_meant(
    tmp_path: Path, into: Path
) -> None:
    colour = images_of(6, shape=(3, 6, 5))
    last = np.ascontiguousarray(colour.transpose(0, 2, 3, 1))
    grey = images_of(6)[:, 0]
    first_found = read(npz(tmp_path / "a.npz", last, labels_of(6)), into).rows(np.arange(6))
    second_found = read(npz(tmp_path / "b.npz", grey, labels_of(6)), into).rows(np.arange(6))

    assert np.array_equal(first_found, colour)
    assert np.array_equal(second_found, grey[:, None])


def test_large_arrays_are_read_in_parts(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.trainsets._npz._CHUNK", 100)
    monkeypatch.setattr("guard.trainsets._spool._PENDING", 100)

    assert len(content(read(as_npz(tmp_path), into))) == COUNT


# --- a sample of a larger set


@pytest.mark.parametrize("form", FORMS)
def test_of_a_set_over_the_limit_a_sample_is_read_and_the_facts_say_so(
    form: Callable[[Path], Path], tmp_path: Path, into: Path
) -> None:
    path = form(tmp_path)
    train = read(path, into, max_images=20)
    again = read(path, into, max_images=20)

    assert (len(train), train.facts.images, train.facts.total) == (20, 20, COUNT)
    assert content(train) == content(again)
    assert train.facts.digest == again.facts.digest
    whole = read(path, into).facts
    assert train.facts.origin == whole.origin == whole.digest != train.facts.digest


def test_which_images_are_sampled_hangs_on_all_of_the_set(tmp_path: Path, into: Path) -> None:
    other = IMAGES.copy()
    other[29, 0, 0, 0] ^= 1

    def kept(images: np.ndarray) -> set[str]:
        train = read(npz(tmp_path / "set.npz", images, LABELS), into, max_images=20)
        return {train.name_of(place) for place in range(20)}

    assert kept(IMAGES) != kept(other)


# --- broken images


def test_single_broken_images_are_counted_and_skipped(tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    (path / "ant" / "0000.png").write_bytes(b"no image")
    (path / "bee" / "0001.png").write_bytes(b"")
    train = read(path, into)

    assert (train.facts.images, train.facts.skipped) == (COUNT - 2, 2)
    assert train.facts.total == COUNT
    assert train.facts.per_class == (9, 9, 10)
    assert len(train.facts.faults) == 2
    assert train.facts.faults[0].startswith("ant/0000.png")


def test_a_broken_image_is_part_of_the_digest(tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    (path / "ant" / "0000.png").write_bytes(b"no image")
    broken = read(path, into).facts.digest
    (path / "ant" / "0000.png").unlink()

    assert broken != read(path, into).facts.digest


def test_rows_without_bytes_are_skipped(tmp_path: Path, into: Path) -> None:
    cells = [None, *CELLS[1:]]
    train = read(parquet_file(tmp_path / "set.parquet", cells, LABELS.tolist()), into)

    assert train.facts.skipped == 1
    assert "embed them" in train.facts.faults[0]


def test_a_file_that_may_not_be_read_is_skipped(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_folder(tmp_path)
    plain = folder_reader._bytes

    def barred(path: Path, source: str) -> tuple[bytes, int]:
        if source == "ant/0000.png":
            raise PermissionError(13, "Permission denied")
        return plain(path, source)

    monkeypatch.setattr(folder_reader, "_bytes", barred)

    assert read(path, into).facts.faults == ("ant/0000.png cannot be read (Permission denied).",)


def test_a_pixel_bomb_is_skipped_before_it_is_decoded(tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    Image.new("1", (9_000, 9_000)).save(path / "ant" / "0000.png")
    train = read(path, into)

    assert train.facts.skipped == 1
    assert "shrink it" in train.facts.faults[0]


def test_more_than_a_hundred_broken_images_are_refused(tmp_path: Path, into: Path) -> None:
    cells = [*CELLS, *[b"broken"] * 101]
    path = parquet_file(tmp_path / "set.parquet", cells, labels_of(len(cells)).tolist())

    refused(path, into, "trainset_broken", "101 of the first 131 images")


def test_of_a_large_set_one_per_cent_may_be_broken(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_FAULTS", 0)
    monkeypatch.setattr(reader, "MAX_FAULT_SHARE", 0.1)
    path = parquet_file(tmp_path / "set.parquet", [*[b"x"] * 3, *CELLS[3:]], LABELS.tolist(), NAMES)
    worse = parquet_file(
        tmp_path / "worse.parquet", [*[b"x"] * 4, *CELLS[4:]], LABELS.tolist(), NAMES
    )

    assert read(path, into).facts.skipped == 3
    refused(worse, into, "trainset_broken", "4 of the first 4")


def test_a_set_without_any_good_image_is_refused(tmp_path: Path, into: Path) -> None:
    path = parquet_file(tmp_path / "set.parquet", [b"x"] * 6, labels_of(6).tolist())

    refused(path, into, "trainset_broken", "6 of the first 6")


# --- other sizes


@pytest.mark.parametrize("form", [as_folder, as_parquet, as_npz])
def test_images_of_another_size_than_the_model_are_refused(
    form: Callable[[Path], Path], tmp_path: Path, into: Path
) -> None:
    refused(form(tmp_path), into, "trainset_wrong_size", "another size", shape=(1, 8, 8))


def test_images_with_other_channels_than_the_model_are_refused(tmp_path: Path, into: Path) -> None:
    refused(as_folder(tmp_path), into, "trainset_wrong_size", "6 grey, not", shape=(3, 6, 5))


@pytest.mark.parametrize("shape", [None, (1, 6, 5)])
def test_a_single_image_of_another_size_is_skipped(
    shape: tuple[int, int, int] | None, tmp_path: Path, into: Path
) -> None:
    path = as_folder(tmp_path)
    (path / "bee" / "0001.png").write_bytes(png(images_of(1, shape=(1, 9, 9))[0]))
    (path / "cow" / "0002.png").write_bytes(png(images_of(1, shape=(3, 6, 5))[0]))

    assert read(path, into, shape=shape).facts.skipped == 2


# --- one image twice


def test_duplicates_and_conflicts_are_counted_and_kept(tmp_path: Path, into: Path) -> None:
    images = IMAGES.copy()
    images[3] = images[0]  # the same label
    images[4] = images[1] = images[2]  # labels 1, 1 and 2
    train = read(npz(tmp_path / "set.npz", images, LABELS), into)

    assert (train.facts.images, train.facts.duplicates, train.facts.conflicts) == (COUNT, 3, 3)


def test_a_set_full_of_conflicts_is_refused(tmp_path: Path, into: Path) -> None:
    images = np.repeat(images_of(60), 2, axis=0)

    refused(
        npz(tmp_path / "set.npz", images, labels_of(120, 2)),
        into,
        "trainset_conflicts",
        "120 images have two labels",
    )


# --- what is no training set


def refused(path: Path, into: Path, code: str, text: str, **more: object) -> None:
    with pytest.raises(TrainingSetError, match=re.escape(text)) as found:
        read(path, into, **more)  # type: ignore[arg-type]
    assert found.value.code == code
    assert list(into.iterdir()) == []


def test_a_path_with_nothing_is_refused(tmp_path: Path, into: Path) -> None:
    refused(tmp_path / "none", into, "trainset_not_found", "There is nothing")


def test_a_file_of_another_kind_is_refused(tmp_path: Path, into: Path) -> None:
    (tmp_path / "set.csv").write_text("a,b")

    refused(tmp_path / "set.csv", into, "trainset_unknown_source", "is no training set")


def test_an_empty_folder_is_refused(tmp_path: Path, into: Path) -> None:
    (tmp_path / "set").mkdir()

    refused(tmp_path / "set", into, "trainset_empty", "holds no images")


def test_a_folder_that_cannot_be_listed_is_refused(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def barred(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(reader, "shard_files", barred)

    refused(tmp_path, into, "trainset_unreadable", "cannot be read")


def test_an_empty_class_folder_is_refused(tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    (path / "dog").mkdir()

    refused(path, into, "trainset_missing_class", "dog holds no images")


@pytest.mark.parametrize(
    ("place", "text"),
    [("notes.csv", "lies beside the class folders"), ("ant/deeper/x.png", "is not a file")],
)
def test_files_in_odd_places_are_refused(place: str, text: str, tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    (path / place).parent.mkdir(exist_ok=True)
    (path / place).write_bytes(CELLS[0])

    refused(path, into, "trainset_bad_folder", text)


def test_what_file_managers_leave_is_passed_over(tmp_path: Path, into: Path) -> None:
    path = as_folder(tmp_path)
    for place in (".DS_Store", "ant/Thumbs.db", "ant/.hidden"):
        (path / place).write_bytes(b"litter")

    assert len(read(path, into)) == COUNT


@pytest.mark.parametrize("name", ["x.npz", "x.png"])
def test_other_files_beside_shards_are_refused(name: str, tmp_path: Path, into: Path) -> None:
    path = as_parquet_shards(tmp_path)
    (path / "data" / "z").mkdir()
    npz(path / "data" / "z" / "x.npz", IMAGES, LABELS).rename(path / "data" / "z" / name)

    refused(path, into, "trainset_bad_folder", "beside")


def test_shards_that_name_the_classes_differently_are_refused(tmp_path: Path, into: Path) -> None:
    path = as_npz_shards(tmp_path)
    npz(path / "99.npz", IMAGES, LABELS, ("a", "b", "c"))

    refused(path, into, "trainset_bad_names", "name the classes differently")


def test_a_label_without_images_is_refused(tmp_path: Path, into: Path) -> None:
    path = npz(tmp_path / "set.npz", IMAGES, LABELS * 2)

    refused(path, into, "trainset_missing_class", "Class 1 has no images")


def test_a_folder_with_a_gap_in_its_numbers_is_refused(tmp_path: Path, into: Path) -> None:
    path = folder(tmp_path / "set", IMAGES, LABELS, ("0", "1", "3"))

    refused(path, into, "trainset_bad_names", "There is no class 2")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_a_class_name_that_cannot_be_shown_is_refused(
    name: str, tmp_path: Path, into: Path
) -> None:
    path = parquet_file(tmp_path / "x.parquet", CELLS, LABELS.tolist(), ("ant", "bee", name))

    refused(path, into, "trainset_bad_names", "printable")


def test_a_label_without_a_name_is_refused(tmp_path: Path, into: Path) -> None:
    path = npz(tmp_path / "set.npz", IMAGES, LABELS, NAMES[:2])

    refused(path, into, "trainset_bad_labels", "names 2 classes, but a label is 2")


@pytest.mark.parametrize("labels", [[-1] * COUNT, [None] * COUNT, [0.5] * COUNT])
def test_labels_that_are_no_classes_are_refused(
    labels: list[object], tmp_path: Path, into: Path
) -> None:
    path = parquet_file(tmp_path / "set.parquet", CELLS, labels)

    refused(path, into, "trainset_bad_labels", "row 0 has")


def test_negative_labels_in_an_archive_are_refused(tmp_path: Path, into: Path) -> None:
    refused(npz(tmp_path / "x.npz", IMAGES, LABELS - 1), into, "trainset_bad_labels", "-1")


def test_shards_with_numbers_and_text_as_labels_are_refused(tmp_path: Path, into: Path) -> None:
    parquet_file(tmp_path / "set" / "a.parquet", CELLS, LABELS.tolist())
    parquet_file(tmp_path / "set" / "b.parquet", CELLS, [NAMES[label] for label in LABELS])

    refused(tmp_path / "set", into, "trainset_bad_labels", "or all are text")


def test_a_parquet_file_without_labels_is_refused(tmp_path: Path, into: Path) -> None:
    parquet.write_table(pa.table({"image": CELLS}), tmp_path / "set.parquet")

    refused(tmp_path / "set.parquet", into, "trainset_bad_columns", "exactly one column")


@pytest.mark.parametrize("form", [as_parquet, as_npz])
@pytest.mark.parametrize("cut", [10, 200])
def test_a_truncated_file_is_refused(
    form: Callable[[Path], Path], cut: int, tmp_path: Path, into: Path
) -> None:
    path = form(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])

    refused(path, into, "trainset_unreadable", "cannot be read")


def test_a_damaged_page_is_refused(tmp_path: Path, into: Path) -> None:
    path = as_parquet(tmp_path)
    data = bytearray(path.read_bytes())
    data[4:40] = bytes(36)
    path.write_bytes(data)

    refused(path, into, "trainset_unreadable", "cannot be read")


def test_an_archive_whose_checksum_is_wrong_is_refused(tmp_path: Path, into: Path) -> None:
    path = as_npz(tmp_path)
    data = bytearray(path.read_bytes())
    place = data.find(IMAGES[20].tobytes())
    data[place] ^= 1
    path.write_bytes(data)

    refused(path, into, "trainset_unreadable", "cannot be read")


def test_an_archive_with_other_arrays_is_refused(tmp_path: Path, into: Path) -> None:
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS, more=LABELS)

    refused(tmp_path / "set.npz", into, "trainset_bad_archive", "nothing else")


def test_arrays_in_fortran_order_are_refused(tmp_path: Path, into: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.asfortranarray(IMAGES), labels=LABELS)

    refused(tmp_path / "set.npz", into, "trainset_bad_archive", "Fortran order")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, into: Path) -> None:
    images = np.zeros((2000, 1, 32, 32), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", images=images, labels=labels_of(2000))

    refused(tmp_path / "set.npz", into, "trainset_bomb", "unpacks to over")


def test_a_parquet_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, into: Path) -> None:
    cells = [bytes(1 << 20) + bytes([place]) for place in range(4)]
    table = pa.table({"image": cells, "label": [0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "set.parquet", compression="zstd", use_dictionary=False)

    refused(tmp_path / "set.parquet", into, "trainset_bomb", "unpack to over")


def test_a_set_that_does_not_fit_the_disk_is_refused(tmp_path: Path, into: Path) -> None:
    refused(as_folder(tmp_path), into, "trainset_too_large", "may be written", max_bytes=100)


@pytest.mark.parametrize("form", [as_folder, as_npz_shards])
def test_a_listing_over_the_limit_is_refused(
    form: Callable[[Path], Path], tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_reader, "MAX_LISTED", 29)
    monkeypatch.setattr(shard_reader, "MAX_LISTED", 29)

    refused(form(tmp_path), into, "trainset_too_large", "take a sample")


def test_too_many_shards_are_refused(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_reader, "_MAX_SHARDS", 1)

    refused(as_npz_shards(tmp_path), into, "trainset_too_large", "join some")


# --- sets that change while they are read


def during(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Make the change once the first image was taken."""
    plain = reader._Pass.take

    def take(self: reader._Pass, item: Item, digest: bytes) -> None:
        plain(self, item, digest)
        if self.seen == 1:
            change()

    monkeypatch.setattr(reader._Pass, "take", take)


def test_a_file_that_vanishes_is_noticed(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_folder(tmp_path)
    during(monkeypatch, (path / "cow" / "0029.png").unlink)

    refused(path, into, "trainset_changed", "changed while")


def test_a_file_that_is_added_is_noticed(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_folder(tmp_path)
    during(monkeypatch, lambda: (path / "cow" / "9999.png").write_bytes(CELLS[0]))

    refused(path, into, "trainset_changed", "cow changed while")


def test_a_shard_that_is_replaced_is_noticed(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_npz_shards(tmp_path)
    during(monkeypatch, lambda: npz(path / "15.npz", IMAGES[15:], LABELS[:15], NAMES))

    refused(path, into, "trainset_changed", "15.npz changed while")


@pytest.mark.parametrize("count", [3, None])
def test_a_shard_that_looks_damaged_since_it_changed_is_called_changed(
    count: int | None, tmp_path: Path
) -> None:
    path = as_npz(tmp_path)
    source = reader.open_source(path)
    np.savez(path, images=IMAGES[:count], labels=LABELS[:count], more=LABELS)
    if count is not None:
        npz(path, IMAGES[:count], LABELS[:count])

    with pytest.raises(TrainingSetError, match="changed while"):
        list(source.items(None))


@pytest.mark.parametrize(
    ("images", "code"),
    [(IMAGES[:3], "trainset_unreadable"), (IMAGES.astype(float), "trainset_bad_archive")],
)
def test_an_archive_is_checked_again_when_its_rows_are_read(
    images: np.ndarray, code: str, tmp_path: Path
) -> None:
    opened = NpzFile(as_npz(tmp_path))
    npz(tmp_path / "set.npz", images, LABELS[: len(images)])

    with pytest.raises(TrainingSetError) as found:
        list(opened.items(None))
    assert found.value.code == code


def test_a_shard_that_vanishes_is_noticed(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_npz_shards(tmp_path)
    during(monkeypatch, (path / "15.npz").unlink)

    refused(path, into, "trainset_changed", "15.npz changed while")


def test_a_file_that_differs_from_what_the_sample_was_drawn_by_is_noticed(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_folder(tmp_path)

    def rewrite() -> None:
        for file in path.rglob("*.png"):
            file.write_bytes(CELLS[0])

    during(monkeypatch, rewrite)

    refused(path, into, "trainset_changed", "changed while", max_images=20)


def test_a_file_that_grows_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"12345")
    monkeypatch.setattr(folder_reader, "MAX_ENCODED_BYTES", 1)
    plain = os.fstat

    def grown(number: int) -> object:
        found = plain(number)
        path.write_bytes(b"123456789")
        return found

    monkeypatch.setattr(os, "fstat", grown)

    with pytest.raises(TrainingSetError, match=r"x\.png changed"):
        folder_reader._bytes(path, "x.png")


def test_progress_is_reported_while_it_is_read(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_REPORT", 10)
    seen: list[float] = []
    read(as_npz(tmp_path), into, progress=lambda done, note="": seen.append(done))
    silent(1.0)

    assert seen == [10 / 30, 20 / 30, 1.0, 1.0]


def test_what_an_interruption_leaves_is_nothing(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    during(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        read(as_npz(tmp_path), into)

    assert list(into.iterdir()) == []


def test_nothing_in_an_archive_is_unpickled(tmp_path: Path, into: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.array([{}], object), labels=np.zeros(1, int))
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        assert "images.npy" in archive.namelist()

    refused(tmp_path / "set.npz", into, "trainset_bad_archive", "must be uint8")
