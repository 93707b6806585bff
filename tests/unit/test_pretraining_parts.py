"""Orders without lists, weights as texts, wrong captions and answers, boxes of cut images."""

import json
import random
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ofa.data.bad_rows import BadRows
from ofa.data.cuts import enlarged, flipped, jittered, square_around, visible
from ofa.data.images import OFA_MEAN, OFA_STD, normalized, pixels_of
from ofa.data.negatives import NegativeSampler
from ofa.data.pretraining import RandomStreams, TrainingImages
from ofa.data.rows import shuffled
from ofa.errors import UserError
from ofa.task.pretraining_tasks import TASKS, PretrainingOptions, parse_weights, whole_times


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_shuffled_order_has_every_number_once(size):
    orders = [[shuffled(place, size, key) for place in range(size)] for key in ("a", "b")]
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert size < 10 or orders[0] != orders[1] != list(range(size))


def test_weights_are_understood_as_text_and_as_json():
    expected = {**dict.fromkeys(TASKS, 1.0), "qa": 2.0, "detection": 0.0}
    assert (
        parse_weights("qa=2, detection=0") == parse_weights('{"qa": 2, "detection": 0}') == expected
    )
    assert parse_weights(None) == dict.fromkeys(TASKS, 1.0)


def test_a_weight_so_small_that_rows_are_read_in_vain_is_refused():
    assert parse_weights("qa=0.001")["qa"] == 0.001
    with pytest.raises(UserError, match="a weight is 0 or 0.001 and more, found qa=1e-9"):
        parse_weights("qa=1e-9")


def test_a_weight_is_its_mean_number_of_samples():
    rng = random.Random(1)
    assert sum(whole_times(1.3, rng) for _ in range(4000)) / 4000 == pytest.approx(1.3, abs=0.03)
    assert whole_times(2.0, None) == 2  # nothing is drawn


def draws(folder, captions: str, objects: str, answers: dict) -> NegativeSampler:
    (folder / "all_captions.txt").write_text(captions)
    (folder / "object.txt").write_text(objects)
    (folder / "type2ans.json").write_text(json.dumps(answers))
    return NegativeSampler(folder)


def test_what_fits_is_never_a_negative_where_there_is_another(tmp_path):
    negatives = draws(
        tmp_path, "a cat\na dog\n", "cat\ndog\n", {"how many": ["0", "1"], "other": ["yes", "no"]}
    )
    rng = random.Random(3)
    for _ in range(200):
        assert negatives.caption("a cat", ["cat"], rng) == "a dog"
        # the object is not in the caption
        assert negatives.caption("a dog", ["bird"], rng) == "a cat"
        assert negatives.answer("yes", 1.0, rng) == "no"
        assert (
            negatives.answer("0", 1.0, rng) in ("1", "yes", "no")
            and negatives.answer("1", 1.0, rng) != "1"
        )


def test_negative_files_that_are_empty_or_no_json_say_so_when_they_are_needed(tmp_path):
    negatives = draws(tmp_path, "", "", {"other": []})  # as of data without captions and questions
    with pytest.raises(UserError, match="type2ans.json: expects answers of the kind 'other'"):
        negatives.answer("yes", 0.5, random.Random(1))
    with pytest.raises(UserError, match="all_captions.txt: expected rows .*, found an empty file"):
        negatives.caption("a cat", [], random.Random(1))
    (tmp_path / "type2ans.json").write_text("color: red")
    with pytest.raises(UserError, match="type2ans.json: expected JSON .*ofa negatives build"):
        NegativeSampler(tmp_path)


