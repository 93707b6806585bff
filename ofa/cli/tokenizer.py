"""``ofa tokenizer train | encode | decode | show``: images as codes and back."""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from ofa.data.image_rows import open_coded, open_images, spread, square_pixels
from ofa.devices import has_bf16, require_bf16
from ofa.errors import UserError
from ofa.inference.options import OverwriteOptions
from ofa.io.atomic import replacing
from ofa.io.flags import action, option, options_of
from ofa.io.folder_lock import lock_folder
from ofa.io.image_files import file_state
from ofa.io.progress import counted
from ofa.io.resumable import MANIFEST, ResumableFolder, fingerprint
from ofa.io.terminal import with_noun
from ofa.models.image_tokenizer.training_options import TrainingOptions
from ofa.prepare.image_code_columns import (
    KINDS,
    ImagesOptions,
    TokenizerDevice,
    encode,
    tokenizer_files,
)

__all__ = ["decode", "encode", "show", "train"]

UNFINISHED = "training.pt"  # beside tokenizer.pt, as long as a training runs
SAMPLES = "reconstructions.png"


def grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text} is not of the form ROWSxCOLUMNS, such as 32x48")
    return int(rows), int(columns)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ImagesOptions, OverwriteOptions):
    out: str = option(help="folder to write")
    size: int = option(64, "side in pixels of the square training images, a multiple of 8")
    codes: int = option(512, "codes of the codebook")
    width: int = option(64, "channels of the network")
    max_images: int = option(
        20000,
        "training images at most, evenly spread, kept in memory",
        least=1,
        also=("--max-pictures",),
    )
    training: dict[str, Any] = options_of(
        lambda: TrainingOptions, "minutes", "updates", "batch_size", "lr", "seed", defaults=True
    )
    bf16: bool | None = option(None, "compute in bfloat16 (default: where the processor can)")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(TokenizerDevice):
    file: str = option(help="TSV with codes, or a result file", positional=True, metavar="TSV|JSON")
    tokenizer: str = option(help=KINDS)
    out: str = option(help="folder to write")
    code_column: int | None = option(None, "column of the codes, from 0, if not the first")
    id_column: int = option(0, "column of the ids")
    text_column: int | None = option(None, "column of the captions, for the manifest")
    grid: tuple[int, int] | None = option(
        None, "rows and columns of codes, such as 32x48", parse=grid, metavar="ROWSxCOLUMNS"
    )
    rows: int | None = option(None, "the first N rows only", least=1)
    batch_size: int = option(16, "images at a time", least=1)


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    tokenizer: str = option(help=KINDS, positional=True)


@action
def train(args: TrainOptions) -> None:
    """Train a small tokenizer (VQ-VAE) on your images, in minutes on a CPU.

    Writes tokenizer.pt and reconstructions.png (held-out images, and below each its reconstruction)
    to --out. An interrupted call is resumed by the same call. With --minutes the learning rate
    follows the clock; with --updates N --minutes 0 the same call gives the same tokenizer.

    example: ofa tokenizer train --images data/world/caption_stage2_train.tsv --out runs/tokenizer
    --minutes 3
    """
    import torch

    from ofa.inference.predictor import choose_device
    from ofa.io.tensor_files import save as write_checkpoint
    from ofa.models.image_tokenizer import vq_vae_training as training
    from ofa.models.image_tokenizer.codec import TOKENIZER
    from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig, vq_vae_content

    if args.size < 16 or args.size % VQVAE.factor:
        raise UserError(
            f"--size {args.size}: expected a multiple of {VQVAE.factor} from 16 on, such as 64"
        )
    device = choose_device(args.device)
    options = training_options(args, device)
    config = VQVAEConfig(num_codes=args.codes, width=args.width)
    out, done, begun = (Path(args.out, name) for name in ("", TOKENIZER, UNFINISHED))
    asked = {"size": args.size, "max_pictures": args.max_images, "images": args.images}
    settings = {**asked, **vars(options)}
    if training.training_of(done, config, settings):
        print(f"{done}: already complete")
        return
    resumed = training.training_of(begun, config, settings)
    for path, what in ((done, "tokenizer"), (begun, "training")):
        if path.is_file() and not args.overwrite and not (path == begun and resumed):
            raise UserError(
                f"{path}: expected no {what} or one of these settings, found another one; choose"
                " another --out, or replace it by --overwrite"
            )
    images = open_images(args.images, args.image_column)
    with lock_folder(out):
        learned, held_out = pixels_of(images, args)
        torch.manual_seed(options.seed)
        tokenizer = VQVAE(config).to(device)

        def save(state: dict) -> None:
            write_checkpoint(vq_vae_content(tokenizer, settings=settings, state=state), begun)

        earlier = resumed and resumed["state"]
        state = training.train(tokenizer, learned, options, earlier, save)
        reached = training.quality(tokenizer, held_out)
        facts = {"updates": state.update, "seconds": state.seconds, "quality": vars(reached)}
        write_checkpoint(vq_vae_content(tokenizer, settings=settings, **facts), done)
        begun.unlink(missing_ok=True)
        with replacing(out / SAMPLES, "wb") as file:
            training.samples(tokenizer, held_out[:32]).save(file, "PNG")
    figures = reached.line(config.num_codes)
    print(f"{done}: {with_noun(state.update, 'update')} in {state.seconds:.0f} s; {figures}")
    print(f"{out / SAMPLES}: images that were kept apart, and below each what its codes give back")


