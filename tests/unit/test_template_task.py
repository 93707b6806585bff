"""What the kinds of a template mean: rows become samples, hypotheses predictions and scores."""

import pytest
import torch
from caption_files import make_vocabulary
from grounding_files import SIZE, encoded, scene

from ofa.data.collate import collate
from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.task.task_spec import BatchRow, Hypothesis
from ofa.tasks.template import UNBOUND, TemplateOptions
from ofa.tokens.bpe import load_language

SCENE, _, BOX = scene(0)
IMAGE = encoded(SCENE)
BOX_COLUMN = ",".join(map(str, BOX))
BINS = [f"<bin_{round(corner / side * 99)}>" for corner, side in zip(BOX, SIZE * 2, strict=True)]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    folder = make_vocabulary(tmp_path_factory.mktemp("vocabulary"))
    return load_language(folder, num_codes=16, num_bins=100)


def options_of(template: str, **more) -> TemplateOptions:
    return TemplateOptions(
        template=template, patch_image_size=64, max_image_size=64, num_bins=100, **more
    )


@pytest.fixture
def build(language):
    bpe, vocabulary = language

    def make(template: str, split: str = "train", **row):
        options = options_of(template)
        builder = SampleBuilder(UNBOUND.bound(options), options, vocabulary, bpe, split)
        return builder({"id": "7", **row}, 0, where="rows.tsv:5")

    return make


def ids(language, *parts: str) -> list[int]:
    """Tokens of texts and symbols between the start and the end."""
    bpe, vocabulary = language
    pieces = [part if part.startswith("<bin") else bpe.encode(part) for part in parts]
    return [vocabulary.bos, *vocabulary.ids(" ".join(pieces)), vocabulary.eos]


def test_slots_are_filled_in_and_the_target_is_learned(build, language):
    sample = build(
        "[image] how many [text:thing] are there? -> [text:count]",
        image=IMAGE,
        thing="red  cubes",
        count="3",
    )
    assert sample["source"].tolist() == ids(language, " how many red cubes are there?")
    assert sample["target"].tolist() == ids(language, " 3")[1:]
    assert sample["ref_dict"] == {"3": 1.0} and sample["patch_image"].shape == (3, 64, 64)


def test_without_an_image_a_row_is_a_text(build, language):
    sample = build("is [text] good? -> [text:answer]", text="it", answer="yes")
    assert (
        sample["source"].tolist() == ids(language, " is it good?") and "patch_image" not in sample
    )


def test_boxes_are_bins_in_the_source_and_the_target(build, language):
    row = {"image": IMAGE, "at": BOX_COLUMN, "answer": BOX_COLUMN}
    sample = build("[image] what is left of [box:at]? -> [box:answer]", **row)
    assert sample["source"].tolist() == ids(language, " what is left of", *BINS, "?")
    assert sample["target"].tolist() == ids(language, *BINS)[1:]
    assert sample["region_coord"].tolist() == list(map(float, BOX))


def test_objects_are_boxes_and_their_names(build, language):
    objects = f"{BOX_COLUMN},0,cube&&{BOX_COLUMN},1,red lake"
    sample = build("[image] [boxes] next? -> [boxes:all]", image=IMAGE, boxes=objects, all=objects)
    assert sample["source"].tolist() == ids(language, *BINS, " cube", *BINS, " red lake", " next?")
    assert sample["target"].tolist() == ids(language, *BINS, " cube", *BINS, " red lake")[1:]


def test_two_images_go_in_under_their_own_names(build):
    template = "[image:left] [image:right] the same? -> [text]"
    other = encoded(scene(1)[0])
    sample = build(template, left=IMAGE, right=other, text="no")
    assert not torch.equal(sample["patch_image"], sample["patch_image_2"])
    assert torch.equal(
        sample["patch_image_2"], build(template, left=other, right=IMAGE, text="no")["patch_image"]
    )


