"""A tiny pretraining for tests: the four kinds of files, the files of negatives, a vocabulary
and flags."""

import json
from pathlib import Path
from types import SimpleNamespace

from caption_files import COLORS, PLACES, caption, make_image

from ofa.tokens.train_tokenizer import build_vocabulary

ROWS = 24  # of pairs: as many captions, questions and boxes
SIDE = 32  # pixels of an image for infilling
CODES = 4  # of its middle


def pair(number: int) -> list[str]:
    """A row of pairs; three in turn are a caption, a question, a box."""
    kind = ("caption", "qa", "visual_grounding")[number % 3]
    asked = {
        "caption": (caption(number), "", ""),
        "qa": ("", "What color is it?", f"1.0|!+{COLORS[number % 7]}&&0.3|!+pink"),
        "visual_grounding": (f"the {COLORS[number % 7]} cube", "", "5,4,30,25"),
    }[kind]
    return [
        f"p{number}",
        make_image(COLORS[number % 7]),
        *asked,
        "cube",
        "cc12m" if number % 4 == 0 else "coco",
        kind,
    ]


def text(number: int) -> list[str]:
    return [
        f"t{number}",
        (
            f"There is a {COLORS[number % 7]} cube {PLACES[number % 3]} and a"
            f" {COLORS[(number + 1) % 7]} one"
        ),
    ]


def codes(number: int) -> list[str]:
    return [
        f"i{number}",
        make_image(COLORS[number % 7], (SIDE, SIDE)),
        " ".join(str((number + place) % 16) for place in range(CODES)),
    ]


def objects(number: int) -> list[str]:
    return [f"d{number}", make_image(COLORS[number % 7]), "2,3,20,22,1,cube&&15,10,38,28,2,table"]


def write_rows(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_files(folder: Path, rows: int = ROWS) -> SimpleNamespace:
    """Training and validation files of every kind."""
    texts = [
        *map(caption, range(21)),
        *(text(number)[1] for number in range(21)),
        "what does the region describe? region:",
        "does the image describe",
        "what is the answer to question",
        "which region does the text",
        "yes no",
        "what are the objects in the image?",
        "what is the image in the middle part?",
        "what is the complete text of",
        "What color is it? the cube table pink",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    build_vocabulary(texts, 330, folder / "vocabulary")
    negatives = folder / "negative_sample"
    negatives.mkdir()
    (negatives / "all_captions.txt").write_text(
        "".join(f"{caption(number)}\n" for number in range(21))
    )
    (negatives / "object.txt").write_text("cube\ntable\nlake\n")
    (negatives / "type2ans.json").write_text(
        json.dumps({"how many": ["1", "2"], "color": list(COLORS), "other": ["yes", "no"]})
    )
    files = SimpleNamespace(folder=folder, vocabulary=folder / "vocabulary", negatives=negatives)
    for name, make, count in (
        ("pairs", pair, rows),
        ("texts", text, 5),
        ("images", codes, 3),
        ("objects", objects, 3),
    ):
        train = write_rows(folder / f"{name}.tsv", list(map(make, range(count))))
        valid = write_rows(
            folder / f"{name}_valid.tsv",
            list(map(make, range(100, 100 + (6 if name == "pairs" else 2)))),
        )
        setattr(files, name, f"{train},{valid}")
    return files


def pretraining_flags(files: SimpleNamespace, *more: str) -> list[str]:
    """The flags of upstream's pretraining, a small network and small images."""
    return [
        files.pairs,
        f"--text-data={files.texts}",
        f"--image-data={files.images}",
        f"--detection-data={files.objects}",
        f"--neg-sample-dir={files.negatives}",
        f"--bpe-dir={files.vocabulary}",
        "--task=unify_task",
        "--arch=ofa_nano",
        "--selected-cols=0,1,2,3,4,5,6,7",
        "--text-selected-cols=0,1",
        "--image-selected-cols=0,1,2",
        "--detection-selected-cols=0,1,2",
        "--criterion=adjust_label_smoothed_cross_entropy",
        "--label-smoothing=0.0",
        "--encoder-normalize-before",
        "--decoder-normalize-before",
        "--share-decoder-input-output-embed",
        "--share-all-embeddings",
        "--layernorm-embedding",
        "--patch-layernorm-embedding",
        "--code-layernorm-embedding",
        "--resnet-drop-path-rate=0.0",
        "--encoder-drop-path-rate=0.1",
        "--decoder-drop-path-rate=0.1",
        "--dropout=0.1",
        "--attention-dropout=0.0",
        "--weight-decay=0.01",
        "--optimizer=adam",
        "--adam-betas=(0.9,0.999)",
        "--adam-eps=1e-08",
        "--clip-norm=5.0",
        "--lr-scheduler=polynomial_decay",
        "--lr=1e-3",
        "--warmup-ratio=0.01",
        "--log-format=simple",
        "--log-interval=2",
        "--fixed-validation-seed=7",
        "--keep-last-epochs=15",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--max-src-length=20",
        "--max-tgt-length=20",
        "--num-bins=20",
        "--code-dict-size=16",
        "--code-image-size=16",
        "--image-bucket-size=8",
        "--token-bucket-size=32",
        "--patch-image-size=32",
        "--max-image-size=64",
        "--sample-patch-num=3",
        "--batch-size=4",
        "--num-workers=0",
        *more,
    ]
