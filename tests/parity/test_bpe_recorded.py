"""Vocabulary and BPE equal upstream on the recorded texts, entry by entry.

The code is also covered, on small folders, by tests/unit/test_bpe.py, which always runs.
"""

import numpy as np
import pytest
from conftest import bpe_folder
from golden import load, load_json

from ofa.tokens.bpe import load_language

LANGUAGES = {"bpe_english": "gpt2", "bpe_chinese": "bert_cn"}


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request):
    return load_json(request.param), *load_language(bpe_folder(LANGUAGES[request.param]))


def test_size_and_named_entries_equal_the_recorded_ones(language):
    recorded, _, vocabulary = language
    assert len(vocabulary) == recorded["size"]
    assert {symbol: vocabulary.index(symbol) for symbol in recorded["index"]} == recorded["index"]
    assert {place: vocabulary.symbol(int(place)) for place in recorded["symbol_at"]} == recorded[
        "symbol_at"
    ]


def test_pieces_ids_and_decoded_text_equal_the_recorded_ones(language):
    recorded, bpe, vocabulary = language
    for row in recorded["rows"]:
        pieces = bpe.encode(row["text"])
        found = {
            "text": row["text"],
            "bpe": pieces,
            "ids": vocabulary.ids(pieces),
            "decoded": bpe.decode(pieces),
        }
        assert found == row


def test_symbols_in_texts_equal_the_recorded_ones(language):
    recorded, bpe, vocabulary = language
    for row in recorded.get("raw_symbols", ()):
        assert vocabulary.ids(row["text"]) == row["ids"]
    for row in recorded.get("decode_with_special", ()):
        assert vocabulary.pieces(row["ids"], drop=(vocabulary.bos, vocabulary.eos)) == row["string"]
        assert bpe.decode(row["string"]) == row["decoded"]


def test_chinese_prompts_have_the_recorded_ids():
    from ofa.data.sample import SampleBuilder, blank_image
    from ofa.tasks import caption, refcoco

    recorded = {row["text"]: row["ids"] for row in load_json("bpe_chinese")["rows"]}
    bpe, vocabulary = load_language(bpe_folder("bert_cn"))
    rows = {caption: {"caption": "一只猫坐在桌子上。"}, refcoco: {"text": "红色的车", "box": ""}}
    prompts = {caption: "图片描述了什么内容?", refcoco: '这段文字" 红色的车 "描述的是哪个区域？'}
    for task, row in rows.items():
        builder = SampleBuilder(
            task.SPEC, task.SPEC.options(patch_image_size=16), vocabulary, bpe, "test"
        )
        sample = builder({"id": "1", "image": "", **row}, 0, open_image=blank_image)
        assert sample["source"].tolist() == [
            vocabulary.bos,
            *recorded[prompts[task]],
            vocabulary.eos,
        ]
        if task is caption:
            assert sample["target"].tolist() == [*recorded["一只猫坐在桌子上。"], vocabulary.eos]


def test_what_the_chinese_vocabulary_does_not_know_is_one_entry():
    bpe, vocabulary = load_language(bpe_folder("bert_cn"))
    assert (
        vocabulary.ids(bpe.encode("狗😀")) == [vocabulary.index("狗"), 104]
        and vocabulary.index("[UNK]") == 104
    )


def test_beginnings_of_words_equal_the_recorded_mask():
    bpe, vocabulary = load_language(bpe_folder("gpt2"))
    found = [
        place in vocabulary.specials or bpe.is_beginning_of_word(s)
        for place, s in enumerate(vocabulary.symbols)
    ]
    np.testing.assert_array_equal(found, load("whole_word_mask")["mask_whole_word"].astype(bool))
