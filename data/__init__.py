"""From files to batches: rows by number, samples, augmentation, mixtures, shards.

In: TSV files or WebDataset shards, a ``TaskSpec``, a vocabulary. Out: samples and collated
batches of tensors whose content depends on (seed, epoch, index) alone. Others use ``open_rows``,
``SampleBuilder``, ``collate`` and the datasets of the ``fairseq_*`` files.
"""
