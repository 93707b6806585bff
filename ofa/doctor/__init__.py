"""``ofa doctor``: checks environment, vocabulary, checkpoint and data before a training starts.

In: paths. Out: findings with file, row, expectation and remedy; repaired copies of files. ``rule``
is the table of rules, ``rules`` says what breaks them by the kind of a column; ``rows`` asks it of
a row, ``scan`` of a file. Used by ``ofa.cli`` alone.
"""
