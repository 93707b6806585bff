"""Chinese in texts: what is Chinese, and where spaces belong.

A BERT vocabulary has no spaces: its pieces are joined by them, so that a decoded text has one
behind every character::

    >>> without_spaces("一 只 猫 看 open source 的 书 ， 4. 5 元")
    '一只猫看open source的书，4.5元'
"""

import re

# Characters that are written without spaces around them: ideographs, their punctuation, kana,
# full-width forms.
WIDE = (
    "\u2e80-\u2fdf\u3000-\u30ff\u31c0-\u31ef\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
IDEOGRAPH = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
SPACES = re.compile(f"(?<=[{WIDE}])[ ]+|[ ]+(?=[{WIDE}])")
# BERT's decoding closes up what is before a full stop alone
INSIDE_NUMBERS = re.compile(r"(?<=\d[.,:]) (?=\d)")
QUESTION_MARKS = ("?", "？")


def is_chinese(text: str) -> bool:
    return IDEOGRAPH.search(text) is not None


def without_spaces(text: str) -> str:
    """A decoded text as people write it: spaces stay between words in Latin letters alone. A
    text without Chinese stays as it is."""
    return INSIDE_NUMBERS.sub("", SPACES.sub("", text)) if is_chinese(text) else text
