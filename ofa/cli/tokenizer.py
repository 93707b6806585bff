"""``ofa tokenizer train | show``: the network that turns pictures into codes and back."""

import argparse
from pathlib import Path

from ofa.errors import UserError

UNFINISHED = "training.pt"  # beside tokenizer.pt, as long as a training goes on
SAMPLES = "reconstructions.png"


def add_parser(subparsers) -> None:
    """Add ``tokenizer`` to the commands of ``ofa``."""
    parser = subparsers.add_parser("tokenizer", help="pictures as codes: train, encode, decode, show")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_train(actions)
    show = actions.add_parser("show", help="kind, codes and sizes of a tokenizer")
    show.add_argument("tokenizer", metavar="PATH", help="tokenizer.pt, its folder, or a folder with model.yaml and last.ckpt (VQGAN)")
    show.set_defaults(run=run_show)


def add_train(actions) -> None:
    train = actions.add_parser(
        "train", help="train a small tokenizer (VQ-VAE) on your pictures, in minutes on a CPU",
        description="Writes tokenizer.pt and reconstructions.png (pictures that were kept apart, and below each what its codes give "
                    "back) to --out. An interrupted call is continued by the same call. With --minutes the learning rate follows the "
                    "clock; with --updates and --minutes 0 the same call gives the same tokenizer.",
        epilog="example: ofa tokenizer train --images data/world/caption_stage2_train.tsv --out runs/tokenizer --minutes 3")  # fmt: skip
    add_pictures(train)
    train.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    train.add_argument("--size", type=int, default=64, metavar="PX", help="side of the square pictures it learns from, a multiple of 8 "
                       "(%(default)s); it encodes other sizes too")
    train.add_argument("--codes", type=int, default=512, metavar="K", help="codes of the codebook (%(default)s)")
    train.add_argument("--width", type=int, default=64, metavar="W", help="channels of the network (%(default)s)")
    train.add_argument("--max-pictures", type=int, default=20000, metavar="N",
                       help="pictures to learn from, spread evenly over what there is; they are kept in memory (%(default)s)")
    train.add_argument("--minutes", type=float, default=3.0, metavar="M", help="time limit; 0: none (%(default)s)")
    train.add_argument("--updates", type=int, metavar="N", help="end after so many updates (as many as there is time for)")
    train.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures per update (%(default)s)")
    train.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (%(default)s)")
    train.add_argument("--seed", type=int, default=1, help="of everything drawn at random (%(default)s)")
    train.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=None,
                       help="compute in bfloat16 (where the processor has instructions for it)")
    train.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    train.add_argument("--force", action="store_true", help="replace a tokenizer of other settings that is in --out")
    train.set_defaults(run=run_train)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, metavar="TSV|DIR", help="a TSV with an image column, or a folder of image files")
    parser.add_argument("--image-column", type=int, metavar="N", help="of the TSV, from 0 (the first that holds an image)")
    parser.add_argument("--skip-broken", action="store_true", help="leave out pictures that cannot be read instead of stopping")


def run_train(arguments: argparse.Namespace) -> int:
    import torch

    from ofa.checkpoint_edit import write_checkpoint
    from ofa.data.picture_rows import open_pictures
    from ofa.models.image_tokenizer import TOKENIZER
    from ofa.models.vq_vae import VQVAE, VQVAEConfig, vq_vae_content
    from ofa.models.vq_vae_training import TrainingOptions, has_bf16, quality, train

    if arguments.size < 16 or arguments.size % VQVAE.factor:
        raise UserError(f"--size {arguments.size}: expected a multiple of {VQVAE.factor} from 16 on; choose one such as 64")
    bf16 = has_bf16(arguments.device) if arguments.bf16 is None else arguments.bf16
    options = TrainingOptions(arguments.updates, arguments.minutes or None, arguments.batch_size, arguments.lr, arguments.seed, bf16)
    config = VQVAEConfig(num_codes=arguments.codes, width=arguments.width)
    out = Path(arguments.out)
    settings = {"size": arguments.size, "max_pictures": arguments.max_pictures, "images": arguments.images, **vars(options)}
    if is_done(out / TOKENIZER, config, settings, arguments.force):
        print(f"{out / TOKENIZER}: already complete")
        return 0
    pixels, held_out = training_pixels(open_pictures(arguments.images, arguments.image_column), arguments)
    torch.manual_seed(arguments.seed)
    tokenizer = VQVAE(config).to(arguments.device)

    def save(state: dict) -> None:
        write_checkpoint(vq_vae_content(tokenizer, settings=settings, state=state), out / UNFINISHED)

    state = train(tokenizer, pixels, options, unfinished(out / UNFINISHED, config, settings), save)
    found = quality(tokenizer, held_out)
    write_checkpoint(vq_vae_content(tokenizer, settings=settings, updates=state.update, seconds=state.seconds, quality=vars(found)),
                     out / TOKENIZER)  # fmt: skip
    (out / UNFINISHED).unlink(missing_ok=True)
    draw_samples(tokenizer, held_out[:32], out / SAMPLES)
    print(f"{out / TOKENIZER}: {state.update} updates in {state.seconds:.0f} s; {found.line(config.num_codes)}")
    print(f"{out / SAMPLES}: pictures that were kept apart, and below each what its codes give back")
    return 0


