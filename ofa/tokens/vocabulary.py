"""The one vocabulary of OFA: words, image codes and box corners are entries of the same list.

    0 .. 3                      specials   <s> <pad> </s> <unk>
    4 .. 4 + T - 1              text       the T lines of the BPE folder's dict.txt, in order
    4 + T                       mask       <mask>
    then num_codes entries      codes      <code_0> <code_1> ...
    then num_bins entries       bins       <bin_0> <bin_1> ...

Every size follows from dict.txt and the two counts; nothing else in the project knows one.
Source: OFA paper, sec. 3.1; the order is that of upstream's checkpoints.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ofa.errors import UserError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
DICTIONARY = "dict.txt"
GPT2_PIECES = 50_260  # lines of dict.txt in upstream's English vocabulary
OVERWRITE = " #fairseq:overwrite"


def code_symbol(code: int) -> str:
    """``17`` -> ``<code_17>``."""
    return f"<code_{code}>"


def bin_symbol(place: int) -> str:
    """``17`` -> ``<bin_17>``."""
    return f"<bin_{place}>"


def count_entries(pieces: int = GPT2_PIECES, num_codes: int = 8192, num_bins: int = 1000) -> int:
    """Length of a vocabulary. Args: pieces: lines of dict.txt."""
    return len(SPECIALS) + pieces + len([MASK]) + num_codes + num_bins


class Vocabulary:
    """Symbols <-> ids, and the named ranges of ids.

    Args: text_symbols: the BPE pieces in the order of dict.txt. A piece may come twice: both keep
    their place, the later one is found by ``index`` (``#fairseq:overwrite``).
    Attributes: specials, text, codes, bins: disjoint ranges of ids. mask: id of ``<mask>``.
    """

    bos, pad, eos, unk = range(len(SPECIALS))

    def __init__(self, text_symbols: Iterable[str], num_codes: int = 8192, num_bins: int = 1000):
        self.specials = range(len(SPECIALS))
        self.symbols = [*SPECIALS, *text_symbols, MASK]
        self.mask = len(self.symbols) - 1
        self.text = range(len(SPECIALS), self.mask)
        self.codes = range(self.mask + 1, self.mask + 1 + num_codes)
        self.bins = range(self.codes.stop, self.codes.stop + num_bins)
        self.symbols += [*map(code_symbol, range(num_codes)), *map(bin_symbol, range(num_bins))]
        self._ids = {symbol: position for position, symbol in enumerate(self.symbols)}

    @classmethod
    def from_folder(
        cls, folder: str | Path, num_codes: int = 8192, num_bins: int = 1000
    ) -> "Vocabulary":
        """Of a BPE folder (its dict.txt). Raises: UserError if that is missing or broken."""
        return cls(read_dictionary(Path(folder) / DICTIONARY), num_codes, num_bins)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._ids

    def __eq__(self, other) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        ranges = self.codes, self.bins
        return self.symbols == other.symbols and ranges == (other.codes, other.bins)

    __hash__ = None  # type: ignore[assignment]  # as Python spells "cannot be hashed"

    def index(self, symbol: str) -> int:
        """Id of a symbol; ``unk`` if there is no such symbol."""
        return self._ids.get(symbol, self.unk)

    def symbol(self, token: int) -> str:
        """Symbol of an id; ``<unk>`` beyond the end, as fairseq's dictionaries answer."""
        return self.symbols[token] if 0 <= token < len(self.symbols) else SPECIALS[self.unk]

    def ids(self, pieces: str) -> list[int]:
        """``"31373 995 <bin_3>"`` -> ``[42891, 232, 58460]``; without ``</s>``."""
        return [self._ids.get(piece, self.unk) for piece in pieces.split(" ") if piece]

    def pieces(self, ids: Iterable[int], drop: Sequence[int] = (bos, pad, eos)) -> str:
        """Space-separated symbols, the inverse of ``ids``, without those in ``drop``."""
        return " ".join(self.symbol(int(token)) for token in ids if int(token) not in drop)


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a fairseq dictionary: lines ``symbol count`` or ``symbol count
    #fairseq:overwrite``. Raises: UserError naming file and line if the file is missing, a line has
    another form, or a symbol comes twice without the mark."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(
            f"{path}: expected the vocabulary of a BPE folder, found no readable file"
            f" ({error.strerror}); give the folder that holds {DICTIONARY} as --bpe-dir, or make"
            " one: ofa vocab fetch gpt2 (Chinese: bert_cn), or ofa vocab build"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected UTF-8 text, found other bytes ({error}); save it as UTF-8"
        ) from error
    symbols: list[str] = []
    seen = {*SPECIALS, MASK}
    for row, line in enumerate(lines, start=1):
        line = line.rstrip("\r")
        if not line and row == len(lines):
            break
        overwrite = line.endswith(OVERWRITE)
        symbol, space, count = line.removesuffix(OVERWRITE).rstrip().rpartition(" ")
        # upstream's Chinese file has one empty symbol
        if not space or not count.lstrip("-").isdecimal():
            raise UserError(
                f"{path}:{row}: expected 'symbol count', found {line!r}; is it a dictionary?"
            )
        if symbol in seen and not overwrite:
            raise UserError(
                f"{path}:{row}: expected every symbol once, found {symbol!r} again; remove the"
                f" line, or end it with '{OVERWRITE.strip()}' if it is meant to replace the first"
            )
        seen.add(symbol)
        symbols.append(symbol)
    if not symbols:
        raise UserError(
            f"{path}: expected lines 'symbol count', found an empty file; make the folder again"
        )
    return symbols
