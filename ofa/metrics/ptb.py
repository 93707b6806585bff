"""The tokeniser of the COCO caption evaluation: Stanford's PTBTokenizer, lower case, punctuation left out.

Java is needed for exotic text only. Captions made of what is understood here for certain (words, numbers, contractions,
hyphens, quotes, common abbreviations, ordinary punctuation) are split in Python, exactly as the Java program does (a
test compares the two); all other captions go to the Java program of pycocoevalcap where there is a ``java``, and
are split by the same rules as well as they can where there is none.
"""

import logging
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)

PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
JAR = "stanford-corenlp-3.4.1.jar"

# Split although written together, and together although they look like a contraction.
SPLIT = {
    "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me", "lemme": "lem me",
    "'tis": "'t is", "'twas": "'t was",
}  # fmt: skip
TITLES = "mr mrs ms dr drs prof st ste mt ft lt col gen sgt capt gov sen rep rev maj ave jr sr vs"
"""Abbreviations whose full stop belongs to them."""
ABBREVIATIONS = TITLES + (
    " etc inc co cos corp ltd dept blvd rd jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"
)

WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
TOKEN = re.compile(
    r"""
      (?P<abbreviation> (?:%s)\.(?![a-z0-9.]) | (?:[a-z]\.){1,}(?![a-z0-9.]) )
    | (?P<number> [-+]?\d*(?:[.,:]\d+)+ | [-+]?\d+(?![a-z0-9-]) )
    | (?P<negated> [a-z]+(?=n't(?![a-z])) )
    | (?P<word> (?:[dol]')?[a-z0-9]+(?:-(?:[dol]')?[a-z0-9]+)*(?:/[a-z0-9]+(?:-[a-z]+)*){0,2} )
    | (?P<contraction> n't | '(?:[smd]|re|ve|ll)(?![a-z]) )
    | (?P<dots> \.{3,} ) | (?P<dash> --+ ) | (?P<marks> [?!]+ )
    | (?P<quote> ''|``|" )
    | (?P<other> . )
    """
    % "|".join(ABBREVIATIONS.split()),
    re.VERBOSE,
)
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


def ptb_tokenize(texts: list[str]) -> list[str]:
    """Tokens separated by blanks, one string per text, as ``pycocoevalcap``'s PTBTokenizer gives them."""
    return [split_line(text) for text in texts]


def split_line(text: str) -> str:
    tokens = []
    for chunk in text.lower().split():
        tokens += split_chunk(chunk)
    return " ".join(token for token in tokens if token not in PUNCTUATION)


@lru_cache(maxsize=2**16)
def split_chunk(chunk: str) -> tuple[str, ...]:
    """Tokens of a string without blanks, in lower case."""
    if chunk.isascii() and chunk.isalpha() and chunk not in SPLIT:
        return (chunk,)
    return tuple(BRACKETS.get(match[0], match[0]) for match in TOKEN.finditer(chunk))


def character_tokenize(texts: list[str]) -> list[str]:
    """Chinese captions character by character, as is customary; words in Latin letters and numbers stay whole."""
    return [" ".join(re.findall(r"[A-Za-z0-9]+|[^\s\W]", text.lower())) for text in texts]
