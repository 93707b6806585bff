"""Checkpoint files: read, adapted to a network, written, converted, averaged, merged, compared.

In: files of this project, of upstream, Hugging Face and mmpretrain. Out: ``Checkpoint`` (weights
under upstream's names, options, ``ModelConfig``), networks, files. Others use ``read``,
``read_source`` (to convert), ``load_into``, ``network_of``. Imports ``ofa.models`` and below.
"""
