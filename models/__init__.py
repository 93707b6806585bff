"""The network: presets, encoder, decoder, image stems, parameter-efficient tuning.

In: token ids, patches of up to two images. Out: logits float[B, T, V] and a dict of extras.
Others use ``OFAModel`` (``ofa_model``), ``ModelConfig`` and ``PRESETS`` (``config``),
``inference_network``; ``fairseq_model`` registers the architectures. Knows no data, no tasks and
no files. ``generation/`` and ``image_tokenizer/`` are built on it.
"""
