"""Text to image for tests: captions whose pictures have one colour, a tokenizer of five colours,
and who knows colours."""

from pathlib import Path

import torch
from caption_files import caption_flags

from ofa.tokens.train_sentencepiece import build_vocabulary

PALETTE = {
    "black": (-1.0, -1.0, -1.0),
    "red": (1.0, -1.0, -1.0),
    "green": (-1.0, 1.0, -1.0),
    "blue": (-1.0, -1.0, 1.0),
    "white": (1.0, 1.0, 1.0),
}
COLOURS = tuple(PALETTE)[1:]  # of the rows: zeros alone stand for a picture that is not known
SIDE, CODES = 16, 4  # pixels of a picture, codes of it


class Colours(torch.nn.Module):
    """A tokenizer whose codes are five colours, the same for 8 x 8 pixels."""

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


class ColourScorer:
    """How much of a picture has the colour that the text names; how much two pictures have in
    common."""

    def score(self, pictures, texts):
        wanted = [next(colour for colour in COLOURS if colour in text) for text in texts]
        return [share(picture, colour) for picture, colour in zip(pictures, wanted, strict=True)]

    def compare(self, pictures, others):
        return [
            sum(min(share(a, colour), share(b, colour)) for colour in COLOURS)
            for a, b in zip(pictures, others, strict=True)
        ]


def share(picture, colour: str) -> float:
    wanted = tuple(int((value + 1) / 2 * 255) for value in PALETTE[colour])
    pixels = list(picture.convert("RGB").getdata())
    return sum(pixel == wanted for pixel in pixels) / len(pixels)


def drawing_caption(number: int) -> str:
    return f"a {COLOURS[number % 4]} square"


def write_drawings(path: Path, numbers, codes: bool = True) -> Path:
    """Rows ``id, codes, caption`` (or ``id, caption``): every picture has the colour of its
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
    """The flags of the released scripts, a small network, pictures of 16 pixels."""
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


def use_colours() -> None:
    """In a process of its own: every path names the tests' tokenizer."""
    import ofa.models.image_tokenizer.codec as module

    module.load_image_tokenizer = lambda path, device="cpu": Colours()
