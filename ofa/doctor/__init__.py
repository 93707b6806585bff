"""``ofa doctor``: looks over what a training needs - environment, vocabulary, checkpoint, data -
before it starts.

The data part is a table of rules (``rules``), a table of the columns of every kind of file
(``layouts``), and the machinery that runs the rules over every row (``scan``) and mends what can be
mended (``repair``).
"""
