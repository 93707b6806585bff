"""The vocabulary folder of a model as Hugging Face's tokenizers read it: the same entries with the
same ids.

GPT-2's BPE: ``vocab.json`` (piece -> id) and ``merges.txt``. BERT's: ``vocab.txt``, one piece per
line, the line is the id. Both end with ``<mask>``; ``<code_i>`` and then ``<bin_i>`` are appended
by who loads them, as many as the model has.
"""

import json
import shutil
from pathlib import Path

from ofa.errors import UserError
from ofa.io.json_files import load_json
from ofa.tokens.bpe import FILES, load_bpe
from ofa.tokens.vocabulary import DICTIONARY, Vocabulary, read_dictionary

CODES, BINS = 8192, 1000  # what loaders of that layout append


def write_vocabulary(
    bpe_dir: str, num_entries: int, num_codes: int, num_bins: int, folder: Path
) -> list[str]:
    """Write the files of a vocabulary folder. Args: num_entries: of the model. Returns: names of
    what was written. Raises: UserError if the folder is not that of the model."""
    bpe = load_bpe(bpe_dir)
    symbols = Vocabulary(read_dictionary(bpe.folder / DICTIONARY), num_codes, num_bins)
    if len(symbols) != num_entries:
        raise UserError(
            f"--bpe-dir {bpe_dir}: makes {len(symbols)} entries with {num_codes} codes and"
            f" {num_bins} bins, the model has {num_entries}; give the folder of its training, and"
            " its --code-dict-size and --num-bins"
        )
    entries = symbols.symbols[: symbols.mask + 1]
    if bpe.kind == "gpt2":
        encoder, merges = FILES["gpt2"]
        numbers = load_json((bpe.folder / encoder).read_text(encoding="utf-8"))
        pieces = {str(number): piece for piece, number in numbers.items()}
        content = {pieces.get(entry, entry): number for number, entry in enumerate(entries)}
        (folder / "vocab.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        shutil.copyfile(bpe.folder / merges, folder / "merges.txt")
        return ["vocab.json", "merges.txt"]
    if bpe.kind == "bert":
        (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries), "utf-8")
        return ["vocab.txt"]
    return []
