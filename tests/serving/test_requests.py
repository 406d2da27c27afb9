"""One request to one tensor: what passes unchanged, and what is refused rather than mended."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guard.core.errors import InputError
from guard.core.manifest import Manifest
from guard.serving._requests import MAX_INSTANCES, parse

GREY = Manifest(architecture="x", num_classes=2, input_size=(1, 2, 3), mean=(0.0,), std=(1.0,))
COLOUR = Manifest(
    architecture="x", num_classes=2, input_size=(3, 2, 3), mean=(0.0,) * 3, std=(1.0,) * 3
)
SIX = Manifest(
    architecture="x", num_classes=2, input_size=(6, 2, 3), mean=(0.0,) * 6, std=(1.0,) * 6
)
GOOD = [[[0, 0.5, 1], [0.25, 0.75, 0]]]


def picture(
    mode: str = "L", size: tuple[int, int] = (3, 2), kind: str = "PNG", **options: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, **options).save(buffer, format=kind)
    return buffer.getvalue()


def code(body: object, manifest: Manifest = GREY) -> str:
    with pytest.raises(InputError) as refusal:
        parse({"body": body}, manifest)
    return refusal.value.code


def test_a_picture_becomes_its_pixels_over_255() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    images, several = parse({"body": bytearray(buffer.getvalue())}, GREY)

    assert not several
    assert np.array_equal(images.numpy(), pixels[None, None].astype(np.float32) / 255)


def test_a_colour_picture_keeps_its_channels_in_order() -> None:
    images, _ = parse({"body": picture("RGB", color=(255, 0, 51))}, COLOUR)

    assert images[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])


@pytest.mark.parametrize(
    "body", [{"image": GOOD}, json.dumps({"image": GOOD}), json.dumps({"image": GOOD}).encode()]
)
def test_numbers_pass_unchanged_parsed_or_not(body: object) -> None:
    images, several = parse({"body": body}, GREY)

    assert images.tolist() == [GOOD]
    assert not several


def test_instances_are_stacked() -> None:
    images, several = parse({"data": {"instances": [GOOD, GOOD]}}, GREY)

    assert (images.shape, several) == ((2, 1, 2, 3), True)


@pytest.mark.threat("B10")
@pytest.mark.parametrize("value", [-1e-9, 1.0000001, float("nan"), float("inf"), 2, 255, 10**30])
def test_values_outside_zero_to_one_are_refused(value: float) -> None:
    assert code({"image": [[[0, 0, value], [0, 0, 0]]]}) in {"bad_range", "bad_numbers"}


@pytest.mark.parametrize("value", ["0.5", True, None, [0.5], {"x": 1}])
def test_what_is_no_number_is_refused(value: object) -> None:
    image = [[[value] * 3] * 2]

    assert code({"image": image}) in {"bad_numbers", "bad_shape"}


@pytest.mark.threat("B10")
@pytest.mark.parametrize(
    "image", [0.5, [], [[0.5]], [[[0.5] * 3] * 3], [[[0.5] * 3] * 2] * 2, [[[0.5] * 3, [0.5] * 2]]]
)
def test_other_shapes_are_refused(image: object) -> None:
    assert code({"image": image}) in {"bad_shape", "bad_numbers"}


@pytest.mark.parametrize(
    "body", [None, b"", [], {}, {"image": GOOD, "extra": 1}, {"inputs": GOOD}, 5]
)
def test_what_is_no_request_is_refused(body: object) -> None:
    assert code(body) in {"bad_request", "bad_picture"}


@pytest.mark.parametrize("value", [[], {}, [GOOD] * (MAX_INSTANCES + 1), "x"])
def test_instances_are_one_to_a_limit(value: object) -> None:
    assert code({"instances": value}) == "bad_instances"


def test_a_picture_of_another_size_is_refused_before_it_is_decoded() -> None:
    bomb = picture("1", size=(9_000, 9_000))

    assert len(bomb) < 100_000
    assert code(bomb) == "bad_shape"


@pytest.mark.parametrize(
    "body",
    [
        b"{not json",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        picture()[:40],
        picture(kind="GIF"),
        picture(kind="TIFF"),
        b"\xff\xd8\xff" + b"0" * 50,
    ],
)
def test_damaged_or_other_files_are_refused(body: bytes) -> None:
    assert code(body) in {"bad_picture", "bad_json"}


def test_sixteen_bits_a_channel_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 3), 40_000, dtype=np.uint16)).save(buffer, format="PNG")

    assert code(buffer.getvalue()) == "bad_depth"


def test_a_model_with_odd_channels_takes_numbers_and_no_picture() -> None:
    assert code(picture(), SIX) == "bad_channels"
    assert parse({"body": {"image": [[[0.5] * 3] * 2] * 6}}, SIX)[0].shape == (1, 6, 2, 3)


def test_deep_nesting_is_refused() -> None:
    deep: object = 0.5
    for _ in range(200):
        deep = [deep]

    assert code({"image": deep}) in {"bad_numbers", "bad_shape"}
    assert code(b"[" * 100_000) in {"bad_json", "bad_request"}
