"""Text <-> BPE pieces. Three kinds of folder behind one small interface.

    kind            files of the folder (beside dict.txt)      "a red car" becomes
    gpt2            encoder.json, vocab.bpe                    "64 2266 1097"
    bert            vocab.txt                                  "a red car", "##" inside words
    sentencepiece   one *.model                                "a ▁red ▁car"

Pieces are joined by spaces and named as in dict.txt, so ``vocabulary.ids(bpe.encode(text))`` are
token ids. Symbols such as ``<bin_3>`` or ``<mask>`` pass through ``decode`` unchanged.
"""

from itertools import groupby
from pathlib import Path

from ofa.errors import UserError, listed
from ofa.tokens.vocabulary import DICTIONARY, Vocabulary

FILES = {
    "gpt2": ("encoder.json", "vocab.bpe"),
    "bert": ("vocab.txt",),
    "sentencepiece": ("*.model",),
}
NAMES = {"gpt2": "GPT-2", "bert": "BERT", "sentencepiece": "sentencepiece"}
REMEDY = "ofa vocab fetch gpt2 (Chinese: bert_cn), or ofa vocab build"
PUBLIC = {"gpt2": "ofa vocab fetch gpt2", "bert": "ofa vocab fetch bert_cn"}


class Bpe:
    """What every kind offers; pickled as its folder. Raises: UserError if files are broken."""

    kind = ""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.load()
        except UserError:
            raise
        except Exception as error:  # the libraries have no error classes of their own
            raise UserError(
                f"{folder}: expected readable {self.kind} files, found {error}; copy it again"
            ) from error

    def __reduce__(self):
        return type(self), (self.folder,)

    def load(self) -> None:
        """Read the files of the folder."""
        raise NotImplementedError

    def encode(self, text: str) -> str:
        """Space-separated pieces of a text."""
        raise NotImplementedError

    def decode(self, pieces: str) -> str:
        """Text of space-separated pieces."""
        raise NotImplementedError

    def is_beginning_of_word(self, piece: str) -> bool:
        """Whether a piece starts a new word."""
        raise NotImplementedError


def load_bpe(folder: str | Path, kind: str | None = None) -> Bpe:
    """The BPE of a folder.

    Args: folder: as the table above. kind: ``gpt2``, ``bert`` or ``sentencepiece``; recognized from
    the files when not given.
    Raises: UserError if the folder is missing, incomplete, of no known kind or of another kind.
    """
    folder = Path(folder).expanduser().resolve()
    return KINDS[recognize(folder, kind)](folder)


def load_language(
    folder: str | Path, kind: str | None = None, num_codes: int = 8192, num_bins: int = 1000
) -> tuple[Bpe, Vocabulary]:
    """BPE and vocabulary of a folder, checked to belong together. Raises: UserError as ``load_bpe``
    and ``Vocabulary.from_folder``, and if dict.txt does not name the pieces that the BPE makes."""
    bpe = load_bpe(folder, kind)
    vocabulary = Vocabulary.from_folder(bpe.folder, num_codes, num_bins)
    probe = bpe.encode(" what is in the image?").split(" ")
    unknown = [piece for piece in probe if piece not in vocabulary]
    if len(unknown) == len(probe):
        raise UserError(
            f"{bpe.folder / DICTIONARY}: expected the pieces of the {bpe.kind} BPE beside it, "
            f"found none of {' '.join(unknown[:4])}; copy the {DICTIONARY} of the same model"
        )
    return bpe, vocabulary


def recognize(folder: Path, kind: str | None = None) -> str:
    """Kind of a BPE folder. ``kind`` (if given) has to be among what the folder holds."""
    if kind and kind not in FILES:
        raise UserError(f"--bpe {kind}: expected one of {', '.join(FILES)}; or leave it out")
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected a folder with BPE files (--bpe-dir), found "
            f"{'a file' if folder.exists() else 'nothing'}; make one: {REMEDY}"
        )
    wanted = {kind: FILES[kind]} if kind else FILES
    missing = {
        name: [file for file in files if not any(folder.glob(file))]
        for name, files in FILES.items()
    }
    whole = [name for name, files in missing.items() if not files]
    if kind in whole or (kind is None and len(whole) == 1):
        return kind or whole[0]
    if kind and whole:
        raise UserError(
            f"{folder}: --bpe {kind} expects {' and '.join(FILES[kind])}, but this folder is"
            f" {NAMES[whole[0]]}-style: use --bpe {whole[0]}"
        )
    if whole:
        raise UserError(
            f"{folder}: holds BPE files of several kinds ({', '.join(whole)}): choose one with"
            " --bpe"
        )
    for name, files in wanted.items():
        if len(missing[name]) < len(files):
            raise UserError(
                f"{folder}: a {name} folder needs {' and '.join(files)},"
                f" {' and '.join(missing[name])} is missing; copy it from where the others came"
                " from" + (f"; or: {PUBLIC[name]}" if name in PUBLIC else "")
            )
    expected = "; ".join(f"{name}: {', '.join(files)}" for name, files in wanted.items())
    found = sorted(path.name for path in folder.iterdir())
    raise UserError(
        f"{folder}: expected BPE files ({expected}), found"
        f" {listed(found, 5) or 'an empty folder'}; make a folder: {REMEDY}"
    )


