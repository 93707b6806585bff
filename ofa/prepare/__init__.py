"""Data sets as published, and people's own tables -> training files. One file per source.

In: downloaded annotations and image folders. Out: TSV files in the columns of the tasks, with a
manifest. A source reads its annotations (``annotations``) into a ``PreparedDataset`` (``dataset``);
``source`` checks, writes and resumes. Used by ``ofa.cli`` and ``ofa.synthetic``.
"""
