"""Questions about a region, and free instructions: how their rows become samples."""

import json

import pytest
import torch
from caption_files import make_vocabulary
from grounding_files import SIZE, encoded, scene

from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.task.prediction import BatchRow, Hypothesis
from ofa.tasks.grounded_qa import SPEC, GroundedQaOptions
from ofa.tasks.instruction import SPEC as INSTRUCTION
from ofa.tasks.instruction import InstructionOptions, with_symbols
from ofa.tokens.bpe import load_language

IMAGE, _, BOX = scene(0)
ROW = {
    "id": "7",
    "image": encoded(IMAGE),
    "question": "What COLOR is it?",
    "box": ",".join(map(str, BOX)),
    "answers": "1.0|!+red",
}
OPTIONS = GroundedQaOptions(
    patch_image_size=64, max_image_size=64, num_bins=100, ans2label_dict='{"red": 0, "blue": 1}'
)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return load_language(
        make_vocabulary(tmp_path_factory.mktemp("vocabulary")), num_codes=16, num_bins=100
    )


@pytest.fixture
def build(language):
    bpe, vocabulary = language

    def make(spec, options, row, split="train"):
        return SampleBuilder(spec, options, vocabulary, bpe, split)(row, 0, where="rows.tsv:5")

    return make


def ids(language, text: str, *symbols: str) -> list[int]:
    bpe, vocabulary = language
    return vocabulary.ids(" ".join([bpe.encode(text), *symbols]))


def test_the_question_names_its_region_by_four_bins(build, language):
    sample = build(SPEC, OPTIONS, ROW)
    bins = [f"<bin_{round(corner / side * 99)}>" for corner, side in zip(BOX, SIZE * 2)]
    asked = [*ids(language, " what color is it?"), *ids(language, " region:", *bins)]
    vocabulary = language[1]
    assert sample["source"].tolist() == [vocabulary.bos, *asked, vocabulary.eos]
    assert sample["target"].tolist()[-1] == vocabulary.eos and sample["ref_dict"] == {"red": 1.0}
    assert sample["prefix_tokens"].tolist() == asked, "the decoder is given the region as well"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("box", "1,2,3", "expects a box"),
        ("box", "90,90,99,99", "expects a box inside"),
        ("answers", "", "expects answers"),
        ("image", "", "expects an image"),
    ],
)
def test_a_wrong_row_is_one_message_with_file_and_row(build, column, value, words):
    with pytest.raises(UserError, match=rf"^rows\.tsv:5: .*{words}"):
        build(SPEC, OPTIONS, ROW | {column: value})


def test_objects_need_their_column(build):
    options = GroundedQaOptions(patch_image_size=64, num_bins=100, add_object=True)
    with pytest.raises(
        UserError,
        match="rows.tsv:5: task 'grounded_qa' expects a sixth column with objects for --add-object",
    ):
        build(SPEC, options, ROW)
    assert len(
        build(SPEC, options, ROW | {"objects": "cube&&lake", "answers": "1.0|!+yes"})["source"]
    ) > len(
        build(
            SPEC,
            GroundedQaOptions(patch_image_size=64, num_bins=100),
            ROW | {"answers": "1.0|!+yes"},
        )["source"]
    )


def test_a_page_shows_the_region_that_was_asked_about():
    shown = SPEC.shown(
        ROW, SPEC.prediction(Hypothesis(" red", -0.1), BatchRow(), OPTIONS), {"red": 1.0}
    )
    assert (
        shown.boxes == [("asked about", list(map(float, BOX)))]
        and shown.answer == "red"
        and shown.question == ROW["question"]
    )


def test_symbols_of_an_instruction_stand_for_themselves(build, language):
    row = {
        "id": "1",
        "image": ROW["image"],
        "instruction": "what is it? region: <bin_1><bin_2> <bin_3> <bin_4>",
        "answer": "a <bin_9>",
    }
    sample = build(INSTRUCTION, InstructionOptions(patch_image_size=64), row)
    asked = ids(language, " what is it? region:", "<bin_1>", "<bin_2>", "<bin_3>", "<bin_4>")
    assert sample["source"].tolist()[1:-1] == asked
    assert sample["target"].tolist()[:-1] == ids(language, " a", "<bin_9>")
    assert with_symbols("") == []


def test_an_answer_of_four_bins_is_a_box():
    options = InstructionOptions(patch_image_size=64, max_image_size=64, num_bins=100)
    row = BatchRow(w_resize_ratio=64 / 48, h_resize_ratio=64 / 36)
    symbols = "<bin_0> <bin_0> <bin_99> <bin_99>"
    found = INSTRUCTION.prediction(Hypothesis(symbols, -1.0, symbols), row, options)
    assert found.box == pytest.approx((0, 0, 48, 36)) and INSTRUCTION.result("1", found)[
        "box"
    ] == list(found.box)
    words = INSTRUCTION.prediction(Hypothesis(" a cat", -1.0, "64 2266"), row, options)
    assert (
        words.box is None
        and json.loads(json.dumps(INSTRUCTION.result("1", words)))["answer"] == "a cat"
    )


def test_an_instruction_is_needed_and_an_answer_if_it_is_learned(build):
    row = {"id": "1", "image": ROW["image"], "instruction": "look", "answer": ""}
    with pytest.raises(UserError, match="rows.tsv:5: task 'instruction' expects an answer"):
        build(INSTRUCTION, InstructionOptions(patch_image_size=64), row)
    sample = build(INSTRUCTION, InstructionOptions(patch_image_size=64), row, "test")
    assert torch.equal(sample["target"], torch.tensor([2]))
    with pytest.raises(UserError, match="expects an instruction"):
        build(
            INSTRUCTION, InstructionOptions(patch_image_size=64), row | {"instruction": " "}, "test"
        )
