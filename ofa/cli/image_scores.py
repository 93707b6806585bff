"""``ofa image-scores``: how good the images of a folder are together, by FID and Inception
score."""

from dataclasses import dataclass

from ofa.cli.options import QualityOptions
from ofa.io.flags import Parser, command, option

EXAMPLE = """\
examples:
  ofa image-scores results/images/top1 --real results/images/reference \\
      --inception-model-path pt_inception-2015-12-05-6726825d.pth
  ofa image-scores results/images/top1 --real gt_stat.npz \\
      --inception-model-path pt_inception-2015-12-05-6726825d.pth"""


@dataclass(frozen=True, kw_only=True)
class ImageScoresOptions(QualityOptions):
    """Images to score."""

    folder: str = option(help="folder of images (ofa evaluate: .../top1)", positional=True)
    out: str | None = option(None, "file for the scores")


def set_up(parser: Parser) -> None:
    """The flags of ``ofa image-scores``."""
    command(parser, ImageScoresOptions, run, EXAMPLE)


def run(args: ImageScoresOptions) -> int:
    """Compute, print, write. Returns: 0, or 1 if images could not be read."""
    from ofa.io.image_files import list_images, readable
    from ofa.metrics.fid import image_scores, load_extractor, real_images
    from ofa.task.results import write_json

    images, broken = readable(list_images(args.folder))
    real = real_images(args.real_images) if args.real_images else None
    if isinstance(real, list):
        real, broken_real = readable(real)
        broken |= broken_real
    extractor = load_extractor(args.inception_model_path, args.feature_extractor)
    scores = image_scores(images, extractor, real)
    for name, value in scores.items():
        print(f"{name:14}{value:10.4f}")
    if args.out:
        write_json(args.out, {"scores": scores, "pictures": len(images)})
    return 1 if broken else 0