def test_choices_are_shown_and_the_label_is_learned_among_them(build, language):
    template = "[text:q] of [choices:options]? -> [label:answer]"
    sample = build(template, q="which", options="red&&blue&& red", answer="red")
    assert sample["source"].tolist() == ids(language, " which of red, blue?")
    assert sample["answers"].texts == ["red", "blue"]
    allowed = sample["constraint_mask"][0].nonzero().ravel().tolist()
    assert sorted(allowed) == sorted({ids(language, f" {word}")[1] for word in ("red", "blue")})
    batch = collate([sample, build(template, q="which", options="up&&down", answer="up")])
    assert [answers.texts for answers in batch["answers"]] == [["red", "blue"], ["up", "down"]]


@pytest.mark.parametrize(
    ("template", "row", "words"),
    [
        (
            "[text:a]? -> [text:b]",
            {"a": " ", "b": "x"},
            "expects text in the column 'a', found an empty",
        ),
        (
            "[text:a]? -> [text:b]",
            {"a": "x", "b": ""},
            "expects text in the column 'b', found an empty",
        ),
        ("[image] [box]? -> [text]", {"image": IMAGE, "box": "1,2", "text": "x"}, "expects a box"),
        ("[image] ? -> [boxes]", {"image": IMAGE, "boxes": "1,2,3,4"}, "expects objects"),
        ("[choices] -> [label]", {"choices": "a&&b", "label": "c"}, r"one of the choices \(a, b\)"),
    ],
)
def test_a_wrong_row_is_one_message_with_file_and_row(build, template, row, words):
    template = template.replace("[image] ?", "[image] [text:x]?")
    with pytest.raises(UserError, match=rf"^rows\.tsv:5: .*{words}"):
        build(template, **{"x": "x", **row})


def test_rows_of_evaluation_files_may_lack_the_target(build):
    for kind in ("text", "box", "boxes"):
        sample = build(f"[image] [text:a] -> [{kind}:b]", "test", image=IMAGE, a="x", b="")
        assert len(sample["target"]) == 1


def test_columns_have_the_kinds_of_the_slots():
    spec = UNBOUND.bound(
        options_of("[image:a] [image:b] [text:q] [choices:c] [box:d] -> [label:e]")
    )
    assert {column.name: column.kind for column in spec.columns} == {
        "id": "id",
        "a": "image",
        "b": "image",
        "q": "text",
        "c": "texts",
        "d": "box",
        "e": "text",
    }
    assert [column.name for column in spec.targets] == [
        "e"
    ] and spec.default_cols == "0,1,2,3,4,5,6"


def test_a_task_without_a_template_says_what_is_missing():
    with pytest.raises(UserError, match="--template: expected"):
        UNBOUND.bound(TemplateOptions())


def test_objects_are_found_in_a_hypothesis_and_scored_by_name_and_overlap():
    spec = UNBOUND.bound(options_of("[image] what is here, [text:hint]? -> [boxes]"))
    row = BatchRow(
        w_resize_ratio=64 / SIZE[0], h_resize_ratio=64 / SIZE[1], target_str=f"{BOX_COLUMN},0,cube"
    )
    text = f"{' '.join(BINS)} cube {' '.join(BINS)} lake <bin_1> <bin_2>"
    prediction = spec.prediction(Hypothesis(text, -0.5), row, options_of(""))
    assert [name for _, name in prediction.boxes] == ["cube", "lake"]
    assert spec.metrics.counts([prediction], [row]) == {
        "_box_right": 1,
        "_box_found": 2,
        "_box_true": 1,
    }
    references = spec.row_references({"boxes": row.target_str})
    assert spec.metrics.final_scores([prediction], [references]).overall["score"] == pytest.approx(
        2 / 3
    )
    entry = spec.result(3, prediction)
    assert entry["uniq_id"] == "3" and [one["name"] for one in entry["boxes"]] == ["cube", "lake"]


def test_a_set_of_answers_that_nothing_is_chosen_from_is_named(caplog):
    UNBOUND.bound(options_of("[text:a] -> [text:b]", ans2label_file="answers.json"))
    assert "--ans2label-file" in caplog.text
