"""Boxes on pictures: in the right place, in their colour, readable on any size."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from ofa.drawing import PREDICTED, TRUE, Mark, draw_boxes


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def pixels_of(image: Image.Image, colour: str) -> np.ndarray:
    """(x, y) of every pixel in a colour."""
    rows, columns = np.nonzero((np.asarray(image) == ImageColor.getrgb(colour)).all(-1))
    return np.stack([columns, rows], 1)


@pytest.mark.parametrize("size", [(400, 330), (1600, 1200), (5000, 4000)])
def test_a_frame_lies_on_the_edges_of_its_box(size):
    box = [size[0] * 0.25, size[1] * 0.5, size[0] * 0.75, size[1] * 0.875]
    drawn = draw_boxes(grey(*size), [Mark(box)])
    assert drawn.size == size
    found = pixels_of(drawn, PREDICTED)
    near = 0.01 * min(size)
    assert np.abs(found.min(0) - box[:2]).max() <= near and np.abs(found.max(0) - box[2:]).max() <= near
    inside = (found > np.array(box[:2]) + 3 * near).all(1) & (found < np.array(box[2:]) - 3 * near).all(1)
    assert not inside.any(), "the picture inside stays visible"


def test_lines_grow_with_the_picture():
    widths = []
    for side in (400, 1600):
        drawn = draw_boxes(grey(side, side), [Mark([side * 0.25, side * 0.25, side * 0.75, side * 0.75])])
        middle = pixels_of(drawn.crop((0, side // 2, side, side // 2 + 1)), PREDICTED)
        widths.append(len(middle) / 2)
    assert widths[0] >= 2 and widths[1] >= 3 * widths[0]


def test_a_small_picture_is_enlarged_so_that_letters_can_be_read():
    drawn = draw_boxes(grey(64, 48), [Mark([8, 8, 56, 40], "dog")])
    assert min(drawn.size) >= 320 and drawn.width / drawn.height == pytest.approx(64 / 48)
    assert min(draw_boxes(grey(900, 60), []).size) < 320, "a narrow strip does not become huge"


def test_labels_of_boxes_in_one_place_do_not_cover_each_other():
    box = [100, 100, 300, 300]
    drawn = draw_boxes(grey(400, 400), [Mark(box, "first"), Mark(box, "second", TRUE)])
    grounds = [pixels_of(drawn, colour) for colour in (PREDICTED, TRUE)]
    assert grounds[0][:, 1].min() < 100 and grounds[1][:, 1].max() > 300


@pytest.mark.parametrize("box", [[-50, -50, 900, 900], [399, 329, 400, 330], [0, 0, 1, 1], [500, 500, 600, 600], [30, 30, 30, 30]])
def test_any_box_can_be_drawn(box):
    drawn = draw_boxes(grey(400, 330), [Mark(box, "a label that is longer than the picture is wide, by far, in every font " * 5)])
    assert drawn.size == (400, 330) and len(pixels_of(drawn, PREDICTED))


def test_a_heading_has_its_own_band():
    picture = grey(400, 330)
    drawn = draw_boxes(picture, [], heading="a dog on a sofa that looks at the camera, and behind it another one")
    assert drawn.width == 400 and drawn.height > 360
    below = drawn.crop((0, drawn.height - 330, 400, drawn.height))
    assert np.array_equal(np.asarray(below), np.asarray(picture))


def test_the_given_picture_stays_as_it_is():
    picture = Image.new("L", (400, 330), 7)
    draw_boxes(picture, [Mark([10, 10, 300, 300], "x")], heading="y")
    assert picture.mode == "L" and set(picture.getdata()) == {7}
