"""``ofa draw``: captions -> images."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.cli.options import load
from ofa.errors import UserError
from ofa.inference.options import ModelOptions, PrecisionOptions, generation_options, task_options
from ofa.io.flags import Parser, command, option, options_of
from ofa.io.text_files import read_lines

logger = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  ofa draw checkpoint_best.pt "a small red circle" --image-tokenizer tokenizer.pt --out drawn
  ofa draw checkpoint_best.pt --texts captions.txt --samples 24 --clip-model-path ViT-B-16.pt \\
      --image-tokenizer vqgan/ --out drawn

DIR gets every image (all_results, top1), a sheet of all samples per caption, and
draw_predict.json that names them. A scorer (--clip-model-path or --image-text-scorer) puts those
first that fit their caption best."""


@dataclass(frozen=True, kw_only=True)
class DrawOptions(ModelOptions, PrecisionOptions):
    """What to generate, and how."""

    text: tuple[str, ...] = option((), "captions", positional=True)
    texts: str | None = option(None, "further captions, one per line")
    out: str = option(help="folder for the images")
    samples: int = option(16, "images per caption", least=1)
    seed: int = option(7, "seed of the samples")
    batch_size: int = option(4, "captions at a time", least=1)
    image_options: dict[str, Any] = options_of(
        task_options,
        "code_image_size",
        "image_tokenizer",
        "vqgan_model_path",
        "vqgan_config_path",
        "clip_model_path",
        "image_text_scorer",
    )
    generation: dict[str, Any] = options_of(
        generation_options, "sampling_topk", "sampling_topp", "temperature"
    )


def set_up(parser: Parser) -> None:
    """The flags of ``ofa draw``."""
    command(parser, DrawOptions, run, EXAMPLE)


def run(args: DrawOptions) -> int:
    """Draw, write, name what was written."""
    from tqdm import tqdm

    from ofa.inference.image_writer import ImageWriter
    from ofa.io.image_grid import grid
    from ofa.task.results import write_predictions
    from ofa.tasks import spec_of

    captions, entries = captions_of(args), []
    writer, result = ImageWriter(args.out), spec_of("draw").result
    model = load(args, precision=args.precision, batch_size=args.batch_size, **args.image_options)
    drawn = model.drawings(captions, args.samples, args.seed, **args.generation)
    for row, prediction in enumerate(
        tqdm(drawn, total=len(captions), unit="caption", disable=None)
    ):
        sheet = grid([one.image for one in (prediction, *prediction.others)])
        writer.write(f"{writer.keep(row, prediction)}.png", sheet)
        entry = result(row, prediction)
        files = [Path(file).relative_to(writer.folder) for file in entry["files"]]
        entries.append({**entry, "files": list(map(str, files))})
    print(f"images: {write_predictions(args.out, 'draw', entries)}")
    return 0


def captions_of(args: DrawOptions) -> list[str]:
    """What to draw. Raises: UserError if there is nothing."""
    captions = list(args.text)
    if args.texts:
        captions += read_lines(args.texts)
    captions = [text.strip() for text in captions if text.strip()]
    if not captions:
        raise UserError(
            "expected captions to draw, found none; give them as arguments, or in a file by --texts"
        )
    return captions
