"""Checkpoint files: read, adapted to a network, written, converted, averaged, merged, compared.

In: files of this project, of upstream, Hugging Face and mmpretrain. Out: weights under the
upstream names, a ``ModelConfig``, the options of the training; files that other programs read.
Others use ``read``, ``read_source`` (to convert), ``load_into``, ``network_of``,
``check_stored_sizes``. Bytes are read by ``ofa.io.safe_load``. Imports ``ofa.models`` and below.
"""
