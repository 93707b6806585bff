"""The answers a task may give: a set of texts, their tokens, and the trie of them.

    answers = AnswerSet(["yes", "no", "on the table"], encode=lambda text: vocabulary.ids(bpe.encode(text)))
    answers.trie.get_next_layer([0])      # tokens that an answer may begin with; every path begins with <s>

Answers have a leading blank when they are encoded, as targets have: ``" on the table"``.
"""

from collections.abc import Callable, Sequence

from ofa.errors import UserError
from ofa.trie import Trie


class AnswerSet:
    """Answers in their order, encoded.

    Args:
        texts: at least one, none twice.
        encode: text -> token ids. bos, eos: around every path of the trie.

    Attributes: texts; tokens: ids of each answer, without start and end; trie.
    Raises: UserError if two answers have the same tokens, or one has none.
    """

    def __init__(self, texts: Sequence[str], encode: Callable[[str], list[int]], bos: int = 0, eos: int = 2):
        self.texts = list(texts)
        self.tokens = [encode(" " + text) for text in self.texts]
        self.bos, self.eos = bos, eos
        first: dict[tuple[int, ...], str] = {}
        for text, tokens in zip(self.texts, self.tokens):
            if not tokens:
                raise UserError(f"answer set: expected answers with at least one token, found {text!r}; remove it")
            other = first.setdefault(tuple(tokens), text)
            if other is not text:
                raise UserError(
                    f"answer set: expected answers that the vocabulary tells apart, found {other!r} and {text!r} with the "
                    "same tokens; remove one of them"
                )
        self.trie = Trie(eos, ([bos, *tokens, eos] for tokens in self.tokens))

    def __len__(self) -> int:
        return len(self.texts)

    def allowed_after(self, tokens: Sequence[int]) -> list[int]:
        """Tokens that may follow the beginning of an answer; the end alone after what begins no answer."""
        return self.trie.get_next_layer([self.bos, *tokens])
