"""Images as codes and back: upstream's VQGAN, and a small VQ-VAE that learns on a CPU.

In: images of one size. Out: codes int64[B, h, w], and images from codes. Others use
``load_image_tokenizer``, ``encode_images``, ``decode_images`` (``codec``); the interface of a
tokenizer is ``ImageTokenizer``. Imports ``ofa.io`` alone.
"""
