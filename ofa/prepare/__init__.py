"""Data sets as published, and people's own tables -> training files. One file per source.

In: downloaded annotations and image folders. Out: TSV files in the columns of the tasks, with a
manifest. A source returns the rows it found (``prepared_dataset``); ``write_dataset`` checks
every image and writes them through ``tsv_writer``, which resumes. Used by ``ofa.cli`` and
``ofa.synthetic``.
"""
