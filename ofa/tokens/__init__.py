"""One vocabulary: text, image codes and locations are entries of the same list.

In: text, boxes in pixels, image codes. Out: token ids and symbols such as ``<bin_12>`` and
``<code_17>``, and back. Others use ``Vocabulary``, ``load_bpe``, the functions of ``boxes`` and
``image_codes``, and ``Trie`` for allowed answers. ``train_tokenizer`` and ``download`` make
vocabulary folders. Imports only ``ofa.io``.
"""
