"""Texts that are read off images: what is learned, what is compared, what is written.

"ＳＴＯＰ  Sign"  -> "stop  sign"       full-width letters and digits become plain ones (NFKC)
"開門時間ABC"     -> "开门时间abc"      traditional Chinese becomes simplified
"""

import functools
import re
import unicodedata
import warnings

from ofa.errors import UserError

CHINESE = re.compile(
    "[\u2e80-\u303f\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def plain_text(text: str) -> str:
    """Simplified characters, NFKC, lower case; spaces stay as they are."""
    simplified = text if text.isascii() else converter()(text, "zh-hans")
    return unicodedata.normalize("NFKC", simplified).lower()


@functools.cache
def converter():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how zhconv finds its table
            from zhconv import convert
    except ModuleNotFoundError as error:
        raise UserError(
            f"texts that are not plain ASCII need zhconv, found no module {error.name}; run: pip"
            " install zhconv 'setuptools<81'"
        ) from None
    return convert


def learned_text(text: str, length: int, language: str) -> str:
    """The text as a target, cut to ``length``: words, one space between them; of Chinese
    characters. Args: language: "zh" counts characters, everything else words, as upstream."""
    plain = plain_text(text)
    return plain[:length].strip() if language == "zh" else " ".join(plain.split()[:length])


def compared_text(text: str) -> str:
    """What is compared, as upstream: a Chinese vocabulary does not know where spaces were."""
    return "".join(text.split())


def written_text(text: str) -> str:
    """A prediction as it is written, Chinese without spaces: ``"你 好"`` -> ``"你好"``."""
    return compared_text(text) if CHINESE.search(text) else text
