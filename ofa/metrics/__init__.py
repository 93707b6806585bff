"""Scores of predictions: the same functions in validation, in rewards and in ``ofa evaluate``."""

from ofa.metrics.caption import Bleu, Meteor, RougeL, Spice, coco_caption_scores
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
