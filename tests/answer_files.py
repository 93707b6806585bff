"""Tiny files of tasks that answer: questions about squares of one color, hypotheses about them,
and their classes."""

from pathlib import Path

from caption_files import COLORS, make_image

from ofa.tokens.train_tokenizer import build_vocabulary

ANSWERS = [*COLORS[:5], "dark red", "dark blue", "yes", "no"]
LABELS = ("entailment", "contradiction", "neutral")
TASKS = ("vqa_gen", "snli_ve", "image_classify")


def color_of(number: int) -> str:
    return COLORS[number % 5]


def vqa_row(number: int, answers: str | None = None) -> tuple[str, ...]:
    """Columns question-id, image-id, question, answers, objects, image."""
    color = color_of(number)
    answers = f"0.3|!+no&&1.0|!+{color}" if answers is None else answers
    return (
        str(7000 + number),
        f"img{number}",
        "What color is the cube",
        answers,
        "cube&&table",
        make_image(color),
    )


def snli_row(number: int, label: str | None = None) -> tuple[str, ...]:
    """Columns uniq-id, image-id, image, hypothesis, caption, label."""
    color, said = color_of(number), color_of(number + (number % 3 == 1))
    words = f"The cube is {said}." if number % 3 < 2 else "The cube is heavy."
    return (
        f"{number}#0",
        f"img{number}",
        make_image(color),
        words,
        f"A {color} cube",
        LABELS[number % 3] if label is None else label,
    )


def class_row(number: int, label: str | None = None) -> tuple[str, ...]:
    """Columns image, class number, words of the class."""
    return (
        make_image(color_of(number)),
        str(number % 5 + 1),
        color_of(number) if label is None else label,
    )


ROWS = {"vqa_gen": vqa_row, "snli_ve": snli_row, "image_classify": class_row}


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_vocabulary(folder: Path) -> Path:
    texts = (
        [f"What color is the {color} cube" for color in COLORS]
        + ANSWERS
        + [
            "object: cube table",
            "does the image describe the cube is heavy?",
            "can image and text1 imply text2 a cube",
            "what does the image describe? maybe",
            "What color is it, on a table? " + " ".join(ANSWERS),
        ]
    )
    build_vocabulary(texts, 320, folder)
    return folder


def flags(task: str, data: str, bpe_dir: Path, *more: str) -> list[str]:
    """The flags of upstream's scripts, but a small network, small images, few codes and
    bins."""
    own = {
        "vqa_gen": [
            "--ans2label-dict="
            + "{"
            + ", ".join(f'"{a}": {i}' for i, a in enumerate(ANSWERS))
            + "}",
            "--add-object",
            "--max-object-length=30",
            "--prompt-type=prev_output",
            "--valid-batch-size=20",
            "--val-inference-type=allcand",
            "--max-tgt-length=30",
            "--best-checkpoint-metric=vqa_score",
        ],
        "snli_ve": [
            "--prompt-type=prev_output",
            "--add-caption",
            "--max-tgt-length=20",
            "--best-checkpoint-metric=snli_score",
        ],
        "image_classify": [
            "--ans2label-dict="
            + "{"
            + ", ".join(f'"{a}": {i}' for i, a in enumerate(COLORS))
            + "}",
            "--imagenet-default-mean-and-std",
            "--best-checkpoint-metric=score",
        ],
    }
    return [
        data,
        f"--bpe-dir={bpe_dir}",
        f"--task={task}",
        "--arch=ofa_nano",
        *own[task],
        "--criterion=adjust_label_smoothed_cross_entropy",
        "--label-smoothing=0.1",
        "--maximize-best-checkpoint-metric",
        "--encoder-normalize-before",
        "--decoder-normalize-before",
        "--share-decoder-input-output-embed",
        "--share-all-embeddings",
        "--layernorm-embedding",
        "--patch-layernorm-embedding",
        "--code-layernorm-embedding",
        "--optimizer=adam",
        "--clip-norm=1.0",
        "--lr-scheduler=polynomial_decay",
        "--lr=1e-3",
        "--max-epoch=2",
        "--no-epoch-checkpoints",
        "--keep-best-checkpoints=1",
        "--fixed-validation-seed=7",
        "--max-src-length=80",
        "--find-unused-parameters",
        "--add-type-embedding",
        "--scale-attn",
        "--scale-fc",
        "--scale-heads",
        "--disable-entangle",
        "--num-bins=20",
        "--code-dict-size=16",
        "--patch-image-size=32",
        "--num-workers=0",
        "--batch-size=2",
        *more,
    ]
