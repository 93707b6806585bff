"""How well an image and a text fit: CLIP from a file on this machine, or any class with the same
method.

scorer = load_scorer("ViT-B-16.pt")
scorer.score([image, image], ["a circle", "two dogs"])  # cosine of CLIP's features, pairwise
scorer.compare([image], [other])                          # the same for two images
"""

import importlib
from typing import Any

from ofa.errors import UserError


def class_of(flag: str, name: str) -> Any:
    """``MODULE:CLASS`` -> the class. Raises: UserError with ``flag`` if it is not there."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{flag}: expects MODULE:CLASS that Python can import, found {name!r} ({error})"
        ) from None


def load_scorer(clip_path: str | None = None, class_name: str | None = None) -> Any:
    """A scorer that flags name. Args: class_name: ``MODULE:CLASS``, goes before CLIP. Raises:
    UserError if the class is not there or has no ``score``, or CLIP cannot be loaded."""
    if not class_name:
        from ofa.metrics.clip_score import ClipScorer

        return ClipScorer(clip_path or "")
    found = class_of("--image-text-scorer", class_name)
    if not callable(getattr(found, "score", None)):
        raise UserError(
            f"--image-text-scorer {class_name}: expects a method score(images, texts), found none"
        )
    return found()
