"""Scores of predictions: the same functions in validation, in rewards and in ``ofa evaluate``."""

from ofa.metrics.cider import CiderD

__all__ = ["CiderD"]
