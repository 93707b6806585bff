"""The Python tokenizer against tokens recorded from Stanford's PTBTokenizer
(``ptb_captions.json``)."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from ofa.metrics import character_tokenize, ptb, ptb_tokenize

RECORDED = json.loads((Path(__file__).parent / "ptb_captions.json").read_text(encoding="utf-8"))
CERTAIN = [(text, tokens) for text, tokens in RECORDED if ptb.is_certain(text)]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs a java")


def test_captions_that_are_understood_for_certain_are_split_as_by_the_java_program():
    assert len(CERTAIN) > 60
    assert [ptb.split_line(text) for text, _ in CERTAIN] == [tokens for _, tokens in CERTAIN]


def test_most_other_captions_are_split_alike_without_java(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        found = ptb_tokenize([text for text, _ in RECORDED])
    same = sum(line == tokens for line, (_, tokens) in zip(found, RECORDED))
    assert same > 0.7 * len(RECORDED)
    assert f"of {len(RECORDED)} captions have unusual characters" in caplog.text


@needs_java
def test_all_captions_are_split_alike_with_java():
    assert ptb_tokenize([text for text, _ in RECORDED]) == [tokens for _, tokens in RECORDED]


def test_ordinary_captions_need_no_java(monkeypatch):
    monkeypatch.setattr(ptb, "java_tokenize", None)
    assert ptb_tokenize(
        ["A man's dog isn't here.", "", 'Two (big) cats, one 10-year-old "pet"!']
    ) == ["a man 's dog is n't here", "", "two -lrb- big -rrb- cats one 10-year-old pet"]


def test_chinese_captions_are_split_by_character():
    assert character_tokenize(["一只狗, iPhone 12 上。"]) == ["一 只 狗 iphone 12 上"]
