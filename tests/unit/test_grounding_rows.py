"""Rows of grounding files become samples, bins become boxes, boxes become figures and entries of
the result file."""

import json
import math

import pytest
import torch
from caption_files import make_vocabulary
from golden import load_json
from grounding_files import SIZE, encoded, scene

from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.task import box_rows
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.tasks.refcoco import SPEC, GroundingOptions
from ofa.tokens.bpe import load_language

IMAGE, TEXT, BOX = scene(0)
ROW = {"id": "7_1", "image": encoded(IMAGE), "text": TEXT, "box": ",".join(map(str, BOX))}
OPTIONS = GroundingOptions(patch_image_size=64, max_image_size=128, num_bins=100)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return load_language(
        make_vocabulary(tmp_path_factory.mktemp("vocabulary")), num_codes=16, num_bins=100
    )


@pytest.fixture
def make_sample(language):
    bpe, vocabulary = language

    def make(split: str = "train", options=OPTIONS, **columns):
        return SampleBuilder(SPEC, options, vocabulary, bpe, split)(
            ROW | columns, 0, where="rows.tsv:5"
        )

    return make


def test_the_target_is_four_bins_of_the_squashed_image(make_sample, language):
    _, vocabulary = language
    sample = make_sample()
    expected = [round(corner / side * 64 / 128 * 99) for corner, side in zip(BOX, SIZE * 2)]
    assert sample["target"].tolist() == [
        *(vocabulary.bins[number] for number in expected),
        vocabulary.eos,
    ]
    assert sample["patch_image"].shape == (3, 64, 64) and sample["region_coord"].tolist() == list(
        BOX
    )
    assert sample["w_resize_ratio"].item() == pytest.approx(64 / 48) and sample[
        "h_resize_ratio"
    ].item() == pytest.approx(64 / 36)


def test_prompts_of_both_languages(language):
    _, vocabulary = language

    class Listener:
        def __init__(self, kind):
            self.kind, self.heard = kind, []

        def encode(self, text):
            self.heard.append(text)
            return ""

    for kind, expected in (
        ("gpt2", ' which region does the text " man in red white " describe?'),
        ("bert", '这段文字" man in red white "描述的是哪个区域？'),
    ):
        bpe = Listener(kind)
        SampleBuilder(SPEC, OPTIONS, vocabulary, bpe, "train")(
            ROW | {"text": "?Man in Red/White"}, 0
        )
        assert bpe.heard == [expected]


def test_long_texts_are_cut_to_so_many_words(make_sample):
    short = GroundingOptions(patch_image_size=64, max_src_length=2)
    assert torch.equal(
        make_sample(options=short)["source"], make_sample(text="the red", options=short)["source"]
    )


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": "  "}, "expects a text that describes a region, found '  '"),
        ({"box": "1,2,3"}, "expects a box .* write four numbers"),
        ({"box": "a,2,3,4"}, "expects a box .* write four numbers"),
        ({"box": "20,5,10,15"}, "expects a box .* turned round"),
        (
            {"box": "100,100,120,120"},
            "expects a box inside the image of 48 x 36 pixels, found 100,100,120,120",
        ),
        ({"image": "abc"}, "expects "),
    ],
    ids=["no-text", "three-numbers", "a-word", "turned-round", "outside", "no-image"],
)
@pytest.mark.parametrize(("split", "scored"), [("train", False), ("valid", True)])
def test_a_wrong_row_is_one_message_with_file_and_row(make_sample, split, scored, columns, words):
    options = GroundingOptions(patch_image_size=64, eval_acc=scored)
    with pytest.raises(UserError, match=rf"^rows\.tsv:5: .*{words}"):
        make_sample(split, options, **columns)


def test_a_row_without_a_box_is_refused_in_training(make_sample):
    with pytest.raises(UserError, match=r"^rows\.tsv:5: .*expects a box .* write four numbers"):
        make_sample("train", GroundingOptions(patch_image_size=64), box="")


@pytest.mark.parametrize("split, scored", [("test", False), ("valid", True)])
def test_a_box_is_not_needed_where_it_is_not_learned(make_sample, language, split, scored):
    sample = make_sample(split, GroundingOptions(patch_image_size=64, eval_acc=scored), box="")
    assert (
        sample["target"].tolist() == [language[1].eos]
        and sample["region_coord"].tolist() == [0] * 4
    )
    assert SPEC.row_references(ROW | {"box": ""}) == []


