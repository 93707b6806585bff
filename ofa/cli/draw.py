"""``ofa draw``: captions -> images."""

import argparse
import logging
from pathlib import Path

from ofa.errors import UserError
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
# Options of text to image that are given anew where images are drawn: flag, type, help.
DRAWING_FLAGS = (
    ("--code-image-size", int, "side of an image, pixels"),
    ("--sampling-times", int, "images of a caption: beam x this"),
    (
        "--image-tokenizer",
        str,
        "what makes images of codes: tokenizer.pt, or a folder with model.yaml and last.ckpt",
    ),
    ("--vqgan-model-path", str, "last.ckpt of a VQGAN"),
    ("--vqgan-config-path", str, "its model.yaml"),
    ("--clip-model-path", str, "weights of CLIP, to put images first that fit their caption"),
    ("--image-text-scorer", str, "MODULE:CLASS with score(images, texts), instead of CLIP"),
    ("--eval-clip-method", str, "compare with the caption (ti_sim) or the true image (ii_sim)"),
    ("--gen-images-path", str, "folder for the images (all_results, top1)"),
)
DRAWING_OPTIONS = tuple(flag[2:].replace("-", "_") for flag, _, _ in DRAWING_FLAGS)
GENERATION = ("sampling_topk", "sampling_topp", "temperature")


def add_drawing_flags(parser, *without: str) -> None:
    """Args: parser: or a group of one."""
    for flag, kind, text in DRAWING_FLAGS:
        if flag not in without:
            parser.add_argument(flag, type=kind, help=text)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "draw",
        help="draw images of captions",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", help="checkpoint file of a model that was trained to draw (--task image_gen)"
    )
    parser.add_argument("text", nargs="*", help="captions")
    parser.add_argument("--texts", metavar="FILE", help="further captions, one per line")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the images")
    parser.add_argument(
        "--samples", type=int, default=16, metavar="N", help="images per caption (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="the same seed draws the same images (%(default)s)"
    )
    add_drawing_flags(parser, "--gen-images-path", "--sampling-times", "--eval-clip-method")
    parser.add_argument(
        "--sampling-topk",
        type=int,
        help="draw codes among the k likeliest; default: as in training, or 256",
    )
    parser.add_argument(
        "--sampling-topp", type=float, help="... among those that together reach this probability"
    )
    parser.add_argument(
        "--temperature", type=float, help="above 1 draws more varied codes, below 1 likelier ones"
    )
    parser.add_argument(
        "--bpe-dir", metavar="DIR", help="vocabulary folder, if it has moved since training"
    )
    parser.add_argument(
        "--ema-eval", action="store_true", help="take the averaged weights (EMA) of the checkpoint"
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, help="captions at a time (%(default)s)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--fp16", action="store_const", const="fp16", dest="precision", default="fp32"
    )
    precision.add_argument("--bf16", action="store_const", const="bf16", dest="precision")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw, write, name what was written."""
    from tqdm import tqdm

    from ofa import OFA
    from ofa.inference.image_writer import ImageWriter, png, write
    from ofa.io.image_grid import grid
    from ofa.task.results import write_predictions
    from ofa.tasks import spec_of

    captions = captions_of(args)
    album = ImageWriter(args.out)
    given = {name: getattr(args, name, None) for name in DRAWING_OPTIONS}
    model = OFA.load(
        args.checkpoint,
        args.bpe_dir,
        device="cpu" if args.cpu else None,
        precision=args.precision,
        ema=args.ema_eval,
        batch_size=args.batch_size,
        **{name: value for name, value in given.items() if value is not None},
    )
    generation = {
        name: getattr(args, name) for name in GENERATION if getattr(args, name) is not None
    }
    result, entries = spec_of("image_gen").result, []
    with tqdm(total=len(captions), unit="caption", disable=None) as bar:
        for row, prediction in enumerate(
            model.drawings(captions, args.samples, args.seed, generation)
        ):
            images = [one.image for one in (prediction, *prediction.others)]
            sheet = album.keep(row, prediction)
            write(album.folder / f"{sheet}.png", png(grid(images)))
            entry = result(row, prediction)
            entries.append(
                {
                    **entry,
                    "files": [str(Path(file).relative_to(album.folder)) for file in entry["files"]],
                }
            )
            bar.update()
    print(f"images: {write_predictions(args.out, 'draw', entries)}")
    return 0


def captions_of(args: argparse.Namespace) -> list[str]:
    """What to draw. Raises: UserError if there is nothing."""
    captions = list(args.text)
    if args.texts:
        captions += read_lines(args.texts)
    captions = [text.strip() for text in captions if text.strip()]
    if not captions:
        raise UserError(
            "expected captions to draw, found none; give them as arguments, or in a file by --texts"
        )
    if args.samples < 1 or args.batch_size < 1:
        raise UserError("--samples and --batch-size expect at least 1")
    return captions
