"""Losses as pure functions, and the fairseq criterions that call them.

In: logits and targets, or sampled captions and references. Out: a loss summed over tokens, and
what is logged. The functions are in ``losses`` and ``caption_reward``; importing the
``fairseq_*`` files registers the criterions. The functions know no model and no framework.
"""