def test_a_box_that_reaches_beyond_its_image_is_said_once_per_file(make_sample, caplog):
    box_rows.warn_of_overhang.cache_clear()
    for _ in range(3):
        sample = make_sample(box="10,10,60,30")
    assert caplog.text.count("rows.tsv: boxes reach beyond their images") == 1
    assert sample["region_coord"].tolist() == [10, 10, 60, 30]


def test_a_square_larger_than_the_bins_reach_is_refused(make_sample):
    with pytest.raises(UserError, match="--patch-image-size 640: expects at most --max-image-size"):
        make_sample(options=GroundingOptions(patch_image_size=640))


ROW_OF_BATCH = BatchRow(
    id="7_1", w_resize_ratio=64 / 48, h_resize_ratio=64 / 36, region_coord=(0.0, 0.0, 48.0, 36.0)
)


def predicted(*bins: int, score: float = -0.5) -> Prediction:
    symbols = " ".join(f"<bin_{number}>" for number in bins)
    return SPEC.prediction(
        Hypothesis(symbols.replace(" ", ""), score, symbols), ROW_OF_BATCH, OPTIONS
    )


def test_bins_become_pixels_of_the_image():
    prediction = predicted(0, 10, 25, 49)
    assert prediction.bins == (0, 10, 25, 49) and prediction.score == -0.5
    assert prediction.decoded_box is None
    assert prediction.box == pytest.approx(
        (0, 10 / 99 * 128 * 36 / 64, 25 / 99 * 128 * 48 / 64, 49 / 99 * 128 * 36 / 64), abs=1e-3
    )


def test_boxes_are_clipped_in_the_result_and_scored_as_upstream_scores_them():
    """Bin 99 is 128 pixels of a square of 64: twice the image."""
    prediction = predicted(0, 0, 99, 99)
    assert prediction.box == (0, 0, 48, 36) and prediction.decoded_box == pytest.approx(
        (0, 0, 96, 72)
    )
    scores = SPEC.metrics.final_scores([prediction], [[0.0, 0.0, 48.0, 36.0]], None)
    assert scores.overall["IoU"] == pytest.approx(0.25) and scores.overall["score"] == 0


def test_what_is_no_box_becomes_an_empty_one():
    for symbols in ("", "<bin_1> <bin_2> <bin_3>", "64 2266"):
        prediction = SPEC.prediction(Hypothesis("red", -1.0, symbols), ROW_OF_BATCH, OPTIONS)
        assert prediction.box == (0, 0, 0, 0) and prediction.bins is None
        assert (
            SPEC.metrics.final_scores([prediction], [[0.0, 0.0, 9.0, 9.0]], None).overall["score"]
            == 0
        )
        json.dumps(SPEC.result("1", prediction))


def test_an_entry_has_upstreams_keys_and_what_is_known_besides():
    prediction = predicted(0, 0, 49, 49)
    prediction.others = [predicted(0, 0, 20, 20, score=-2.0)]
    entry = json.loads(json.dumps(SPEC.result("7_1", prediction)))
    assert list(entry)[:2] == ["uniq_id", "box"] and entry["uniq_id"] == "7_1"
    assert entry["box"] == pytest.approx([0, 0, 47.515, 35.636], abs=1e-3)
    assert entry["score"] == -0.5 and entry["bins"] == [0, 0, 49, 49] and "decoded_box" not in entry
    assert [set(other) for other in entry["others"]] == [{"box", "score", "bins"}] and entry[
        "others"
    ][0]["score"] == -2.0
    assert SPEC.result("1", predicted(0, 0, 99, 49))["decoded_box"][2] == pytest.approx(96)


def test_counts_of_batches_add_up_to_the_accuracy():
    scorer = SPEC.metrics.make_scorer(OPTIONS, lambda: [])
    hit, miss = predicted(0, 0, 49, 49), predicted(0, 0, 20, 20)
    counts = scorer([hit, miss, hit], [ROW_OF_BATCH] * 3)
    assert counts == {"_score_sum": 2.0, "_score_cnt": 3}
    (metric,) = SPEC.metrics.figures
    assert metric.value(counts) == 0.6667 and metric.value({"_score_sum": 0, "_score_cnt": 0}) == 0


def test_summed_counts_become_the_recorded_accuracy():
    recorded = load_json("metrics_reduce")["tasks"]["refcoco"]
    (metric,) = SPEC.metrics.figures
    counts = {
        name: math.fsum(log[name] for log in recorded["logging_outputs"]) for name in metric.counts
    }
    assert metric.value(counts) == recorded["reduced"][metric.name]
