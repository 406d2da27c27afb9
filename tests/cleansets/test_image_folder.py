"""Image folders: what is read, in which order, and what is refused by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guard.cleansets import curate, read_source
from guard.core.errors import CleanSetError
from tests.cleansets.conftest import Maker, Writer


def refusal(path: Path) -> CleanSetError:
    with pytest.raises(CleanSetError) as caught:
        read_source(path)
    return caught.value


def save(
    path: Path,
    mode: str = "L",
    size: tuple[int, int] = (5, 6),
    kind: str = "PNG",
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size)
    image.save(path, kind, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_gives_the_pictures_that_were_written(
    pictures: Maker, folder: Writer, channels: int
) -> None:
    raw = pictures(channels=channels)

    read = read_source(folder(raw))

    order = np.argsort(raw.labels, kind="stable")
    assert np.array_equal(read.images, raw.images[order])
    assert np.array_equal(read.labels, raw.labels[order])
    assert read.class_names == ("0", "1", "2")


def test_numbers_sort_as_numbers_so_that_10_follows_9(tmp_path: Path) -> None:
    for label in range(11):
        save(tmp_path / str(label) / "a.png")

    assert read_source(tmp_path).class_names == tuple(str(label) for label in range(11))


def test_names_sort_as_text(tmp_path: Path) -> None:
    for name in ("dog", "cat", "10"):
        save(tmp_path / name / "a.png")

    assert read_source(tmp_path).class_names == ("10", "cat", "dog")


def test_a_gap_in_numbered_classes_is_a_missing_class(tmp_path: Path) -> None:
    for label in (0, 1, 3):
        save(tmp_path / str(label) / "a.png")

    error = refusal(tmp_path)

    assert error.code == "cleanset_missing_class"
    assert "class 2" in error.sentence


def test_1_and_01_are_one_number(tmp_path: Path) -> None:
    for name in ("0", "1", "01"):
        save(tmp_path / name / "a.png")

    assert refusal(tmp_path).code == "cleanset_bad_names"


def test_another_size_is_named(pictures: Maker, folder: Writer) -> None:
    root = folder(pictures())
    save(root / "2" / "zz.png", size=(7, 6))

    error = refusal(root)

    assert error.code == "cleanset_mixed_sizes"
    assert "2/zz.png is 7x6 grey" in error.sentence
    assert "5x6 grey" in error.sentence


def test_a_colour_picture_among_grey_ones_is_named(pictures: Maker, folder: Writer) -> None:
    root = folder(pictures())
    save(root / "1" / "zz.png", mode="RGB")

    assert "1/zz.png is 5x6 colour" in refusal(root).sentence


def test_an_empty_folder_and_an_empty_class(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "cleanset_empty"

    save(tmp_path / "0" / "a.png")
    (tmp_path / "1").mkdir()
    error = refusal(tmp_path)

    assert error.code == "cleanset_missing_class"
    assert "1" in error.sentence


def test_a_broken_image_is_named(pictures: Maker, folder: Writer) -> None:
    root = folder(pictures())
    good = (root / "0" / "0000.png").read_bytes()
    for damage in (b"not an image", b"", good[: len(good) // 2]):
        (root / "0" / "zz.png").write_bytes(damage)
        error = refusal(root)

        assert error.code == "cleanset_unreadable_image"
        assert "0/zz.png" in error.sentence


def test_formats_that_need_helpers_are_no_images(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\n"
    )

    assert refusal(tmp_path).code == "cleanset_unreadable_image"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "0" / "a.png", size=(4097, 1))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))

    assert refusal(tmp_path).code == "cleanset_too_large"


def test_a_decompression_bomb_is_too_large(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("1", (1, 1)).save(data, "PPM")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.pbm").write_bytes(b"P4\n100000 100000\n\0")

    assert refusal(tmp_path).code == "cleanset_too_large"


def test_transparency_is_refused_and_an_opaque_alpha_channel_dropped(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png", mode="RGB")
    Image.new("RGBA", (5, 6), (9, 8, 7, 255)).save(save(tmp_path / "1" / "a.png"))

    assert read_source(tmp_path).images[1, :, 0, 0].tolist() == [9, 8, 7]

    Image.new("RGBA", (5, 6), (9, 8, 7, 254)).save(tmp_path / "1" / "a.png")
    error = refusal(tmp_path)

    assert error.code == "cleanset_bad_image"
    assert "1/a.png" in error.sentence


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_deep_pixels_are_refused_instead_of_clipped(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "0" / "a.tif", mode=mode, kind="TIFF")

    assert refusal(tmp_path).code == "cleanset_bad_image"


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (5, 6), shade) for shade in (0, 255)]
    save(tmp_path / "0" / "a.png")
    (tmp_path / "1").mkdir()
    frames[0].save(tmp_path / "1" / "a.gif", save_all=True, append_images=frames[1:])

    assert refusal(tmp_path).code == "cleanset_bad_image"


def test_palette_and_one_bit_pictures_become_colour_and_grey(tmp_path: Path) -> None:
    Image.new("P", (5, 6), 0).convert("RGB").convert("P").save(
        save(tmp_path / "palette" / "0" / "a.png")
    )
    save(tmp_path / "palette" / "1" / "a.png", mode="RGB")
    save(tmp_path / "bits" / "0" / "a.png", mode="1")
    save(tmp_path / "bits" / "1" / "a.png", mode="L")

    assert read_source(tmp_path / "palette").images.shape == (2, 3, 6, 5)
    assert read_source(tmp_path / "bits").images.shape == (2, 1, 6, 5)


def test_files_beside_class_folders_and_folders_in_them_are_refused_but_hidden_litter_is_not(
    pictures: Maker, folder: Writer
) -> None:
    raw = pictures()
    root = folder(raw)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "0" / "Thumbs.db").write_bytes(b"x")

    assert len(read_source(root).labels) == len(raw.labels)

    (root / "0" / "more").mkdir()
    assert refusal(root).code == "cleanset_bad_folder"
    (root / "0" / "more").rmdir()
    (root / "readme.txt").write_text("hello")
    assert refusal(root).code == "cleanset_bad_folder"


def test_nothing_there_and_an_unknown_kind_of_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent").code == "cleanset_not_found"

    (tmp_path / "set.tar").write_bytes(b"x")
    assert refusal(tmp_path / "set.tar").code == "cleanset_unknown_source"


def test_errors_of_curation_name_the_files(pictures: Maker, folder: Writer) -> None:
    root = folder(pictures())
    (root / "1" / "copy.png").write_bytes((root / "0" / "0000.png").read_bytes())

    with pytest.raises(
        CleanSetError, match=r"0/0000\.png and 1/copy\.png are the same image"
    ) as caught:
        curate(read_source(root), "digits")

    assert caught.value.code == "cleanset_label_conflict"
