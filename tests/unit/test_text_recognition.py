"""Text recognition: images in their square, texts as they are learned, compared and written,
rows that cannot be used."""

import base64
import io
import random
import re

import numpy as np
import pytest
from PIL import Image

from ofa.errors import UserError
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import RowContext
from ofa.task.text import learned_text, plain_text, written_text
from ofa.tasks.ocr import SPEC, OcrOptions, ReadingMetrics, edit_distance, fit_square


def gradient(width: int, height: int) -> Image.Image:
    """No two columns and no two rows alike."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=-1).astype(np.uint8)
    )


@pytest.mark.parametrize(
    "size, shape, inside",
    [
        ((200, 100), (128, 64), (0, 32)),
        ((130, 100), (128, 98), (0, 15)),
        ((100, 400), (64, 128), (32, 0)),
        ((50, 50), (128, 128), (0, 0)),
        ((1000, 10), (128, 64), (0, 32)),
    ],
)
def test_the_aspect_is_kept_and_the_edge_repeated(size, shape, inside):
    square = np.asarray(fit_square(gradient(*size), 128))
    left, top = inside
    assert square.shape == (128, 128, 3)
    body = square[top : top + shape[1], left : left + shape[0]]
    assert np.array_equal(body, np.asarray(gradient(*size).resize(shape, Image.Resampling.BICUBIC)))
    for side, edge in ((square[:top], body[:1]), (square[top + shape[1] :], body[-1:])):
        assert not side.size or top == 0 or (side == edge).all()
    assert (square[:, :left] == square[:, left : left + 1]).all()


def test_chance_moves_an_image_along_the_free_side_alone():
    places = set()
    for seed in range(40):
        square = np.asarray(fit_square(gradient(200, 100), 128, rng=random.Random(seed)))
        rows = np.flatnonzero((square[1:] != square[:-1]).any((1, 2)))
        places.add(rows[0])
        assert np.array_equal(square[:, :, 0], square[:1, :, 0].repeat(128, 0)), (
            "columns stay where they are"
        )
    assert len(places) > 15


@pytest.mark.parametrize("size", [480, 240])
def test_a_document_is_cut_into_four_lines(size):
    line = size * 64 // 480
    square = np.asarray(fit_square(gradient(4 * size, line), size, document=True)).astype(int)
    top = (size - 4 * line) // 2
    for quarter in range(4):
        part = square[top + quarter * line : top + (quarter + 1) * line]
        assert (
            np.abs(
                part[:, :, 0]
                - np.asarray(gradient(4 * size, line))[:, quarter * size : (quarter + 1) * size, 0]
            ).max()
            <= 1
        )


@pytest.mark.parametrize(
    "raw, plain",
    [
        ("ＳＴＯＰ sign", "stop sign"),
        ("開門時間ABC", "开门时间abc"),
        ("你好，世界", "你好,世界"),
        ("Ⅻ ﬁne ①", "xii fine 1"),
        ("50㎏", "50kg"),
        ("Café", "café"),
    ],
)
def test_characters_become_plain_ones(raw, plain):
    assert plain_text(raw) == plain


def test_texts_are_cut_by_words_and_in_chinese_by_characters():
    assert learned_text("  Open   Daily\u3000from nine ", 3, "en") == "open daily from"
    assert learned_text("開門時間ABC", 6, "zh") == "开门时间ab"
    assert learned_text(" ", 6, "zh") == learned_text("\u3000", 6, "en") == ""


def test_spaces_are_written_between_words_but_not_between_chinese_characters():
    assert (
        written_text("你 好, 世 界") == "你好,世界" and written_text("open daily") == "open daily"
    )


def test_edit_distance_is_a_part_of_the_longer_text_and_spaces_do_not_count():
    assert edit_distance("kitten", "sitting") == pytest.approx(3 / 7)
    assert (
        edit_distance("", "ab") == 1
        and edit_distance("", "") == 0
        and edit_distance("a b", "ab") == 0
    )
    assert edit_distance("你 好", "你好") == 0 < edit_distance("你", "你好")


def test_figures_come_from_sums():
    metrics = ReadingMetrics()
    predictions = [Prediction(text) for text in ("ab", "xb", "cd")]
    rows = [BatchRow(target=text) for text in ("ab", "ab", "cdef")]
    whole = metrics.counts(predictions, rows)
    assert whole == {
        "_acc_sum": 1,
        "_acc_cnt": 3,
        "_dist_sum": pytest.approx(0.5 + 0.5),
        "_dist_cnt": 3,
    }
    parts = [metrics.counts([one], [row]) for one, row in zip(predictions, rows)]
    summed = {name: sum(part[name] for part in parts) for name in whole}
    assert (
        [figure.value(summed) for figure in metrics.figures]
        == [0.3333, 0.6667]
        == [figure.value(whole) for figure in metrics.figures]
    )
    scores = metrics.final_scores(predictions, [[row.target] for row in rows])
    assert scores.overall == {
        "acc": pytest.approx(1 / 3),
        "ned": pytest.approx(2 / 3),
    } and scores.by_row["acc"] == [1.0, 0.0, 0.0]
    assert [figure.value(dict.fromkeys(whole, 0)) for figure in metrics.figures] == [0, 1]


def test_a_result_row_has_upstreams_keys():
    reading = SPEC.prediction(Hypothesis("营 业 时 间", -0.5), BatchRow(), OcrOptions())
    assert SPEC.result(7, reading) == {"image_id": "7", "ocr": "营业时间"} and reading.score == -0.5
    assert (
        SPEC.row_references({"text": "營業時間 ＡＢ"}) == ["营业时间 ab"]
        and SPEC.row_references({"text": " "}) == []
    )


def png(size=(40, 20)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "PNG")
    return file.getvalue()


def example(split: str, text: str = "Open", image: bytes | None = None, **options):
    from functools import partial

    from ofa.io.images import decode_image

    where = "ocr_train.tsv:5"
    context = RowContext(
        OcrOptions(patch_image_size=64, **options),
        split,
        "en",
        partial(decode_image, where=where),
        where,
        4,
        random.Random(3),
    )
    return SPEC.example(
        {"id": "4", "image": base64.b64encode(image or png()).decode(), "text": text}, context
    )


def test_only_training_places_images_by_chance():
    image = png((300, 100))
    in_training, again, elsewhere = (
        example(split, image=image, max_tgt_length=30).image
        for split in ("train", "train", "valid")
    )
    assert in_training.size == (64, 64) and in_training.tobytes() == again.tobytes()
    assert elsewhere.tobytes() == fit_square(Image.open(io.BytesIO(image)), 64).tobytes()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"text": " \u3000 "}, "expects the text on the image, found ' \\u3000 '"),
        ({"image": png()[:200]}, "found a truncated or damaged one"),
        (
            {"image": b"%PDF-1.7 a scanned page"},
            "found PDF, which is not read; export the image as JPEG or PNG",
        ),
    ],
    ids=["no text", "truncated", "a PDF"],
)
def test_a_row_that_cannot_be_used_is_one_message_with_file_and_row(change, words):
    with pytest.raises(UserError, match=re.escape("ocr_train.tsv:5: ") + ".*" + re.escape(words)):
        example("train", **change)


def test_an_evaluation_row_may_be_without_a_text():
    assert example("test", text="").target == ""
