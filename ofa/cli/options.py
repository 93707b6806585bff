"""Options that several commands share."""

from dataclasses import dataclass
from typing import Any

from ofa.inference.options import ModelOptions
from ofa.io.flags import option


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    """Whether a result may take the place of another."""

    overwrite: bool = option(False, "replace what is there", also=("--force",))


@dataclass(frozen=True, kw_only=True)
class QualityOptions:
    """How the quality of images is measured."""

    TITLE = "image quality"

    real_images: str | None = option(
        None,
        "real images, or gt_stat.npz with mu and sigma of their features",
        also=("--real",),
        metavar="DIR|NPZ",
    )
    inception_model_path: str | None = option(
        None, "weights of Inception, for FID and Inception score"
    )
    feature_extractor: str | None = option(
        None,
        "instead of Inception: uint8[B, 3, H, W] to features and logits",
        metavar="MODULE:CLASS",
    )


def load(options: ModelOptions, **overrides: Any) -> Any:
    """The model of a command. Args: overrides: as of ``OFA.load``; None counts as left out."""
    from ofa.inference.api import OFA

    given = {name: value for name, value in overrides.items() if value is not None}
    return OFA.load(
        options.checkpoint,
        options.bpe_dir,
        device=options.device,
        ema=options.ema,
        base=options.base,
        **given,
    )