class Gpt2Bpe(Bpe):
    """Byte-level BPE of GPT-2; a piece is the decimal number of encoder.json."""

    kind = "gpt2"

    def load(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        files = (str(self.folder / name) for name in FILES[self.kind])
        self._tokenizer = Tokenizer(models.BPE.from_file(*files))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()

    def encode(self, text: str) -> str:
        return " ".join(map(str, self._tokenizer.encode(text).ids))

    def decode(self, pieces: str) -> str:
        """Text of pieces. The filler entries ``madeupwordNNNN`` of dict.txt stand for no text."""
        text = []
        for is_number, group in groupby(pieces.split(), key=str.isdecimal):
            if is_number:
                text.append(self._tokenizer.decode([int(piece) for piece in group]))
                continue
            for piece in group:
                if not piece.startswith(("<", "madeupword")):
                    raise UserError(
                        f"GPT-2 pieces are numbers or <symbols>, found {piece!r}; is it their"
                        " dict.txt?"
                    )
                text.append(piece if piece.startswith("<") else "")
        return "".join(text)

    def is_beginning_of_word(self, piece: str) -> bool:
        if not piece.isdecimal():
            return piece.startswith("madeupword")
        # Ġ: the space, in GPT-2's files
        return (self._tokenizer.id_to_token(int(piece)) or "").startswith("Ġ")


class BertBpe(Bpe):
    """WordPieces of BERT, lower-cased, every Chinese character a piece of its own."""

    kind = "bert"
    unknown = "[UNK]"

    def load(self) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        path = self.folder / "vocab.txt"
        model = models.WordPiece.from_file(str(path), unk_token=self.unknown)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        known = self._tokenizer.get_vocab()
        special = (self.unknown, "[CLS]", "[SEP]", "[PAD]", "[MASK]")
        self._tokenizer.add_special_tokens([piece for piece in special if piece in known])
        if self.unknown not in known:
            raise UserError(
                f"{path}: expected an entry {self.unknown}, found none; is it BERT's file?"
            )

    def encode(self, text: str) -> str:
        return " ".join(self._tokenizer.encode(text, add_special_tokens=False).tokens)

    def decode(self, pieces: str) -> str:
        """Text of pieces; spaces stay between Chinese characters, as upstream."""
        text = pieces.replace(" ##", "").strip()
        for apart in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(apart, apart.strip())
        return text

    def is_beginning_of_word(self, piece: str) -> bool:
        return not piece.startswith("##")


class SentencePieceBpe(Bpe):
    """A sentencepiece model, as of ``ofa vocab build``. ``▁`` in a piece stands for a space."""

    kind = "sentencepiece"

    def load(self) -> None:
        from sentencepiece import SentencePieceProcessor

        models = sorted(self.folder.glob("*.model"))
        if len(models) > 1:
            names = ", ".join(model.name for model in models)
            raise UserError(f"{self.folder}: expected one *.model, found {names}; keep one")
        self._processor = SentencePieceProcessor(model_file=str(models[0]))
        # pieces that are not UTF-8 show only so
        self._processor.id_to_piece(list(range(self._processor.get_piece_size())))

    def encode(self, text: str) -> str:
        return " ".join(self._processor.encode(text, out_type=str))

    def decode(self, pieces: str) -> str:
        text = []
        for is_piece, group in groupby([p for p in pieces.split(" ") if p], key=self._is_piece):
            words = list(group)
            text.append(self._processor.decode_pieces(words) if is_piece else " ".join(words))
        return "".join(text)

    def _is_piece(self, piece: str) -> bool:
        index = self._processor.piece_to_id(piece)
        return index != self._processor.unk_id() and not self._processor.is_control(index)

    def is_beginning_of_word(self, piece: str) -> bool:
        return piece.startswith("▁")


KINDS: dict[str, type[Bpe]] = {cls.kind: cls for cls in (Gpt2Bpe, BertBpe, SentencePieceBpe)}
