"""``ofa image-scores``: how good the images of a folder are together, by FID and Inception
score."""

import argparse

EXAMPLE = """\
examples:
  ofa image-scores results/images/top1 --real results/images/reference \\
      --inception-model-path pt_inception-2015-12-05-6726825d.pth
  ofa image-scores results/images/top1 --real gt_stat.npz \\
      --inception-model-path pt_inception-2015-12-05-6726825d.pth"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "image-scores",
        help="FID and Inception score of a folder of images",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", help="of images (ofa evaluate: .../top1)")
    add_quality_flags(parser, "--real")
    parser.add_argument("--out", metavar="FILE.json", help="write the scores")
    parser.set_defaults(run=run)


def add_quality_flags(parser, real: str) -> None:
    """Args: parser: or a group of one. real: the flag that names real images."""
    parser.add_argument(
        real,
        dest="real_images",
        metavar="DIR_OR_NPZ",
        help="real images, or gt_stat.npz with mu and sigma of their features",
    )
    parser.add_argument(
        "--inception-model-path",
        metavar="FILE",
        help="weights of Inception: compute FID and Inception score",
    )
    parser.add_argument(
        "--feature-extractor",
        metavar="MODULE:CLASS",
        help="instead of Inception: called with uint8[B, 3, H, W], returns features and logits",
    )


def run(args: argparse.Namespace) -> int:
    """Compute, print, write. Returns: 0, or 1 if images could not be read."""
    from ofa.io.image_files import readable
    from ofa.io.image_paths import list_images
    from ofa.metrics.fid import image_scores, load_extractor, real_images
    from ofa.task.results import write_json

    images, broken = readable(list_images(args.folder))
    real = real_images(args.real_images) if args.real_images else None
    if isinstance(real, list):
        real, broken_real = readable(real)
        broken |= broken_real
    scores = image_scores(
        images, load_extractor(args.inception_model_path, args.feature_extractor), real
    )
    for name, value in scores.items():
        print(f"{name:14}{value:10.4f}")
    if args.out:
        write_json(args.out, {"scores": scores, "pictures": len(images)})
    return 1 if broken else 0
