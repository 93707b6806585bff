"""The vocabulary: ranges, ids, dict.txt."""

import pickle

import pytest

from ofa.errors import UserError
from ofa.tokens.vocabulary import Vocabulary, read_dictionary


@pytest.fixture
def vocabulary():
    return Vocabulary(["13", "262", "▁red"], num_codes=4, num_bins=5)


def test_ranges_are_disjoint_and_cover_every_id_in_order(vocabulary):
    mask = range(vocabulary.mask, vocabulary.mask + 1)
    ids = [*vocabulary.specials, *vocabulary.text, *mask, *vocabulary.codes, *vocabulary.bins]
    assert ids == list(range(len(vocabulary))) and len(vocabulary) == 4 + 3 + 1 + 4 + 5


def test_named_entries_lie_in_their_ranges(vocabulary):
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)
    assert [vocabulary.index(s) for s in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert vocabulary.index("262") == vocabulary.text[1]
    assert vocabulary.symbol(vocabulary.mask) == "<mask>"
    assert vocabulary.index("<code_3>") == vocabulary.codes[3]
    assert vocabulary.index("<bin_4>") == vocabulary.bins[4]


def test_ids_and_pieces_are_inverse_and_drop_specials(vocabulary):
    pieces = "262 <bin_4> ▁red <code_0> <mask>"
    ids = vocabulary.ids(pieces)
    assert vocabulary.pieces([0, *ids, 2, 1]) == pieces
    assert vocabulary.pieces([0, *ids, 2, 1], drop=()) == f"<s> {pieces} </s> <pad>"


def test_unknown_symbols_become_unk_and_far_ids_unk_symbol(vocabulary):
    assert vocabulary.ids("13 nothing <bin_5>") == [4, 3, 3]
    assert vocabulary.symbol(len(vocabulary)) == "<unk>"


def test_ids_keep_pieces_that_hold_other_spaces():
    assert Vocabulary(["a\u00a0b"], 0, 0).ids("a\u00a0b") == [4]


def test_vocabulary_travels_to_workers(vocabulary):
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary


def test_dictionary_lines_may_overwrite_earlier_ones(tmp_path):
    (tmp_path / "dict.txt").write_text("a 5\r\nb c 4\na 3 #fairseq:overwrite\n", newline="")
    vocabulary = Vocabulary.from_folder(tmp_path, 0, 0)
    assert vocabulary.symbols[4:7] == ["a", "b c", "a"] and vocabulary.index("a") == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 5\nb\n", r"dict.txt:2: expected 'symbol count', found 'b'"),
        (b"a 5\nb 4\na 3\n", r"dict.txt:3: expected every symbol once, found 'a' again"),
        (b"<s> 5\n", r"dict.txt:1: expected every symbol once"),
        (b"", r"found an empty file"),
        (b"\xff 1\n", r"expected UTF-8"),
    ],
)
def test_broken_dictionaries_are_named_with_their_line(tmp_path, content, message):
    (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_dictionary(tmp_path / "dict.txt")


def test_missing_dictionary_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match="found no readable file.*ofa vocab build"):
        Vocabulary.from_folder(tmp_path)
