"""Metrics as functions and small scorers: captions, answers, text recognition, images.

In: predictions and references as text or files. Out: numbers by name. ``CiderD``, ``Bleu``,
``RougeL``, ``Meteor`` and ``Spice`` share ``compute_score(gts, res) -> (mean, scores of each)``.
Others use these names, ``caption_scores``, ``Accuracy`` and the scorers of images. Imports
``ofa.task`` and below.
"""

from ofa.metrics.caption_scores import Bleu, Meteor, RougeL, Spice, coco_caption_scores
from ofa.metrics.cider import CiderD
from ofa.metrics.ptb import character_tokenize, ptb_tokenize

__all__ = [
    "Bleu",
    "CiderD",
    "Meteor",
    "RougeL",
    "Spice",
    "character_tokenize",
    "coco_caption_scores",
    "ptb_tokenize",
]
