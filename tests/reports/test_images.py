"""Pictures on a page are PNGs that the guard itself encoded."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from guard.reports.images import LARGEST, SIDE, THUMBNAIL, png_uri, stamp_uri, thumbnail_uri

PREFIX = "data:image/png;base64,"


def opened(uri: str) -> Image.Image:
    assert uri.startswith(PREFIX)
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(PREFIX))))
    image.load()
    return image


def test_a_small_image_grows_by_a_whole_factor() -> None:
    image = opened(png_uri(np.eye(28)))

    assert image.size == (SIDE, SIDE)
    assert image.mode == "L"
    assert {image.getpixel((x, x)) for x in range(SIDE)} == {255}


def test_a_large_image_shrinks() -> None:
    assert max(opened(png_uri(np.zeros((3, 1000, 600)))).size) <= LARGEST


def test_colours_survive() -> None:
    image = np.zeros((3, 4, 4))
    image[0] = 1.0

    assert opened(png_uri(image)).getpixel((0, 0)) == (255, 0, 0)


def test_channels_that_are_no_colours_are_shown_as_grey() -> None:
    assert opened(png_uri(np.stack([np.zeros((4, 4)), np.ones((4, 4))]))).getpixel((0, 0)) == 128


def test_values_that_are_no_colours_are_clipped() -> None:
    image = opened(png_uri(np.array([[np.nan, np.inf], [-5.0, 5.0]])))

    corners = [
        image.getpixel(place)
        for place in ((0, 0), (SIDE - 1, 0), (0, SIDE - 1), (SIDE - 1, SIDE - 1))
    ]
    assert corners == [0, 255, 0, 255]


def test_a_stamp_shows_the_pattern_only_under_its_mask() -> None:
    mask = np.zeros((2, 2))
    mask[0, 0] = 1
    image = opened(stamp_uri(mask, np.stack([np.ones((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))])))

    assert image.getpixel((0, 0)) == (255, 0, 0)
    right = image.getpixel((SIDE - 1, SIDE - 1))
    assert right[0] == right[1] == right[2]


@pytest.mark.parametrize("shape", [(0, 4), (2, 3, 4, 5), (4,)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="an image must be"):
        png_uri(np.zeros(shape))


def test_a_thumbnail_is_as_large_as_its_image_or_shrinks_by_averaging() -> None:
    small = np.arange(16, dtype=np.uint8).reshape(4, 4)
    large = np.zeros((1, 224, 112), np.uint8)
    large[0, 3, 3] = 255  # one pixel, which sampling would lose

    assert np.array_equal(np.asarray(opened(thumbnail_uri(small))), small)
    shrunk = opened(thumbnail_uri(large))
    assert shrunk.size == (THUMBNAIL // 2, THUMBNAIL)
    assert shrunk.getpixel((0, 0)) == 16
