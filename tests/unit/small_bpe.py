"""Small BPE folders of each kind, made on the spot, so that no vocabulary has to be downloaded."""

import json
from pathlib import Path

from ofa.tokens.train_tokenizer import build_vocabulary

SENTENCES = [
    "a red ball on the table",
    "Two dogs, a cat and a red car.",
    "what does the image describe?",
] * 4
WORDPIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "red",
    "ball",
    "##s",
    "what",
    "is",
    "in",
    "the",
    "image",
    "图",
    "片",
    "?",
    ".",
    "'",
    "don",
    "t",
]


def make_gpt2_folder(folder: Path) -> Path:
    """Bytes, the merges of `` red`` and ``the``, one filler; dict.txt in another order than
    encoder.json."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    names = [*map(chr, shown), *(chr(256 + place) for place in range(len(hidden)))]
    merges = ["Ġ r", "e d", "Ġr ed", "t h", "th e"]
    encoder = {
        name: number
        for number, name in enumerate(names + [merge.replace(" ", "") for merge in merges])
    }
    (folder / "encoder.json").write_text(json.dumps(encoder))
    (folder / "vocab.bpe").write_text(
        "#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8"
    )
    numbers = [*reversed(range(len(encoder))), "madeupword0000"]
    (folder / "dict.txt").write_text("".join(f"{number} 1\n" for number in numbers))
    return folder


def make_bert_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n", encoding="utf-8")
    (folder / "dict.txt").write_text(
        "".join(f"{piece} 1\n" for piece in WORDPIECES), encoding="utf-8"
    )
    return folder


def make_sentencepiece_folder(folder: Path, size: int = 340) -> Path:
    build_vocabulary(SENTENCES, size, folder)
    return folder


MAKERS = {
    "gpt2": make_gpt2_folder,
    "bert": make_bert_folder,
    "sentencepiece": make_sentencepiece_folder,
}
