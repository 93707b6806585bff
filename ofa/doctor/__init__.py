"""``ofa doctor``: checks environment, vocabulary, checkpoint and data before a training starts.

In: paths. Out: findings with file, row, expectation and remedy; repaired copies of files. The
rules of the columns are in ``text_rules`` and ``field_rules``, their table in ``rules``, the
reading in ``scan``. Used by ``ofa.cli`` alone.
"""
