"""Text to image for tests: captions whose images have one color, a tokenizer of five colors,
and who knows colors."""

from pathlib import Path

import torch
from caption_files import caption_flags

from ofa.tokens.train_tokenizer import build_vocabulary

PALETTE = {
    "black": (-1.0, -1.0, -1.0),
    "red": (1.0, -1.0, -1.0),
    "green": (-1.0, 1.0, -1.0),
    "blue": (-1.0, -1.0, 1.0),
    "white": (1.0, 1.0, 1.0),
}
COLORS = tuple(PALETTE)[1:]  # of the rows: zeros alone stand for an image that is not known
SIDE, CODES = 16, 4  # pixels of an image, codes of it


class Colors(torch.nn.Module):
    """A tokenizer whose codes are five colors, the same for 8 x 8 pixels."""

    num_codes, factor = 5, 8

    def __init__(self):
        super().__init__()
        self.palette = torch.nn.Parameter(torch.tensor(list(PALETTE.values())))

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        assert codes.dtype == torch.int64 and codes.dim() == 3
        pixels = (
            self.palette[codes].repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)
        )
        return pixels.permute(0, 3, 1, 2)


class ColorScorer:
    """How much of an image has the color that the text names; how much two images have in
    common."""

    def score(self, images, texts):
        wanted = [next(color for color in COLORS if color in text) for text in texts]
        return [share(image, color) for image, color in zip(images, wanted, strict=True)]

    def compare(self, images, others):
        return [
            sum(min(share(a, color), share(b, color)) for color in COLORS)
            for a, b in zip(images, others, strict=True)
        ]


def share(image, color: str) -> float:
    wanted = tuple(int((value + 1) / 2 * 255) for value in PALETTE[color])
    pixels = list(image.convert("RGB").getdata())
    return sum(pixel == wanted for pixel in pixels) / len(pixels)


def drawing_caption(number: int) -> str:
    return f"a {COLORS[number % 4]} square"


def write_drawings(path: Path, numbers, codes: bool = True) -> Path:
    """Rows ``id, codes, caption`` (or ``id, caption``): every image has the color of its
    caption."""
    column = lambda number: [" ".join([str(1 + number % 4)] * CODES)] if codes else []  # noqa: E731
    path.write_text(
        "".join(
            "\t".join([f"d{number}", *column(number), drawing_caption(number)]) + "\n"
            for number in numbers
        )
    )
    return path


def make_drawing_vocabulary(folder: Path) -> Path:
    build_vocabulary(
        [drawing_caption(number) for number in range(4)]
        + ["what is the complete image? caption:"] * 3,
        300,
        folder,
    )
    return folder


def drawing_flags(data: str, bpe_dir: Path, *more: str) -> list[str]:
    """The flags of upstream's scripts, a small network, images of 16 pixels."""
    left_out = (
        "--task",
        "--selected-cols",
        "--eval-",
        "--drop-",
        "--label-smoothing",
        "--best-",
        "--max-tgt",
        "--patch-image",
        "--code-dict",
        "--fp16",
    )
    flags = [flag for flag in caption_flags(data, bpe_dir) if not flag.startswith(left_out)]
    return [
        *flags,
        "--task=image_gen",
        "--selected-cols=0,2,1",
        f"--code-image-size={SIDE}",
        "--code-dict-size=5",
        "--image-bucket-size=4",
        "--token-bucket-size=16",
        '--eval-args={"beam":4,"sampling_topk":4,"temperature":1.0}',
        "--max-tgt-length=1024",
        "--best-checkpoint-metric=score",
        "--patch-image-size=32",
        *more,
    ]


def use_colors() -> None:
    """In a process of its own: every path names the tests' tokenizer."""
    import ofa.models.image_tokenizer.codec as module

    module.load_image_tokenizer = lambda path, device="cpu": Colors()
