"""``ofa tokenizer train | encode | decode | show``: images as codes and back."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ofa.devices import default_device, has_bf16, require_bf16
from ofa.errors import UserError

UNFINISHED = "training.pt"  # beside tokenizer.pt, as long as a training goes on
SAMPLES = "reconstructions.png"
DECODED = "manifest.json"  # of decoded images
KINDS = "tokenizer.pt, its folder, or a folder with model.yaml and last.ckpt (VQGAN)"


def add_parser(subparsers) -> None:
    """Add ``tokenizer`` to the commands of ``ofa``."""
    parser = subparsers.add_parser("tokenizer", help="images as codes: train, encode, decode, show")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_train(actions)
    add_encode(actions)
    add_decode(actions)
    show = actions.add_parser("show", help="kind, codes and sizes of a tokenizer")
    show.add_argument("tokenizer", metavar="PATH", help=KINDS)
    show.set_defaults(run=run_show)


def add_train(actions) -> None:
    train = actions.add_parser(
        "train",
        help="train a small tokenizer (VQ-VAE) on your images, in minutes on a CPU",
        description=(
            "Writes tokenizer.pt and reconstructions.png (images that were kept apart, and below"
            " each what its codes give back) to --out. An interrupted call is continued by the same"
            " call. With --minutes the learning rate follows the clock; with --updates N --minutes"
            " 0 the same call gives the same tokenizer."
        ),
        epilog=(
            "example: ofa tokenizer train --images data/world/caption_stage2_train.tsv --out"
            " runs/tokenizer --minutes 3"
        ),
    )
    add_images(train)
    train.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    train.add_argument(
        "--size",
        type=int,
        default=64,
        metavar="PX",
        help=(
            "side of the square images it learns from, a multiple of 8 "
            "(%(default)s); it encodes other sizes too"
        ),
    )
    train.add_argument(
        "--codes", type=int, default=512, metavar="K", help="codes of the codebook (%(default)s)"
    )
    train.add_argument(
        "--width", type=int, default=64, metavar="W", help="channels of the network (%(default)s)"
    )
    train.add_argument(
        "--max-images",
        type=int,
        default=20000,
        metavar="N",
        help=(
            "images to learn from, spread evenly over what there is; they are kept in memory"
            " (%(default)s)"
        ),
    )
    train.add_argument(
        "--minutes", type=float, default=3.0, metavar="M", help="time limit; 0: none (%(default)s)"
    )
    train.add_argument(
        "--updates",
        type=int,
        metavar="N",
        help="end after so many updates (as many as there is time for)",
    )
    train.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images per update (%(default)s)"
    )
    train.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (%(default)s)")
    train.add_argument(
        "--seed", type=int, default=1, help="of everything drawn at random (%(default)s)"
    )
    train.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compute in bfloat16 (where the processor has instructions for it)",
    )
    add_device(train)
    train.add_argument(
        "--force",
        action="store_true",
        help="replace a tokenizer of other settings that is in --out",
    )
    train.set_defaults(run=run_train)


def add_encode(actions) -> None:
    from ofa.data.image_rows import NON_SQUARE

    encode = actions.add_parser(
        "encode",
        help="make the files with image codes that text to image and pretraining learn from",
        description=(
            "--for generation writes the columns uniq-id, codes, caption: the whole image of"
            " --code-image-size pixels (256: 1024 codes), a row per caption. --for pretraining"
            " writes image-id, image, codes: the image with twice that side (128: 256 pixels)"
            " and the codes of its middle (256 codes). Images are resized by PIL's Lanczos filter"
            " as upstream. Beside the file lies OUT.manifest.json. An interrupted call is"
            " continued by the same call."
        ),
        epilog=(
            "example: ofa tokenizer encode --images caption_stage1_train.tsv --tokenizer vqgan"
            " --for generation --out coco_gen.tsv"
        ),
    )
    add_images(encode)
    encode.add_argument("--tokenizer", required=True, metavar="PATH", help=KINDS)
    encode.add_argument(
        "--for",
        dest="purpose",
        required=True,
        choices=("generation", "pretraining"),
        help="which file to write",
    )
    encode.add_argument("--out", required=True, metavar="TSV", help="file to write")
    encode.add_argument(
        "--code-image-size",
        type=int,
        metavar="PX",
        help="side of the square that is encoded (256; for pretraining 128)",
    )
    encode.add_argument(
        "--id-column", type=int, default=0, metavar="N", help="of the TSV (%(default)s)"
    )
    encode.add_argument(
        "--text-column",
        type=int,
        default=2,
        metavar="N",
        help="of the captions, for generation (%(default)s)",
    )
    encode.add_argument(
        "--non-square",
        choices=NON_SQUARE,
        default="crop",
        help=(
            "images that are not square: keep the middle, give up the aspect, or stop (%(default)s)"
        ),
    )
    encode.add_argument(
        "--image-format",
        choices=("jpeg", "png"),
        default="jpeg",
        help=(
            "of images that are resized for pretraining; codes are those of the stored pixels"
            " (%(default)s)"
        ),
    )
    encode.add_argument(
        "--sample",
        type=int,
        metavar="SEED",
        help=(
            "draw the codes of a GumbelVQ by their probabilities, as upstream did, instead of"
            " taking the likeliest"
        ),
    )
    encode.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images at a time (%(default)s)"
    )
    add_device(encode)
    encode.set_defaults(run=run_encode)


def add_decode(actions) -> None:
    decode = actions.add_parser(
        "decode",
        help="make images of image codes",
        description=(
            "Writes a PNG file per row, called by the row's number and id, and manifest.json that"
            " names them."
        ),
        epilog=(
            "example: ofa tokenizer decode coco_gen.tsv --tokenizer vqgan --out images --rows 100"
        ),
    )
    decode.add_argument(
        "file",
        metavar="TSV|JSON",
        help="a TSV with a code column, or a result file of ofa evaluate or ofa draw",
    )
    decode.add_argument("--tokenizer", required=True, metavar="PATH", help=KINDS)
    decode.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    decode.add_argument(
        "--code-column",
        type=int,
        metavar="N",
        help="of the TSV, from 0 (the first that holds codes)",
    )
    decode.add_argument(
        "--id-column", type=int, default=0, metavar="N", help="of the TSV (%(default)s)"
    )
    decode.add_argument(
        "--text-column", type=int, metavar="N", help="of the TSV, for the manifest (none)"
    )
    decode.add_argument(
        "--grid", metavar="ROWSxCOLUMNS", type=grid, help="of codes, such as 32x48 (a square)"
    )
    decode.add_argument("--rows", type=int, metavar="N", help="only the first N")
    decode.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images at a time (%(default)s)"
    )
    add_device(decode)
    decode.set_defaults(run=run_decode)


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        required=True,
        metavar="TSV|DIR",
        help="a TSV with an image column, or a folder of image files",
    )
    parser.add_argument(
        "--image-column",
        type=int,
        metavar="N",
        help="of the TSV, from 0 (the first that holds an image)",
    )
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave out images that cannot be read instead of stopping",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")


def grid(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text} is not of the form ROWSxCOLUMNS, such as 32x48")
    return int(rows), int(columns)


def run_train(arguments: argparse.Namespace) -> int:
    import torch

    from ofa.checkpoints.edit import write_checkpoint
    from ofa.data.image_rows import open_images, spread, square_pixels
    from ofa.io.atomic import replacing
    from ofa.io.folder_lock import lock_folder
    from ofa.models.image_tokenizer.codec import TOKENIZER
    from ofa.models.image_tokenizer.vq_vae import VQVAE, VQVAEConfig, vq_vae_content
    from ofa.models.image_tokenizer.vq_vae_training import (
        TrainingOptions,
        quality,
        samples,
        train,
        training_of,
    )

    check_device(arguments.device)
    if arguments.size < 16 or arguments.size % VQVAE.factor:
        raise UserError(
            f"--size {arguments.size}: expected a multiple of {VQVAE.factor} from 16 on; choose one"
            " such as 64"
        )
    check_positive(arguments, "max_images")
    bf16 = has_bf16(arguments.device) if arguments.bf16 is None else arguments.bf16
    if bf16:
        require_bf16(arguments.device)
    options = TrainingOptions(
        arguments.updates,
        arguments.minutes or None,
        arguments.batch_size,
        arguments.lr,
        arguments.seed,
        bf16,
    )
    config = VQVAEConfig(num_codes=arguments.codes, width=arguments.width)
    out = Path(arguments.out)
    settings = {
        "size": arguments.size,
        "max_pictures": arguments.max_images,
        "images": arguments.images,
        **vars(options),
    }
    if training_of(out / TOKENIZER, config, settings):
        print(f"{out / TOKENIZER}: already complete")
        return 0
    if (out / TOKENIZER).is_file() and not arguments.force:
        raise UserError(
            f"{out / TOKENIZER}: expected no tokenizer or one of these settings, found another one;"
            " choose another --out, or replace it by --force"
        )
    resumed = training_of(out / UNFINISHED, config, settings)
    if (out / UNFINISHED).is_file() and resumed is None and not arguments.force:
        raise UserError(
            f"{out / UNFINISHED}: expected no training or one of these settings, found another one;"
            " choose another --out, or replace it by --force"
        )
    images = open_images(arguments.images, arguments.image_column)
    lock = lock_folder(out)
    chosen = spread(len(images), arguments.max_images)
    found, skipped = square_pixels(
        images, chosen, arguments.size, arguments.skip_broken, arguments.images
    )
    if skipped:
        print(f"{arguments.images}: {skipped} images cannot be read and are left out")
    apart = torch.zeros(len(found), dtype=torch.bool)
    apart[:: max(20, len(found) // 256)] = True
    learned, held_out = torch.from_numpy(found)[~apart], torch.from_numpy(found)[apart][:256]
    torch.manual_seed(arguments.seed)
    tokenizer = VQVAE(config).to(arguments.device)

    def save(state: dict) -> None:
        write_checkpoint(
            vq_vae_content(tokenizer, settings=settings, state=state), out / UNFINISHED
        )

    state = train(tokenizer, learned, options, resumed and resumed["state"], save)
    reached = quality(tokenizer, held_out)
    write_checkpoint(
        vq_vae_content(
            tokenizer,
            settings=settings,
            updates=state.update,
            seconds=state.seconds,
            quality=vars(reached),
        ),
        out / TOKENIZER,
    )
    (out / UNFINISHED).unlink(missing_ok=True)
    with replacing(out / SAMPLES, "wb") as file:
        samples(tokenizer, held_out[:32]).save(file, "PNG")
    lock.release()
    print(
        f"{out / TOKENIZER}: {state.update} updates in {state.seconds:.0f} s;"
        f" {reached.line(config.num_codes)}"
    )
    print(f"{out / SAMPLES}: images that were kept apart, and below each what its codes give back")
    return 0


def check_device(device: str) -> None:
    if not (device == "cpu" or device.startswith("cuda") and default_device() == "cuda"):
        raise UserError(
            f"--device {device}: expected cpu, or cuda where there is a GPU; found no such device:"
            " leave the option out"
        )


def check_positive(arguments: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(
                f"--{name.replace('_', '-')} {value}: expected a positive number; choose one"
            )


def run_encode(arguments: argparse.Namespace) -> int:
    from ofa.data.image_rows import open_images
    from ofa.io.image_files import file_state, name_broken
    from ofa.models.image_tokenizer.codec import image_encoder, load_image_tokenizer
    from ofa.prepare import image_code_columns as columns
    from ofa.prepare.tsv_writer import PreparedFolder, fingerprint

    check_device(arguments.device)
    check_positive(arguments, "batch_size")
    tokenizer = load_image_tokenizer(arguments.tokenizer, arguments.device)
    size = (
        columns.SIZES[arguments.purpose]
        if arguments.code_image_size is None
        else arguments.code_image_size
    )
    if size < tokenizer.factor or size % tokenizer.factor:
        raise UserError(
            f"--code-image-size {size}: expected a multiple of {tokenizer.factor} pixels, which"
            f" have one code each; choose another, such as {columns.SIZES[arguments.purpose]}"
        )
    encode = image_encoder(tokenizer, arguments.sample)
    images = open_images(arguments.images, arguments.image_column)
    broken: list[str] = []
    chosen: Sequence[int] = range(len(images))
    if arguments.skip_broken:
        chosen, broken = columns.readable(images, arguments.images)
    if not chosen:
        raise UserError(
            f"{arguments.images}: expected images, found none that can be read ({broken[0]})"
        )
    options = {
        name: getattr(arguments, name)
        for name in (
            "purpose",
            "id_column",
            "text_column",
            "non_square",
            "image_format",
            "sample",
            "skip_broken",
        )
    }
    files = images.files(), tokenizer_files(arguments.tokenizer)
    states = [[file_state(str(path)) for path in some] for some in files]
    plan = fingerprint("image codes 1", size, options, states)
    path = Path(arguments.out)
    out = PreparedFolder(
        path.parent, plan, "ofa tokenizer encode", manifest=f"{path.name}.manifest.json"
    )
    if out.is_finished():
        print(f"{path}: already complete")
        return 0
    side = size // tokenizer.factor
    out.note(
        images=arguments.images,
        tokenizer=str(arguments.tokenizer),
        num_codes=tokenizer.num_codes,
        code_image_size=size,
        codes_per_picture=side * side,
        settings=options,
        left_out=broken,
    )
    make: Callable[..., Iterator[str]]
    how: dict[str, Any] = {
        "size": size,
        "non_square": arguments.non_square,
        "encode": encode,
        "batch_size": arguments.batch_size if arguments.sample is None else 1,
    }
    if arguments.purpose == columns.GENERATION:
        groups, make = (
            columns.caption_groups(images, chosen, arguments.id_column, arguments.text_column),
            columns.whole_images,
        )
    else:
        groups, make = (
            columns.image_groups(images, chosen, arguments.id_column),
            columns.images_with_middles,
        )
        how["image_format"] = arguments.image_format
    out.write_groups(path.name, groups, lambda first: make(images, chosen[first:], **how))
    out.save_manifest(finished=True, left_out=len(broken))
    if broken:
        print(
            f"{arguments.images}: {len(broken)} images are left out:"
            f" {name_broken(dict(text.split(': ', 1) for text in broken))}"
        )
    entry = out.manifest["files"][path.name]
    print(
        f"{path}: {entry['rows']} rows, {side * side} codes each ({side} x {side}),"
        f" {entry['bytes'] / 1e6:.1f} MB"
    )
    return 0


def tokenizer_files(path: str) -> list[Path]:
    """What decides the codes."""
    from ofa.models.image_tokenizer.codec import CONFIG, TOKENIZER, WEIGHTS

    folder = Path(path)
    return (
        [folder / name for name in (TOKENIZER, CONFIG, WEIGHTS) if (folder / name).is_file()]
        if folder.is_dir()
        else [folder]
    )


def run_decode(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ofa.data.image_code_rows import grid_of, open_coded
    from ofa.inference.image_writer import png, safe_words
    from ofa.io.atomic import replacing
    from ofa.io.paths import path_below
    from ofa.io.progress import Progress
    from ofa.models.image_tokenizer.codec import decode_images, load_image_tokenizer
    from ofa.task.results import write_json

    check_device(arguments.device)
    check_positive(arguments, "batch_size", "rows")
    tokenizer = load_image_tokenizer(arguments.tokenizer, arguments.device)
    rows = open_coded(
        arguments.file, arguments.code_column, arguments.id_column, arguments.text_column
    )[: arguments.rows]
    out, entries = Path(arguments.out), []
    made_by = "ofa tokenizer decode"
    if (out / DECODED).exists() and made_by.encode() not in (out / DECODED).read_bytes():
        raise UserError(
            f"{out / DECODED}: expected no manifest or one of {made_by}, found another; choose"
            " another --out"
        )
    by_shape: dict[tuple[int, int], list] = {}
    codes = [
        grid_of(row, tokenizer.num_codes, arguments.grid) for row in rows
    ]  # all, before anything is written
    for number, found in enumerate(codes):
        by_shape.setdefault(found.shape, []).append(number)
    with Progress(len(rows), f"decoding {arguments.file}", "img") as progress:
        for numbers in by_shape.values():
            for start in range(0, len(numbers), arguments.batch_size):
                some = numbers[start : start + arguments.batch_size]
                for number, image in zip(
                    some, decode_images(tokenizer, np.stack([codes[i] for i in some]))
                ):
                    row = rows[number]
                    name = f"{number:06d}_{safe_words(row.name)}".rstrip("_") + ".png"
                    with replacing(path_below(out, name, row.where), "wb") as file:
                        file.write(png(image))
                    entries.append(
                        {
                            "row": number + 1,
                            "id": row.name,
                            "text": row.text,
                            "file": name,
                            "size": list(image.size),
                        }
                    )
                progress.update(len(some))
    entries.sort(key=lambda entry: entry["row"])
    write_json(
        out / DECODED,
        {
            "made_by": made_by,
            "codes": arguments.file,
            "tokenizer": arguments.tokenizer,
            "pictures": entries,
        },
    )
    print(f"{out}: {len(entries)} images, and manifest.json that names them")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(arguments.tokenizer)
    weights = sum(parameter.numel() for parameter in tokenizer.parameters())
    kind = getattr(tokenizer.config, "kind", type(tokenizer).__name__)
    print(f"{arguments.tokenizer}: {kind}, {weights:,} parameters")
    sides = " or ".join(
        f"{side} x {side} pixels: {(side // tokenizer.factor) ** 2} codes"
        for side in (64, 128, 256)
    )
    print(
        f"  {tokenizer.num_codes} codes (--code-dict-size), {tokenizer.factor} x {tokenizer.factor}"
        f" pixels per code; {sides}"
    )
    for name, value in vars(tokenizer.config).items():
        print(f"  {name} = {value}")
    return 0
