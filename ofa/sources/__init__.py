"""Data sets as their authors ship them -> rows of the training files. One module per data set.

Each module has a function ``read_...`` that reads the annotations, finds the pictures' files and
returns a
``ofa.sources.found.Found``: which rows go to which file. ``ofa.sources.writing.prepare`` does the
rest, the same for all.
"""
