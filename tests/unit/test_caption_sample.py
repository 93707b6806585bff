"""Rows of caption files become samples: texts of both stages, both languages, errors with file
and row."""

from dataclasses import replace

import pytest
from caption_files import caption, make_image, make_language, write_tsv

from ofa.data.sample import SampleBuilder, text_ids
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.metrics.caption_scores import split_references
from ofa.task.prediction import BatchRow
from ofa.task.task_spec import Symbols
from ofa.tasks.caption import SPEC, CaptionOptions


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return make_language(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture
def make_sample(language):
    def make(text: str, split: str = "train", **options):
        bpe, vocabulary = language
        options = CaptionOptions(patch_image_size=32, **options)
        builder = SampleBuilder(SPEC, options, vocabulary, bpe, split)
        row = {"id": "7_0", "image": make_image("red"), "caption": text}
        return builder(row, 0, where="rows.tsv:1"), bpe, vocabulary

    return make


def target_text(made) -> str:
    sample, bpe, vocabulary = made
    return bpe.decode(vocabulary.pieces(sample["target"])).strip()


def test_a_training_caption_loses_punctuation_and_then_its_last_words(make_sample):
    assert (
        target_text(make_sample("A red cube, on - a table.", max_tgt_length=4)) == "A red cube on"
    )


def test_an_evaluated_row_keeps_all_captions_at_full_length(make_sample):
    made = make_sample("A red  cube.&&There is a cube!", split="valid", max_tgt_length=1)
    assert target_text(made) == "A red cube&&There is a cube"
    assert split_references(BatchRow(target=target_text(made))) == ["A red cube", "There is a cube"]


def test_cider_optimization_keeps_all_captions_of_a_training_row(make_sample):
    assert (
        target_text(make_sample("A red cube.&&There is a cube", scst=True))
        == "A red cube&&There is a cube"
    )


def test_decoder_input_is_the_target_shifted_right(make_sample):
    sample, _, vocabulary = make_sample("A red cube")
    assert sample["prev_output_tokens"].tolist() == [
        vocabulary.bos,
        *sample["target"].tolist()[:-1],
    ]
    assert sample["target"][-1] == sample["source"][-1] == vocabulary.eos
    assert sample["patch_image"].shape == (3, 32, 32) and sample["patch_mask"].tolist() == [True]


def test_the_prompt_follows_the_language_of_the_vocabulary(make_sample, language):
    sample, bpe, vocabulary = make_sample("A red cube")
    assert vocabulary.pieces(sample["source"]) == bpe.encode(" what does the image describe?")

    class Chinese:
        kind = "bert"
        asked = []

        def encode(self, text):
            self.asked.append(text)
            return ""

    builder = SampleBuilder(
        SPEC, CaptionOptions(patch_image_size=32), vocabulary, Chinese(), "train"
    )
    builder({"id": "0", "image": make_image("red"), "caption": "一只猫"}, 0)
    assert Chinese.asked == ["图片描述了什么内容?", " 一只猫"]


@pytest.mark.parametrize("text", ("", "  ", "...!"))
def test_an_empty_training_caption_is_refused_with_file_and_row(make_sample, text):
    with pytest.raises(UserError, match=r"^rows\.tsv:1: .*at least one word.*remove the row"):
        make_sample(text)


def test_an_evaluated_row_may_have_no_caption_unless_a_reward_needs_it(make_sample):
    assert target_text(make_sample("", split="test")) == ""
    assert target_text(make_sample("", split="valid", eval_cider=True)) == ""
    with pytest.raises(UserError, match="rows.tsv:1"):
        make_sample("", split="valid", scst=True)


def test_an_empty_reference_beside_others_does_not_count():
    assert split_references(BatchRow(target="a cat&&")) == ["a cat"]
    assert split_references(BatchRow()) == [""]


def test_symbols_pass_by_the_bpe(language):
    bpe, vocabulary = language
    mixed = text_ids((" A red cube", Symbols("<bin_3> <code_5>")), vocabulary, bpe)
    assert mixed == [
        *text_ids(" A red cube", vocabulary, bpe),
        vocabulary.bins[3],
        vocabulary.codes[5],
    ]


def test_a_damaged_image_is_refused_with_file_and_row(tmp_path, language):
    bpe, vocabulary = language
    path = write_tsv(tmp_path / "rows.tsv", [caption(0), caption(1)])
    path.write_text(path.read_text().replace(make_image("green"), make_image("green")[:60]))
    file = TsvFile(path, "0,4,2")
    builder = SampleBuilder(SPEC, CaptionOptions(patch_image_size=32), vocabulary, bpe, "train")
    with pytest.raises(UserError, match=r"rows\.tsv:2"):
        builder(dict(zip(SPEC.column_names, file[1])), 1, where=file.where(1))


def test_random_choices_depend_on_seed_epoch_and_row_only(language):
    bpe, vocabulary = language
    drawn = []

    def draw(row, context):
        drawn.append(context.rng.random())
        return SPEC.example(row, context)

    row = {"id": "0", "image": make_image("red"), "caption": "A cube"}
    spec = replace(SPEC, example=draw)
    for seed, epoch, index in ((1, 1, 0), (1, 1, 0), (1, 2, 0), (2, 1, 0), (1, 1, 1)):
        SampleBuilder(spec, CaptionOptions(patch_image_size=32), vocabulary, bpe, "train", seed)(
            row, index, epoch
        )
    assert drawn[0] == drawn[1] and len(set(drawn)) == 4
