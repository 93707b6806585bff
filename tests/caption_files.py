"""A tiny caption data set for tests: six images, their captions, and a vocabulary trained on
them."""

import base64
import io
from pathlib import Path

from PIL import Image

from ofa.tokens.bpe import load_language
from ofa.tokens.train_tokenizer import build_vocabulary

COLORS = ("red", "green", "blue", "white", "black", "yellow", "purple")
PLACES = ("on a table", "in the garden", "by the lake, at night")


def make_image(color: str, size: tuple[int, int] = (40, 30)) -> str:
    """Base64 of a PNG in one color."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def caption(number: int) -> str:
    return f"A {COLORS[number % 7]} cube {PLACES[number % 3]}."


def write_tsv(path: Path, captions: list[str], joined: bool = False) -> Path:
    """Rows ``uniq-id, image-id, caption, objects, image``; ``joined``: a second reference for
    every image."""
    rows = []
    for number, text in enumerate(captions):
        text = f"{text}&&There is a {COLORS[number % 7]} cube" if joined and text else text
        rows.append(
            "\t".join(
                (f"{number}_0", f"img{number}", text, "cube&&table", make_image(COLORS[number % 7]))
            )
        )
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def make_vocabulary(folder: Path) -> Path:
    """A sentencepiece vocabulary of the captions below."""
    texts = [caption(number) for number in range(21)] + [
        "what does the image describe?",
        "There is a cube",
    ]
    build_vocabulary(texts, 320, folder)
    return folder


def caption_flags(data: str, bpe_dir: Path, *more: str) -> list[str]:
    """The flags of upstream's caption scripts, but a small network, small images, few codes
    and bins."""
    return [
        data,
        f"--bpe-dir={bpe_dir}",
        "--task=caption",
        "--arch=ofa_nano",
        "--selected-cols=0,4,2",
        "--criterion=adjust_label_smoothed_cross_entropy",
        "--label-smoothing=0.1",
        "--reset-optimizer",
        "--reset-dataloader",
        "--reset-meters",
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
        "--clip-norm=1.0",
        "--lr-scheduler=polynomial_decay",
        "--lr=1e-5",
        "--max-epoch=2",
        "--warmup-ratio=0.06",
        "--log-format=simple",
        "--log-interval=10",
        "--fixed-validation-seed=7",
        "--no-epoch-checkpoints",
        "--keep-best-checkpoints=1",
        "--save-interval=1",
        "--validate-interval=1",
        "--save-interval-updates=500",
        "--validate-interval-updates=500",
        "--eval-cider",
        '--eval-args={"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}',
        "--best-checkpoint-metric=cider",
        "--maximize-best-checkpoint-metric",
        "--max-src-length=80",
        "--max-tgt-length=20",
        "--find-unused-parameters",
        "--freeze-encoder-embedding",
        "--freeze-decoder-embedding",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--num-bins=20",
        "--code-dict-size=16",
        "--patch-image-size=32",
        "--drop-worst-ratio=0.2",
        "--drop-worst-after=2500",
        "--fp16",
        "--fp16-scale-window=512",
        "--num-workers=0",
        "--batch-size=2",
        "--update-freq=4",
        *more,
    ]


def make_language(folder: Path):
    """The BPE of that vocabulary, and its dictionary with 16 image codes and 20 bins."""
    return load_language(make_vocabulary(folder), num_codes=16, num_bins=20)