def marked(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A black image with a white box."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), box)
    return image


def assert_box_is_white(image: Image.Image, box: torch.Tensor) -> None:
    """Inside of the box, three pixels from its edges, and outside of it."""
    x0, y0, x1, y1 = (int(round(float(number))) for number in box)
    inside = image.crop((x0 + 3, y0 + 3, x1 - 3, y1 - 3)).convert("L").getextrema()
    assert inside[0] > 250
    total = torch.tensor(list(image.convert("L").getdata())).gt(127).sum().item()
    assert total == pytest.approx((x1 - x0) * (y1 - y0), abs=3 * (x1 - x0 + y1 - y0))


def test_boxes_stay_on_their_objects():
    box = (60, 40, 90, 80)
    image, boxes = marked((160, 120), box), torch.tensor([box], dtype=torch.float32)
    for cut in (
        flipped(image, boxes),
        square_around(image, boxes[0], 100),
        jittered(image, boxes, 64, torch.Generator().manual_seed(4)),
    ):
        found = cut[1].view(-1, 4)
        assert visible(found) == [0]
        assert_box_is_white(cut[0], found[0])


def test_boxes_outside_of_a_cut_are_not_visible():
    assert visible(torch.tensor([[0.0, 0, 0, 5], [1, 1, 2, 2], [3, 3, 9, 3]])) == [1]


def test_an_enlarged_image_keeps_its_form_up_to_the_longest_side():
    assert enlarged(Image.new("RGB", (40, 30)), [60], 200, random.Random(1)).size == (80, 60)
    assert enlarged(Image.new("RGB", (30, 120)), [60], 200, random.Random(1)).size == (60, 200)


def test_broken_rows_count_once_and_no_more_than_allowed():
    rows, error = BadRows(2), UserError("a.tsv:1: broken")
    for row in (5, 5, 7, 5):
        rows.skip(f"a.tsv:{row}", error)
    with pytest.raises(
        UserError, match="a.tsv:1: broken; this is broken row 3, and --skip-bad-rows 2 skips 2"
    ):
        rows.skip("b.tsv:5", error)
    with pytest.raises(UserError, match="^a.tsv:1: broken$"):
        BadRows(0).skip("a.tsv:1", error)


def test_broken_rows_of_all_processes_count_together():
    ranks, error = [BadRows(2), BadRows(2)], UserError("broken")
    for rank, row in ((0, 1), (0, 2), (1, 2)):
        ranks[rank].skip(f"a.tsv:{row}", error)
    for rows in ranks:
        rows.add(name for other in ranks for name in other.names())
    assert sorted(ranks[0].names()) == sorted(ranks[1].names()) and len(ranks[0].names()) == 2
    with pytest.raises(UserError, match="broken row 3, and --skip-bad-rows 2"):
        ranks[1].skip("a.tsv:3", error)
    other = BadRows(2)
    other.skip("b.tsv:1", error)
    with pytest.raises(
        UserError, match="together met 3 broken rows, named above, and --skip-bad-rows 2"
    ):
        other.add(ranks[0].names())


def test_a_run_that_goes_on_remembers_its_broken_rows():
    first, error = BadRows(2), UserError("a.tsv:5: broken")
    first.skip("a.tsv:5", error)
    for limit in (1, 2):
        resumed = BadRows(limit)
        resumed.restore(first.names())
        resumed.skip("a.tsv:5", error)
        assert resumed.names() == first.names()
    with pytest.raises(UserError, match="broken row 2, and --skip-bad-rows 1"):
        another = BadRows(1)
        another.restore(first.names())
        another.skip("a.tsv:6", error)
    BadRows(0).restore(first.names())  # the files were fixed: no row may be broken any more


def sender(options: PretrainingOptions) -> SimpleNamespace:
    """What readers of images need of a builder."""
    statistics = torch.tensor([OFA_MEAN, OFA_STD])
    return SimpleNamespace(
        options=options,
        statistics=statistics,
        sent=lambda square: normalized(pixels_of(square), statistics),
    )


def test_plain_images_are_cut_but_not_changed_otherwise():
    colors = torch.randint(
        0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    ).numpy()
    whole, box = Image.fromarray(colors), [4.0, 4.0, 20.0, 20.0]
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 127.5 - 1
    unchanged = {}
    for plain in (True, False):
        options = PretrainingOptions(
            patch_image_size=32, max_resize=32, max_image_size=32, plain_images=plain
        )
        builder = sender(options)
        readers = [
            TrainingImages(builder, RandomStreams.of(f"row {number}")) for number in range(8)
        ]
        unchanged[plain] = [
            torch.allclose(reader.full_view(whole), expected, atol=1e-5) for reader in readers
        ]
        assert all(
            torch.allclose(reader.crop_around_box(whole, box)[0], expected, atol=1e-5)
            for reader in readers
        ), "those of boxes always are"
    assert all(unchanged[True]) and not all(unchanged[False])
    larger = sender(PretrainingOptions(patch_image_size=16, max_resize=32, plain_images=True))
    assert TrainingImages(larger, RandomStreams.of("a row")).full_view(whole).shape == (3, 16, 16)
