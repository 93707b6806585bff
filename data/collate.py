"""Samples -> batch. The only collate function of the project.

The batch has the keys of the release::

    id            array[B] of strings or numbers
    nsentences    int B
    ntokens       int, target tokens that are not padding
    net_input     arguments of the model:
        src_tokens          int64[B, S]
        src_lengths         int64[B], without padding
        patch_images        float32[B, 3, H, W]
        patch_images_2      float32[B, 3, H, W]
        patch_masks         bool[B]
        code_masks          bool[B]
        prev_output_tokens  int64[B, T]
    target            int64[B, T]
    conf              float32[B]
    ref_dict          object array[B] of dicts
    constraint_masks  bool[B, T, V]; rows of padding are all True
    decoder_prompts   int64 array[B, P], or an object array of lists if their lengths differ
    prefix_tokens     int64[B, P - 1]
    target_strs       array[B] of strings
    code_images       array[B]
    w_resize_ratios, h_resize_ratios  float32[B]
    region_coords     float32[B, 4]

A key is there if the samples have it, and None if their value is None.
"""

from typing import Any, Callable

import numpy as np
import torch

from ofa.data.sample import Sample


def collate(samples: list[Sample], pad: int = 1) -> dict[str, Any]:
    """Batch of samples of one kind; padding is on the right. No samples give an empty dict.

    Args:
        pad: token id that fills short rows of tokens.
    """
    if not samples:
        return {}
    joins = {**JOINS, **{key: (name, TokenPadding(pad)) for key, name in TOKEN_KEYS.items()}}
    joined = {}
    for key in samples[0]:
        name, join = joins[key]
        values = [sample[key] for sample in samples]
        joined[name] = None if values[0] is None else join(values)
    joined["nsentences"] = len(samples)
    joined["ntokens"] = int(joined["target"].ne(pad).sum())
    joined["src_lengths"] = joined["src_tokens"].ne(pad).sum(dim=1)
    joined["net_input"] = {name: joined[name] for name in NET_INPUT if name in joined}
    return {name: joined[name] for name in ORDER if name in joined}


class TokenPadding:
    """Joins int64[L] of different lengths L to int64[B, longest]."""

    def __init__(self, pad: int):
        self.pad = pad

    def __call__(self, values: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=self.pad)


def join_masks(values: list[torch.Tensor]) -> torch.Tensor:
    """bool[T, V] of different lengths T -> bool[B, longest, V]; a padded position allows every token."""
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=True)


def join_prompts(values: list) -> np.ndarray:
    """Lists of tokens: a matrix if they are equally long, else an object array of lists."""
    lists = [np.asarray(value).tolist() for value in values]
    if len({len(value) for value in lists}) == 1:
        return np.array(lists)
    return join_objects(lists)


def join_objects(values: list) -> np.ndarray:
    """Object array[B] that keeps every value as it is."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


TOKEN_KEYS = {
    "source": "src_tokens",
    "prev_output_tokens": "prev_output_tokens",
    "target": "target",
    "prefix_tokens": "prefix_tokens",
}
JOINS: dict[str, tuple[str, Callable]] = {
    "id": ("id", np.array),
    "patch_image": ("patch_images", torch.stack),
    "patch_image_2": ("patch_images_2", torch.stack),
    "patch_mask": ("patch_masks", torch.cat),
    "code_mask": ("code_masks", torch.cat),
    "code_image": ("code_images", np.array),
    "conf": ("conf", torch.cat),
    "ref_dict": ("ref_dict", join_objects),
    "constraint_mask": ("constraint_masks", join_masks),
    "decoder_prompt": ("decoder_prompts", join_prompts),
    "target_str": ("target_strs", np.array),
    "w_resize_ratio": ("w_resize_ratios", torch.stack),
    "h_resize_ratio": ("h_resize_ratios", torch.stack),
    "region_coord": ("region_coords", torch.stack),
}
NET_INPUT = (
    "src_tokens", "src_lengths", "patch_images", "patch_images_2", "patch_masks", "code_masks",
    "prev_output_tokens",
)  # fmt: skip
ORDER = (
    "id", "nsentences", "ntokens", "net_input", "conf", "ref_dict", "constraint_masks", "decoder_prompts",
    "code_images", "target_strs", "target", "prefix_tokens", "w_resize_ratios", "h_resize_ratios",
    "region_coords",
)  # fmt: skip
