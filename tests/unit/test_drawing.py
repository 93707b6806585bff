"""Boxes on images: in the right place, in their color, readable on any size."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from ofa.errors import UserError
from ofa.inference.image_writer import ImageWriter
from ofa.report.annotate import PREDICTED, TRUE, Mark, draw_boxes
from ofa.task.prediction import Prediction


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def pixels_of(image: Image.Image, color: str) -> np.ndarray:
    """(x, y) of every pixel in a color."""
    rows, columns = np.nonzero((np.asarray(image) == ImageColor.getrgb(color)).all(-1))
    return np.stack([columns, rows], 1)


@pytest.mark.parametrize("size", [(400, 330), (1600, 1200), (5000, 4000)])
def test_a_frame_lies_on_the_edges_of_its_box(size):
    box = [size[0] * 0.25, size[1] * 0.5, size[0] * 0.75, size[1] * 0.875]
    drawn = draw_boxes(grey(*size), [Mark(box)])
    assert drawn.size == size
    found = pixels_of(drawn, PREDICTED)
    near = 0.01 * min(size)
    assert (
        np.abs(found.min(0) - box[:2]).max() <= near
        and np.abs(found.max(0) - box[2:]).max() <= near
    )
    inside = (found > np.array(box[:2]) + 3 * near).all(1) & (
        found < np.array(box[2:]) - 3 * near
    ).all(1)
    assert not inside.any(), "the image inside stays visible"


def test_lines_grow_with_the_image():
    widths = []
    for side in (400, 1600):
        drawn = draw_boxes(
            grey(side, side), [Mark([side * 0.25, side * 0.25, side * 0.75, side * 0.75])]
        )
        middle = pixels_of(drawn.crop((0, side // 2, side, side // 2 + 1)), PREDICTED)
        widths.append(len(middle) / 2)
    assert widths[0] >= 2 and widths[1] >= 3 * widths[0]


def test_a_small_image_is_enlarged_so_that_letters_can_be_read():
    drawn = draw_boxes(grey(64, 48), [Mark([8, 8, 56, 40], "dog")])
    assert min(drawn.size) >= 320 and drawn.width / drawn.height == pytest.approx(64 / 48)
    assert min(draw_boxes(grey(900, 60), []).size) < 320, "a narrow strip does not become huge"


def test_labels_of_boxes_in_one_place_do_not_cover_each_other():
    box = [100, 100, 300, 300]
    drawn = draw_boxes(grey(400, 400), [Mark(box, "first"), Mark(box, "second", TRUE)])
    grounds = [pixels_of(drawn, color) for color in (PREDICTED, TRUE)]
    assert grounds[0][:, 1].min() < 100 and grounds[1][:, 1].max() > 300


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 900, 900],
        [399, 329, 400, 330],
        [0, 0, 1, 1],
        [500, 500, 600, 600],
        [30, 30, 30, 30],
    ],
)
def test_any_box_can_be_drawn(box):
    drawn = draw_boxes(
        grey(400, 330),
        [Mark(box, "a label that is longer than the image is wide, by far, in every font " * 5)],
    )
    assert drawn.size == (400, 330) and len(pixels_of(drawn, PREDICTED))


def test_a_heading_has_its_own_band():
    image = grey(400, 330)
    drawn = draw_boxes(
        image, [], heading="a dog on a sofa that looks at the camera, and behind it another one"
    )
    assert drawn.width == 400 and drawn.height > 360
    below = drawn.crop((0, drawn.height - 330, 400, drawn.height))
    assert np.array_equal(np.asarray(below), np.asarray(image))


def test_the_given_image_stays_as_it_is():
    image = Image.new("L", (400, 330), 7)
    draw_boxes(image, [Mark([10, 10, 300, 300], "x")], heading="y")
    assert image.mode == "L" and set(image.getdata()) == {7}


@pytest.mark.parametrize(
    "caption", ["../../a red circle", "/etc/passwd", "a\0b\n", "x" * 300, "...", "", "図" * 300]
)
def test_files_of_generated_images_lie_in_their_folder_whatever_the_caption_is(tmp_path, caption):
    writer, image = ImageWriter(tmp_path / "in/out"), Image.new("RGB", (8, 8))
    prediction = Prediction(caption, image=image, others=[Prediction(caption, image=image)])
    writer.keep(7, prediction, image)
    files = [path for path in (tmp_path / "in").rglob("*") if path.is_file()]
    assert len(files) == 4 and all(
        path.name.startswith("000007") and path.is_relative_to(tmp_path / "in/out")
        for path in files
    )
    assert prediction.file in map(str, files)


def test_generated_images_do_not_follow_links_out_of_their_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    writer = ImageWriter(tmp_path / "out")
    (tmp_path / "out/top1").rmdir()
    (tmp_path / "out/top1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="a symbolic link that leads out"):
        writer.keep(0, Prediction("a", image=Image.new("RGB", (8, 8))))
    assert not list((tmp_path / "elsewhere").iterdir())