def training_options(args: TrainOptions, device: Any) -> TrainingOptions:
    """Raises: UserError if they do not fit each other or the device."""
    bf16 = has_bf16(device) if args.bf16 is None else args.bf16
    if bf16:
        require_bf16(device)
    minutes = args.training["minutes"] or None
    return TrainingOptions(**{**args.training, "minutes": minutes, "bf16": bf16})


def pixels_of(images: Any, args: TrainOptions) -> tuple[Any, Any]:
    """uint8[N, 3, S, S] of the images to learn from, and of at most 256 that are kept apart."""
    import torch

    chosen = spread(len(images), args.max_images)
    found, skipped = square_pixels(images, chosen, args.size, args.skip_broken, args.images)
    if skipped:
        print(f"{args.images}: {with_noun(skipped, 'image')} skipped, unreadable")
    pixels, apart = torch.from_numpy(found), torch.zeros(len(found), dtype=torch.bool)
    apart[:: max(20, len(found) // 256)] = True
    return pixels[~apart], pixels[apart][:256]


@action
def decode(args: DecodeOptions) -> None:
    """Make images of image codes.

    Writes a PNG file per row, called by the row's number and id, and manifest.json that names them.
    An interrupted call is resumed by the same call.

    example: ofa tokenizer decode coco_gen.tsv --tokenizer vqgan --out images --rows 100
    """
    from ofa.inference.image_writer import safe_words
    from ofa.inference.predictor import choose_device
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(args.tokenizer, choose_device(args.device))
    columns = args.code_column, args.id_column, args.text_column
    rows = open_coded(args.file, *columns)[: args.rows]
    # all, before anything is written
    codes = [row.grid(tokenizer.num_codes, args.grid) for row in rows]
    content = [(row.name, row.text, row.codes) for row in rows]
    states = [file_state(str(path)) for path in tokenizer_files(Path(args.tokenizer))]
    plan = fingerprint("decoded images 1", content, args.grid, states)
    out = ResumableFolder(args.out, plan, "ofa tokenizer decode", endings=(".png",))
    if out.is_finished():
        print(f"{args.out}: already complete")
        return
    entries = []
    for number, (row, found) in enumerate(zip(rows, codes)):
        name = f"{number:06d}_{safe_words(row.name)}".rstrip("_") + ".png"
        size = [side * tokenizer.factor for side in reversed(found.shape)]
        entries.append(
            {"row": number + 1, "id": row.name, "text": row.text, "file": name, "size": size}
        )
    names = [str(entry["file"]) for entry in entries]
    by_shape = sorted(range(len(rows)), key=lambda number: codes[number].shape)
    left = [number for number in by_shape if not out.is_complete(names[number])]
    files = decoded(tokenizer, [codes[number] for number in left], args.batch_size)
    out.note(codes=args.file, tokenizer=args.tokenizer, images=entries)
    out.write_files(
        [names[number] for number in left],
        counted(files, len(left), f"decoding {args.file}", "img"),
    )
    out.save_manifest(finished=True, images=len(rows))
    print(f"{args.out}: {with_noun(len(rows), 'image')}, and {MANIFEST} that names them")


def decoded(tokenizer: Any, codes: list[Any], batch_size: int) -> Iterator[bytes]:
    """PNG files of codes int64[h, w]; neighbors of one shape are decoded together."""
    import numpy as np

    from ofa.models.image_tokenizer.codec import decode_images

    for _, same in groupby(codes, key=lambda one: one.shape):
        while some := list(islice(same, batch_size)):
            for image in decode_images(tokenizer, np.stack(some)):
                file = io.BytesIO()
                image.save(file, "PNG")
                yield file.getvalue()


@action
def show(args: ShowOptions) -> None:
    """Kind, codes and sizes of a tokenizer."""
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(args.tokenizer)
    weights = sum(parameter.numel() for parameter in tokenizer.parameters())
    kind = getattr(tokenizer.config, "kind", type(tokenizer).__name__)
    print(f"{args.tokenizer}: {kind}, {weights:,} parameters")
    factor, sides = tokenizer.factor, (64, 128, 256)
    counts = " or ".join(f"{side} x {side} pixels: {(side // factor) ** 2} codes" for side in sides)
    codes = f"{tokenizer.num_codes} codes (--code-dict-size), {factor} x {factor} pixels per code"
    print(f"  {codes}; {counts}")
    for name, value in vars(tokenizer.config).items():
        print(f"  {name} = {value}")
