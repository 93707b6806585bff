"""``ofa doctor``: checks environment, vocabulary, checkpoint and data before a training starts.

In: paths. Out: findings with file, row, expectation and remedy; repaired copies of files. The
rules go by the kind of a column: ``rules``, ``text_rules``; ``rows`` asks them of a row, ``scan``
of a file. Used by ``ofa.cli`` alone.
"""
