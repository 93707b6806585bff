"""The tokenizer of the COCO caption evaluation: Stanford's PTBTokenizer, lower case, punctuation
left out. Captions of what is understood here for certain (words, numbers, contractions, usual
marks) are split in Python, exactly as the Java program does (a test compares the two); all others
go to the Java program of pycocoevalcap if there is a ``java``, else they are split as well.
"""

import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ofa.errors import UserError

logger = logging.getLogger(__name__)

PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
JAR = "stanford-corenlp-3.4.1.jar"

# Split although written together.
TORN = ("can not", "gon na", "got ta", "wan na", "gim me", "lem me", "'t is", "'t was")
SPLIT = {parts.replace(" ", ""): parts.split() for parts in TORN}
# Their full stop belongs to them, as it does to single letters and to u.s., a.m. (found by trying
# 45 000 words).
ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig
    bros calif capt cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec
    ens esq est etc ext feb fla fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun
    kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr mrs ms mt mtg
    natl neb nev nov oct okla penn pfc ph plc pres prof profs pte ptes pty ptys pvt rd rep reps rev
    rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu thurs treas tue
    tues univ va vs vt wed wis wisc wm wyo
"""
# These only before a number, as in "no. 5".
BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split()))
SIGNS = dict(zip('"“”‘’–—…½¼€£¢', "'' `` '' ` ' -- -- ... 1/2 1/4 $ # cents".split()))
PARTS = re.compile(
    rf"""
      (?:{"|".join(ABBREVIATIONS.split())})\.(?![a-z0-9])
    | (?:[a-z]\.)+(?![a-z0-9]) | [a-z](?:\.[a-z])+(?![a-z0-9])
    | [-+]?\d*(?:[.,:]\d+)+ | [-+]?\d+(?![a-z0-9/-])
    | n't(?![a-z0-9]) | '(?:[smd]|re|ve|ll)(?![a-z0-9])
    | [a-z]*[a-mo-z](?=n't(?![a-z0-9]))
    | o'clock | rock(?='n') | 'n' | (?:[dol]')?\w+(?:-(?:[dol]')?\w+)*(?:/\w+(?:-\w+)*)*
    | \.{{3,}} | --+ | [?!]+ | ''|`` | .
    """,
    re.VERBOSE,
)
# Understood for certain. Parts of the pattern: opening mark, word, closing marks.
CERTAIN = re.compile(
    rf"""(?! (?:{"|".join(BEFORE_NUMBERS.split())})\. ) ["(]? (?:
        [a-z]+(?:-[a-z]+)*(?:'(?:[smd]|re|ve|ll))? | [a-z]{{2,}}s' | [a-z]*[a-mo-z]n't
      | [a-z]+/[a-z]+ | o'clock | \d{{1,4}}(?:-[a-z]+)+ | \d+(?:st|nd|rd|th) | \d+
      | \d{{1,3}}(?:,\d{{3}})+ | \d+\.\d+ | \d{{1,2}}:\d\d
    )? [")]? (?: (?:[.,]|[!?]+|\.\.\.) [")]? | [;:] )? | --? | (?:[ap]\.m|u\.s)\.,?""",
    re.VERBOSE,
)


def ptb_tokenize(texts: list[str]) -> list[str]:
    """Tokens separated by spaces, one string per text, as pycocoevalcap's PTBTokenizer gives them.
    With Java the result is the same; without it the tokens of exotic texts may differ, and a
    warning says how many."""
    exotic = [row for row, text in enumerate(texts) if not is_certain(text)]
    tokens = [split_line(text) for text in texts]
    if exotic and shutil.which("java"):
        for row, line in zip(exotic, java_tokenize([texts[row] for row in exotic])):
            tokens[row] = line
    elif exotic:
        logger.warning(
            "%d of %d captions have unusual characters or words, e.g. %r: without Java their tokens"
            " may differ a little from those of upstream's tokenizer",
            len(exotic),
            len(texts),
            texts[exotic[0]],
        )
    return tokens


def is_certain(text: str) -> bool:
    plain = text.isascii() and text.isprintable()
    return plain and all(map(_is_certain, text.lower().split(" ")))


@lru_cache(maxsize=2**16)
def _is_certain(chunk: str) -> bool:
    return CERTAIN.fullmatch(chunk) is not None


def split_line(text: str) -> str:
    tokens = (token for chunk in text.lower().split() for token in split_chunk(chunk))
    return without_punctuation(tokens)


def without_punctuation(tokens: Iterable[str]) -> str:
    return " ".join(token for token in tokens if token not in PUNCTUATION)


@lru_cache(maxsize=2**16)
def split_chunk(chunk: str) -> tuple[str, ...]:
    """Tokens of a string without spaces, in lower case."""
    parts: list[str] = []
    for part in PARTS.findall(chunk):
        parts += SPLIT.get(part, [BRACKETS.get(part, SIGNS.get(part, part))])
    return tuple(parts)


def java_tokenize(texts: list[str]) -> list[str]:
    """The same by the Java program: half a second to start, then about 20 000 captions a second."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / JAR
    program, flags = "edu.stanford.nlp.process.PTBTokenizer", ("-preserveLines", "-lowerCase")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(" ".join(text.split()) + "\n" for text in texts)
        file.flush()
        done = subprocess.run(
            ["java", "-cp", str(jar), program, *flags, file.name],
            capture_output=True,
            encoding="utf-8",
        )
    lines = done.stdout.split("\n")
    if done.returncode or len(lines) < len(texts):
        raise UserError(f"the Java tokenizer failed: {done.stderr.strip() or 'too few lines'}")
    return [without_punctuation(line.rstrip().split(" ")) for line in lines[: len(texts)]]


def character_tokenize(texts: list[str], marks: bool = False) -> list[str]:
    """Chinese captions character by character, as is customary; words in Latin letters and numbers
    stay whole. Args: marks: marks of punctuation are characters too; else they are left out."""
    character = r"\S" if marks else r"[^\s\W]"
    return [" ".join(re.findall(rf"[A-Za-z0-9]+|{character}", text.lower())) for text in texts]
