"""Boxes to bins and back."""

import numpy as np
import pytest
import torch

from ofa.errors import UserError
from ofa.tokens.boxes import (
    bins_to_boxes,
    bins_to_text,
    box_overlap,
    boxes_to_bins,
    check_inside,
    clip_boxes,
    parse_box,
    resize_ratios,
    squashed_to_bins,
    text_to_bins,
)


@pytest.mark.parametrize("image_size", [(640, 480), (97, 513), (512, 512)])
@pytest.mark.parametrize(
    ("patch_image_size", "max_image_size", "num_bins"),
    [(512, 512, 1000), (480, 512, 1000), (256, 512, 100)],
)
def test_bins_round_trip_within_half_a_bin(image_size, patch_image_size, max_image_size, num_bins):
    corners = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    boxes = corners.reshape(-1, 4) * torch.tensor(image_size * 2)
    sizes = (image_size, patch_image_size, max_image_size, num_bins)
    bins = boxes_to_bins(boxes, *sizes)
    half_bin_px = (
        0.5
        * max_image_size
        / (num_bins - 1)
        / torch.tensor(resize_ratios(image_size, patch_image_size) * 2)
    )
    assert ((bins_to_boxes(bins, *sizes) - boxes).abs() <= half_bin_px + 1e-3).all()
    assert torch.equal(boxes_to_bins(bins_to_boxes(bins, *sizes), *sizes), bins)


def test_bins_are_a_rounded_fraction_of_the_largest_image():
    assert boxes_to_bins([[10.5, 20.25, 80.0, 95.5]], (130, 90), 128).tolist() == [
        [20, 56, 154, 265]
    ]
    # 499.5 to the even number
    assert squashed_to_bins([0, 256, 511, 512]).tolist() == [0, 500, 997, 999]


def test_arrays_lists_and_tensors_give_the_same_bins():
    box = [1.0, 2.0, 30.0, 40.0]
    kinds = [
        boxes_to_bins(kind, (50, 50)).tolist() for kind in (box, np.array(box), torch.tensor(box))
    ]
    assert kinds[0] == kinds[1] == kinds[2]


def test_smaller_squares_leave_the_upper_bins_unused():
    assert boxes_to_bins([0, 0, 640, 480], (640, 480), 480, 512).tolist() == [0, 0, 937, 937]


def test_boxes_beyond_the_image_land_on_the_last_bin():
    assert boxes_to_bins([-5, -5, 700, 500], (640, 480)).tolist() == [0, 0, 999, 999]


@pytest.mark.parametrize(
    "box, bins",
    [
        ([0, 0, 3e38, 3e38], [0, 0, 999, 999]),
        ([-3e38, -3e38, 3e38, 40], [0, 0, 999, 799]),
        ([1e30, 1e30, 1e31, 1e31], [999] * 4),
    ],
)
def test_boxes_of_any_size_land_on_a_bin(box, bins):
    assert boxes_to_bins(box, (50, 50)).tolist() == bins


def test_bins_in_a_text_are_plain_numbers():
    assert text_to_bins(f"<bin_{'9' * 5000}> <bin_１> <bin_-1> <bin_1e3> <bin_7>") == [7]


def test_decoded_boxes_leave_the_image_unless_clipped():
    bins = [0, 0, 999, 999]
    assert bins_to_boxes(bins, (640, 480), 480, 512)[2] > 640
    assert bins_to_boxes(bins, (640, 480), 480, 512, clip=True).tolist() == [0, 0, 640, 480]


def test_bins_as_text_and_back():
    text = bins_to_text([12, 40, 300, 812])
    assert text == "<bin_12> <bin_40> <bin_300> <bin_812>"
    assert text_to_bins(text) == text_to_bins(text.replace(" ", "")) == [12, 40, 300, 812]


@pytest.mark.parametrize("box", [[30, 0, 10, 10], [0, 30, 10, 10], [float("nan"), 0, 1, 1]])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(ValueError, match="expected"):
        boxes_to_bins(box, (50, 50))


def test_box_column_is_read():
    assert parse_box("10.5,20.25,80.0,95.5") == [10.5, 20.25, 80.0, 95.5]


@pytest.mark.parametrize(
    "field",
    [
        "1,2,3",
        "1,2,3,4,5",
        "a dog",
        "nan,0,1,1",
        "0,0,inf,1",
        "",
        "0,0,1e39,1e39",
        "0,0,1e400,9",
        "1_0,0,20,20",
        "１,2,3,4",
        "0,0," + "9" * 5000 + ",1",
    ],
)
def test_a_box_that_is_not_four_numbers_is_refused_with_its_row(field):
    with pytest.raises(UserError, match="a.tsv:3: expects a box .* write four numbers"):
        parse_box(field, "a.tsv:3")


@pytest.mark.parametrize("field", ["10,0,5,5", "0,10,5,5", "4,0,4,9"])
def test_a_box_that_is_turned_round_or_empty_is_refused_with_its_row(field):
    with pytest.raises(UserError, match="a.tsv:3: expects a box .* turned round"):
        parse_box(field, "a.tsv:3")


@pytest.mark.parametrize(
    "box, all_inside",
    [
        ([0, 0, 50, 40], True),
        ([-0.5, 0, 50.9, 40], True),
        ([30, 10, 60, 40], False),
        ([-9, -9, 50, 40], False),
    ],
)
def test_a_box_may_reach_beyond_its_image(box, all_inside):
    assert check_inside(box, (50, 40), "a.tsv:3") == all_inside


@pytest.mark.parametrize(
    "box", [[60, 0, 90, 20], [30, 30, 80, 60], [-30, 0, -10, 20], [0, 0, 100, 40]]
)
def test_a_box_that_is_not_in_its_image_is_refused_with_its_row(box):
    with pytest.raises(
        UserError, match="a.tsv:3: expects a box inside the image of 50 x 40 pixels"
    ):
        check_inside(box, (50, 40), "a.tsv:3")


def test_boxes_are_clipped_to_the_image():
    assert clip_boxes([[-3, 2, 700, 481], [1, 2, 3, 4]], (640, 480)).tolist() == [
        [0, 2, 640, 480],
        [1, 2, 3, 4],
    ]


def test_overlap_is_the_shared_area_over_the_covered_one():
    same, half, apart, around = box_overlap(
        [[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10], [10, 0, 0, 10]], [[0, 0, 10, 10]] * 4
    ).tolist()
    assert same == pytest.approx(1) and half == pytest.approx(0.5) and apart == 0 and around == 0


def test_overlap_counts_grid_cells():
    """Against counting the unit squares that whole-number boxes cover."""
    corners = np.random.default_rng(3).integers(0, 12, (50, 2, 2, 2)).astype(float)
    boxes = np.sort(corners, axis=2)
    boxes[:, :, 1] += 1
    found, expected = boxes.reshape(50, 2, 4).transpose(1, 0, 2)
    for one, other, value in zip(found, expected, box_overlap(found, expected).tolist()):
        cells = [
            {(x, y) for x in range(int(b[0]), int(b[2])) for y in range(int(b[1]), int(b[3]))}
            for b in (one, other)
        ]
        assert value == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]), abs=1e-6)
