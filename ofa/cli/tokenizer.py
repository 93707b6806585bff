"""``ofa tokenizer train | encode | decode | show``: images as codes and back."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from ofa.cli.options import OverwriteOptions
from ofa.devices import has_bf16, require_bf16
from ofa.errors import UserError
from ofa.inference.options import DeviceOptions, device_option
from ofa.io.flags import Parser, command, option, options_of
from ofa.models.image_tokenizer.training_options import TrainingOptions

UNFINISHED = "training.pt"  # beside tokenizer.pt, as long as a training runs
SAMPLES = "reconstructions.png"
DECODED = "manifest.json"  # of decoded images
KINDS = "tokenizer.pt, its folder, or a folder with model.yaml and last.ckpt (VQGAN)"


def grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text} is not of the form ROWSxCOLUMNS, such as 32x48")
    return int(rows), int(columns)


@dataclass(frozen=True, kw_only=True)
class TokenizerDevice(DeviceOptions):
    """A tokenizer is small: it computes on the CPU, where the same call gives the same codes."""

    device: str = device_option("cpu")


@dataclass(frozen=True, kw_only=True)
class ImagesOptions(TokenizerDevice):
    """Images to learn from or to encode."""

    images: str = option(
        help="a TSV with an image column, or a folder of image files", metavar="TSV|DIR"
    )
    image_column: int | None = option(None, "column of the images, from 0, if not the first")
    skip_broken: bool = option(False, "skip images that cannot be read instead of stopping")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ImagesOptions, OverwriteOptions):
    """A training of a tokenizer."""

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
class EncodeOptions(ImagesOptions):
    """Images to encode, and the file to write."""

    tokenizer: str = option(help=KINDS)
    purpose: Literal["generation", "pretraining"] = option(help="file to write", flag="--for")
    out: str = option(help="file to write")
    code_image_size: int | None = option(
        None, "side of the encoded square in pixels, if not 256 (pretraining: 128)"
    )
    id_column: int = option(0, "column of the ids")
    text_column: int = option(2, "column of the captions, for generation")
    non_square: Literal["crop", "squash", "refuse"] = option(
        "crop", "images that are not square: keep the center, give up the aspect, or stop"
    )
    image_format: Literal["jpeg", "png"] = option("jpeg", "of images resized for pretraining")
    sample: int | None = option(None, "seed to sample the codes of a GumbelVQ with")
    batch_size: int = option(16, "images at a time", least=1)


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(TokenizerDevice):
    """Codes to decode, and the folder to write."""

    file: str = option(
        help="a TSV with a code column, or a result file", positional=True, metavar="TSV|JSON"
    )
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
    """A tokenizer."""

    tokenizer: str = option(help=KINDS, positional=True)


def set_up(parser: Parser) -> None:
    add = parser.add_actions()
    command(
        add("train", help="train a small tokenizer (VQ-VAE) on your images, in minutes on a CPU"),
        TrainOptions,
        run_train,
        description="Writes tokenizer.pt and reconstructions.png (held-out images, and below each "
        "its reconstruction) to --out. An interrupted call is resumed by the same call. With "
        "--minutes the learning rate follows the clock; with --updates N --minutes 0 the same call "
        "gives the same tokenizer.",
        example="example: ofa tokenizer train --images data/world/caption_stage2_train.tsv --out "
        "runs/tokenizer --minutes 3",
    )
    command(
        add("encode", help="make the files with image codes for text to image and pretraining"),
        EncodeOptions,
        run_encode,
        description="--for generation writes the columns uniq-id, codes, caption: the whole image "
        "of --code-image-size pixels (256: 1024 codes), a row per caption. --for pretraining "
        "writes image-id, image, codes: the image with twice that side (128: 256 pixels) and the "
        "codes of its center (256 codes). Images are resized by PIL's Lanczos filter as upstream. "
        "Beside the file lies OUT.manifest.json. An interrupted call is resumed by the same call.",
        example="example: ofa tokenizer encode --images caption_stage1_train.tsv --tokenizer vqgan "
        "--for generation --out coco_gen.tsv",
    )
    command(
        add("decode", help="make images of image codes"),
        DecodeOptions,
        run_decode,
        description="Writes a PNG file per row, called by the row's number and id, and "
        "manifest.json that names them.",
        example="example: ofa tokenizer decode coco_gen.tsv --tokenizer vqgan --out images --rows "
        "100",
    )
    command(add("show", help="kind, codes and sizes of a tokenizer"), ShowOptions, run_show)


def run_train(arguments: TrainOptions) -> int:
    import torch

    from ofa.data.image_rows import open_images, spread, square_pixels
    from ofa.inference.predictor import choose_device
    from ofa.io.atomic import replacing
    from ofa.io.folder_lock import lock_folder
    from ofa.io.torch_file import save as write_checkpoint
    from ofa.models.image_tokenizer import vq_vae_training as training
    from ofa.models.image_tokenizer.codec import TOKENIZER
    from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig, vq_vae_content

    if arguments.size < 16 or arguments.size % VQVAE.factor:
        raise UserError(
            f"--size {arguments.size}: expected a multiple of {VQVAE.factor} from 16 on, such as 64"
        )
    device = choose_device(arguments.device)
    options = options_of_training(arguments, device)
    config = VQVAEConfig(num_codes=arguments.codes, width=arguments.width)
    out, done, begun = (Path(arguments.out, name) for name in ("", TOKENIZER, UNFINISHED))
    most = arguments.max_images
    asked = {"size": arguments.size, "max_pictures": most, "images": arguments.images}
    settings = {**asked, **vars(options)}
    if training.training_of(done, config, settings):
        print(f"{done}: already complete")
        return 0
    resumed = training.training_of(begun, config, settings)
    for path, what in ((done, "tokenizer"), (begun, "training")):
        if path.is_file() and not arguments.overwrite and not (path == begun and resumed):
            raise UserError(
                f"{path}: expected no {what} or one of these settings, found another one; choose"
                " another --out, or replace it by --overwrite"
            )
    images = open_images(arguments.images, arguments.image_column)
    with lock_folder(out):
        chosen = spread(len(images), most)
        found, skipped = square_pixels(
            images, chosen, arguments.size, arguments.skip_broken, arguments.images
        )
        if skipped:
            print(f"{arguments.images}: {skipped} images cannot be read and are left out")
        apart = torch.zeros(len(found), dtype=torch.bool)
        apart[:: max(20, len(found) // 256)] = True
        learned, held_out = torch.from_numpy(found)[~apart], torch.from_numpy(found)[apart][:256]
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
    print(f"{done}: {state.update} updates in {state.seconds:.0f} s; {figures}")
    print(f"{out / SAMPLES}: images that were kept apart, and below each what its codes give back")
    return 0


def options_of_training(arguments: TrainOptions, device: Any) -> TrainingOptions:
    bf16 = has_bf16(device) if arguments.bf16 is None else arguments.bf16
    if bf16:
        require_bf16(device)
    minutes = arguments.training["minutes"] or None
    return TrainingOptions(**{**arguments.training, "minutes": minutes, "bf16": bf16})


SETTINGS = "purpose id_column text_column non_square image_format sample skip_broken".split()


def run_encode(arguments: EncodeOptions) -> int:
    from ofa.inference.predictor import choose_device
    from ofa.io.image_files import file_state, name_broken
    from ofa.io.resumable import fingerprint
    from ofa.models.image_tokenizer.codec import image_encoder, load_image_tokenizer
    from ofa.prepare import image_code_columns as columns
    from ofa.prepare.tsv_writer import PreparedFolder

    tokenizer = load_image_tokenizer(arguments.tokenizer, choose_device(arguments.device))
    usual = columns.SIZES[arguments.purpose]
    size = usual if arguments.code_image_size is None else arguments.code_image_size
    if size < tokenizer.factor or size % tokenizer.factor:
        raise UserError(
            f"--code-image-size {size}: expected a multiple of {tokenizer.factor} pixels, which"
            f" have one code each; choose another, such as {usual}"
        )
    images, chosen, broken = images_to_encode(arguments)
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    files = images.files(), tokenizer_files(arguments.tokenizer)
    states = [[file_state(str(path)) for path in some] for some in files]
    plan = fingerprint("image codes 1", size, settings, states)
    path, made_by = Path(arguments.out), "ofa tokenizer encode"
    out = PreparedFolder(path.parent, plan, made_by, manifest=f"{path.name}.manifest.json")
    if out.is_finished():
        print(f"{path}: already complete")
        return 0
    side = size // tokenizer.factor
    out.note(
        images=arguments.images,
        tokenizer=arguments.tokenizer,
        num_codes=tokenizer.num_codes,
        code_image_size=size,
        codes_per_picture=side * side,
        settings=settings,
        left_out=broken,
    )
    make: Callable[..., Iterator[str]] = columns.whole_images
    how: dict[str, Any] = {
        "size": size,
        "non_square": arguments.non_square,
        "encode": image_encoder(tokenizer, arguments.sample),
        "batch_size": arguments.batch_size if arguments.sample is None else 1,
    }
    if arguments.purpose == columns.GENERATION:
        ids, texts = arguments.id_column, arguments.text_column
        groups = columns.caption_groups(images, chosen, ids, texts)
    else:
        groups = columns.image_groups(images, chosen, arguments.id_column)
        make, how["image_format"] = columns.images_with_middles, arguments.image_format
    out.write_groups(path.name, groups, lambda first: make(images, chosen[first:], **how))
    out.save_manifest(finished=True, left_out=len(broken))
    if broken:
        named = name_broken(dict(text.split(": ", 1) for text in broken))
        print(f"{arguments.images}: {len(broken)} images are left out: {named}")
    entry = out.manifest["files"][path.name]
    print(
        f"{path}: {entry['rows']} rows, {side * side} codes each ({side} x {side}),"
        f" {entry['bytes'] / 1e6:.1f} MB"
    )
    return 0


def images_to_encode(arguments: EncodeOptions) -> tuple[Any, Sequence[int], list[str]]:
    """The images, numbers of those to encode, and messages about those that cannot be read."""
    from ofa.data.image_rows import open_images
    from ofa.prepare.image_code_columns import readable

    images = open_images(arguments.images, arguments.image_column)
    if not arguments.skip_broken:
        return images, range(len(images)), []
    chosen, broken = readable(images, arguments.images)
    if not chosen:
        raise UserError(
            f"{arguments.images}: expected images, found none that can be read ({broken[0]})"
        )
    return images, chosen, broken


def tokenizer_files(path: str) -> list[Path]:
    from ofa.models.image_tokenizer.codec import CONFIG, TOKENIZER, WEIGHTS

    if not Path(path).is_dir():
        return [Path(path)]
    return [file for name in (TOKENIZER, CONFIG, WEIGHTS) if (file := Path(path, name)).is_file()]


def run_decode(arguments: DecodeOptions) -> int:
    import numpy as np

    from ofa.data.image_code_rows import grid_of, open_coded
    from ofa.inference.image_writer import png, safe_words
    from ofa.inference.predictor import choose_device
    from ofa.io.atomic import replacing
    from ofa.io.paths import path_below
    from ofa.io.progress import Progress
    from ofa.models.image_tokenizer.codec import decode_images, load_image_tokenizer
    from ofa.task.results import write_json

    tokenizer = load_image_tokenizer(arguments.tokenizer, choose_device(arguments.device))
    columns = arguments.code_column, arguments.id_column, arguments.text_column
    rows = open_coded(arguments.file, *columns)[: arguments.rows]
    out, made_by = Path(arguments.out), "ofa tokenizer decode"
    if (out / DECODED).exists() and made_by.encode() not in (out / DECODED).read_bytes():
        raise UserError(
            f"{out / DECODED}: expected no manifest or one of {made_by}, found another; choose"
            " another --out"
        )
    # all, before anything is written
    codes = [grid_of(row, tokenizer.num_codes, arguments.grid) for row in rows]
    by_shape = sorted(range(len(rows)), key=lambda number: codes[number].shape)
    entries: list[dict[str, Any]] = []
    with Progress(len(rows), f"decoding {arguments.file}", "img") as progress:
        for _, same in groupby(by_shape, key=lambda number: codes[number].shape):
            numbers = list(same)
            for start in range(0, len(numbers), arguments.batch_size):
                some = numbers[start : start + arguments.batch_size]
                images = decode_images(tokenizer, np.stack([codes[number] for number in some]))
                for number, image in zip(some, images):
                    row = rows[number]
                    name = f"{number:06d}_{safe_words(row.name)}".rstrip("_") + ".png"
                    with replacing(path_below(out, name, row.where), "wb") as file:
                        file.write(png(image))
                    entry = {"row": number + 1, "id": row.name, "text": row.text, "file": name}
                    entries.append({**entry, "size": list(image.size)})
                progress.update(len(some))
    entries.sort(key=lambda entry: entry["row"])
    about = {"made_by": made_by, "codes": arguments.file, "tokenizer": arguments.tokenizer}
    write_json(out / DECODED, {**about, "pictures": entries})
    print(f"{out}: {len(entries)} images, and manifest.json that names them")
    return 0


def run_show(arguments: ShowOptions) -> int:
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(arguments.tokenizer)
    weights = sum(parameter.numel() for parameter in tokenizer.parameters())
    kind = getattr(tokenizer.config, "kind", type(tokenizer).__name__)
    print(f"{arguments.tokenizer}: {kind}, {weights:,} parameters")
    factor, sides = tokenizer.factor, (64, 128, 256)
    counts = " or ".join(f"{side} x {side} pixels: {(side // factor) ** 2} codes" for side in sides)
    codes = f"{tokenizer.num_codes} codes (--code-dict-size), {factor} x {factor} pixels per code"
    print(f"  {codes}; {counts}")
    for name, value in vars(tokenizer.config).items():
        print(f"  {name} = {value}")
    return 0
