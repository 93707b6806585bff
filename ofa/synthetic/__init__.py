"""Synthetic data sets that a small model learns in minutes: shapes, words to read, sentences.

In: sizes and a seed. Out: the training files of every task, with known answers; ``shapes_check``
sees what an image of shapes shows. Used by ``ofa.cli``, ``ofa.demo`` and the tests.
"""
