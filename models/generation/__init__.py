"""Generation: from encoded images and text to hypotheses with scores.

In: models, a batch, ``GenerationOptions``. Out: per row a list of dicts with tokens and scores,
best first. Others use ``SequenceGenerator`` (``generator``), ``GenerationOptions`` and
``AnswerRanker`` (``ranking``), which scores all answers of a set at once. ``search`` chooses
tokens, ``constraints`` forbids them. Imports ``ofa.models`` and ``ofa.tokens``.
"""
