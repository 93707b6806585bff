"""The three kinds of BPE on small folders of their own."""

import pickle
import shutil

import pytest
from small_bpe import (
    MAKERS,
    WORDPIECES,
    make_bert_folder,
    make_gpt2_folder,
    make_sentencepiece_folder,
)

from ofa.errors import UserError
from ofa.tokens.bpe import load_bpe, load_language

SYMBOLS = "<bin_3> <code_7> <mask>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("bpe")
    return {kind: make(base / kind) for kind, make in MAKERS.items()}


@pytest.mark.parametrize("kind", MAKERS)
def test_kind_is_recognized_from_the_folder(folders, kind):
    assert load_bpe(folders[kind]).kind == load_bpe(folders[kind], kind).kind == kind


@pytest.mark.parametrize("kind", MAKERS)
def test_bpe_travels_to_workers(folders, kind):
    bpe = load_bpe(folders[kind])
    assert pickle.loads(pickle.dumps(bpe)).encode(" the red ball") == bpe.encode(" the red ball")


@pytest.mark.parametrize("kind", MAKERS)
def test_text_and_symbols_stay_apart(folders, kind):
    bpe, vocabulary = load_language(folders[kind], num_codes=16, num_bins=16)
    ids = vocabulary.ids(f"{SYMBOLS} {bpe.encode(' red')}")
    assert vocabulary.unk not in ids
    decoded = bpe.decode(vocabulary.pieces(ids))
    assert decoded.replace(" ", "") == SYMBOLS.replace(" ", "") + "red"


@pytest.mark.parametrize("kind", ["gpt2", "sentencepiece"])
@pytest.mark.parametrize(
    "text",
    [
        "a red ball",
        " the red ball.",
        "  two  spaces  ",
        "naïve 東京 🔥\tx\ny",
        "",
        "<s> <bin_3> <0x41>",
    ],
)
def test_every_text_comes_back_whole_and_nothing_is_unknown(folders, kind, text):
    bpe, vocabulary = load_language(folders[kind])
    ids = vocabulary.ids(bpe.encode(text))
    assert vocabulary.unk not in ids
    assert bpe.decode(vocabulary.pieces(ids)) == text


def test_gpt2_pieces_are_numbers_of_the_encoder(folders):
    bpe = load_bpe(folders["gpt2"])
    pieces = bpe.encode(" red the")
    assert [bpe.decode(piece) for piece in pieces.split()] == [" red", " ", "the"]


def test_gpt2_filler_entries_stand_for_no_text(folders):
    assert load_bpe(folders["gpt2"]).decode("madeupword0000 <unk>") == "<unk>"


def test_gpt2_refuses_pieces_of_another_vocabulary(folders):
    with pytest.raises(UserError, match="pieces are numbers"):
        load_bpe(folders["gpt2"]).decode("▁red")


def test_bert_pieces_are_lower_case_and_joined_without_their_marks(folders):
    bpe = load_bpe(folders["bert"])
    assert bpe.encode("RED Balls 图片?") == "red ball ##s 图 片 ?"
    assert bpe.decode("red ball ##s 图 片 ?") == "red balls 图 片?"
    assert bpe.encode("zebra [MASK]") == "[UNK] [MASK]"


def test_bert_decoding_closes_up_punctuation(folders):
    assert load_bpe(folders["bert"]).decode("don ' t . red ?") == "don't. red?"


def test_beginning_of_word_of_each_kind(folders):
    gpt2, bert, own = (load_bpe(folders[kind]) for kind in ("gpt2", "bert", "sentencepiece"))
    assert [gpt2.is_beginning_of_word(piece) for piece in gpt2.encode(" redthe").split()] == [
        True,
        False,
    ]
    assert gpt2.is_beginning_of_word("madeupword0000") and not gpt2.is_beginning_of_word("<mask>")
    assert bert.is_beginning_of_word("ball") and not bert.is_beginning_of_word("##s")
    assert own.is_beginning_of_word("▁red") and not own.is_beginning_of_word("ed")


def test_wrong_kind_names_the_right_one(folders):
    with pytest.raises(UserError, match="this folder is BERT-style: use --bpe bert"):
        load_bpe(folders["bert"], "gpt2")


def test_unknown_kind_lists_the_known_ones(folders):
    with pytest.raises(UserError, match="--bpe wordy: expected one of gpt2, bert, sentencepiece"):
        load_bpe(folders["bert"], "wordy")


def test_missing_folder_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="found nothing.*ofa vocab"):
        load_bpe(tmp_path / "none")


def test_folder_without_bpe_files_says_what_was_found(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="found notes.txt"):
        load_bpe(tmp_path)


@pytest.mark.parametrize("kind", [None, "gpt2"])
def test_half_a_folder_names_the_missing_file(tmp_path, kind):
    make_gpt2_folder(tmp_path)
    (tmp_path / "vocab.bpe").unlink()
    with pytest.raises(
        UserError, match="a gpt2 folder needs encoder.json and vocab.bpe, vocab.bpe is missing"
    ):
        load_bpe(tmp_path, kind)


def test_folder_of_two_kinds_asks_for_a_choice(tmp_path):
    make_bert_folder(tmp_path)
    make_gpt2_folder(tmp_path)
    with pytest.raises(UserError, match="several kinds.*choose one with --bpe"):
        load_bpe(tmp_path)
    assert load_bpe(tmp_path, "bert").kind == "bert"


@pytest.mark.parametrize(
    ("kind", "name"), [("gpt2", "encoder.json"), ("sentencepiece", "sentencepiece.model")]
)
def test_broken_files_are_a_clear_error(tmp_path, kind, name):
    MAKERS[kind](tmp_path)
    (tmp_path / name).write_bytes(b"{broken")
    with pytest.raises(UserError, match=f"expected readable {kind} files"):
        load_bpe(tmp_path)


def test_bert_file_without_unknown_entry_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDPIECES[2:]))
    with pytest.raises(UserError, match="expected an entry"):
        load_bpe(tmp_path)


def test_two_models_in_a_folder_are_refused(tmp_path):
    make_sentencepiece_folder(tmp_path)
    shutil.copy(tmp_path / "sentencepiece.model", tmp_path / "other.model")
    with pytest.raises(UserError, match="expected one"):
        load_bpe(tmp_path)


def test_dictionary_of_another_bpe_is_refused(folders, tmp_path):
    make_gpt2_folder(tmp_path)
    shutil.copy(folders["bert"] / "dict.txt", tmp_path / "dict.txt")
    with pytest.raises(UserError, match="dict.txt: expected the pieces of the gpt2 BPE"):
        load_language(tmp_path)