def is_done(path: Path, config, settings: dict, force: bool) -> bool:
    """Whether this very training is complete. Raises: UserError if the file is another tokenizer and ``force`` is not given."""
    from ofa.checkpoint import load_checkpoint

    if not path.is_file():
        return False
    content = load_checkpoint(path)
    if (content.get("config"), content.get("settings")) == (vars(config), settings):
        return True
    if not force:
        raise UserError(f"{path}: expected no tokenizer or one of these settings, found another one; choose another --out, or "
                        "replace it by --force")
    return False


def unfinished(path: Path, config, settings: dict) -> dict | None:
    """State of an interrupted training with these settings."""
    from ofa.checkpoint import load_checkpoint

    if not path.is_file():
        return None
    content = load_checkpoint(path)
    same = (content.get("config"), content.get("settings")) == (vars(config), settings)
    return content["state"] if same else None


def training_pixels(pictures, arguments: argparse.Namespace):
    """Tensors uint8[N, 3, S, S]: to learn from; kept apart (every twentieth, at most 256)."""
    import torch

    from ofa.data.picture_rows import make_square, spread, square_pixels
    from ofa.progress import counted

    squares, skipped = [], 0
    chosen = spread(len(pictures), arguments.max_pictures)
    for index in counted(chosen, len(chosen), arguments.images, "img"):
        try:
            squares.append(make_square(pictures[index], arguments.size))
        except UserError:
            if not arguments.skip_broken:
                raise
            skipped += 1
    if len(squares) < 2:
        raise UserError(f"{arguments.images}: expected at least 2 readable pictures, found {len(squares)}; give more")
    if skipped:
        print(f"{arguments.images}: {skipped} pictures cannot be read and are left out")
    pixels = torch.from_numpy(square_pixels(squares))
    apart = torch.zeros(len(pixels), dtype=torch.bool)
    apart[:: max(20, len(pixels) // 256)] = True
    return pixels[~apart], pixels[apart][:256]


def draw_samples(tokenizer, pixels, path: Path) -> None:
    """Rows of eight pictures, and below each row what the codes give back."""
    import torch
    from PIL import Image

    from ofa.atomic import replacing
    from ofa.models.image_tokenizer import decode_pictures, device_of, to_unit

    with torch.no_grad():
        codes = tokenizer.encode(to_unit(pixels).to(device_of(tokenizer)))
    originals = [Image.fromarray(picture) for picture in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    size = pixels.size(2)
    sheet = Image.new("RGB", (8 * size, 2 * size * -(-len(originals) // 8)), "white")
    for number, pair in enumerate(zip(originals, decode_pictures(tokenizer, codes))):
        for below, picture in enumerate(pair):
            sheet.paste(picture, (number % 8 * size, (2 * (number // 8) + below) * size))
    with replacing(path, "wb") as file:
        sheet.save(file, "PNG")


def run_show(arguments: argparse.Namespace) -> int:
    from ofa.models.image_tokenizer import load_image_tokenizer

    tokenizer = load_image_tokenizer(arguments.tokenizer)
    weights = sum(parameter.numel() for parameter in tokenizer.parameters())
    print(f"{arguments.tokenizer}: {type(tokenizer).__name__}, {weights:,} parameters")
    print(f"  {tokenizer.num_codes} codes, {tokenizer.factor} x {tokenizer.factor} pixels per code "
          f"(256 x 256 pixels: {(256 // tokenizer.factor) ** 2} codes)")
    return 0
