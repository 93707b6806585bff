"""Data sets as published, and people's own tables -> training files. One file per source.

In: downloaded annotations and image folders. Out: TSV files in the columns of the tasks, with a
manifest. A file of a source holds what is particular to it: its options, how its annotations
(``annotations``) become the rows of a ``PreparedDataset`` (``dataset``), and both as a ``Source``
(``source``), which checks, writes and resumes. Used by ``ofa.cli`` and ``ofa.synthetic``.
"""
