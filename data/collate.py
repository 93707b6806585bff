"""Samples -> batch. The only collate function of the project.

The batch has the keys of upstream::

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

A key is there if the samples have it, and None if their value is None. Samples of different tasks
may lie in one batch; for a key that only some of them have the others get a value that changes
nothing (``NEUTRAL``). A batch of pretraining has ``image_rows`` int64[B], too (``rows_of_images``).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ofa.data.sample import Sample

IMAGE_ROWS = "image_rows"  # int64[B]: see ``rows_of_images``


def collate(samples: list[Sample], pad: int = 1) -> dict[str, Any]:
    """Batch of samples; padding is on the right. No samples give an empty dict.

    Args:
        pad: token id that fills short rows of tokens.
    """
    if not samples:
        return {}
    joins = JOINS | {key: (name, TokenPadding(pad)) for key, name in TOKEN_KEYS.items()}
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for sample in samples for key in sample):
        name, join = joins[key]
        values = values_of(key, samples)
        joined[name] = None if values[0] is None else join(values)
    joined["nsentences"] = len(samples)
    joined["ntokens"] = int(joined["target"].ne(pad).sum())
    joined["src_lengths"] = joined["src_tokens"].ne(pad).sum(dim=1)
    joined["net_input"] = {name: joined[name] for name in NET_INPUT if name in joined}
    return {name: joined[name] for name in ORDER if name in joined}


def values_of(key: str, samples: list[Sample]) -> list:
    """The value of every sample, neutral ones where a sample has none; None throughout if no sample
    has one.

    Raises: ValueError if nothing is neutral for the key.
    """
    values = [sample.get(key) for sample in samples]
    present = next((value for value in values if value is not None), None)
    if present is None:
        return values
    if key not in NEUTRAL and any(value is None for value in values):
        raise ValueError(f"samples with and without '{key}' cannot lie in one batch")
    return [
        NEUTRAL[key](sample, present) if value is None else value
        for value, sample in zip(values, samples)
    ]


def rows_of_images(samples: list[Sample]) -> torch.Tensor:
    """int64[B]: for each sample the first with the very same image (one tensor, not an equal one).

    Nobody looks at the image of a sample without one; its row is that of another sample's image
    where there is one.
    """
    first: dict[int, int] = {}
    rows = [first.setdefault(id(sample["patch_image"]), row) for row, sample in enumerate(samples)]
    shown = next((row for row, sample in zip(rows, samples) if sample["patch_mask"]), 0)
    return torch.tensor(
        [row if sample["patch_mask"] else shown for row, sample in zip(rows, samples)]
    )


class TokenPadding:
    """Joins int64[L] of different lengths L to int64[B, longest]."""

    def __init__(self, pad: int):
        self.pad = pad

    def __call__(self, values: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=self.pad)


def join_masks(values: list[torch.Tensor]) -> torch.Tensor:
    """bool[T, V] of different lengths T -> bool[B, longest, V]; a padded position allows every
    token."""
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
    "answers": ("answers", join_objects),
    "decoder_prompt": ("decoder_prompts", join_prompts),
    "target_str": ("target_strs", np.array),
    "w_resize_ratio": ("w_resize_ratios", torch.stack),
    "h_resize_ratio": ("h_resize_ratios", torch.stack),
    "region_coord": ("region_coords", torch.stack),
}
# What stands for a value that a sample does not have: (the sample, the value of another one) ->
# value.
NEUTRAL: dict[str, Callable[[Sample, Any], Any]] = {
    "id": lambda sample, other: "",
    "patch_image": lambda sample, other: torch.zeros_like(other),
    "patch_mask": lambda sample, other: torch.tensor([False]),
    "code_mask": lambda sample, other: torch.tensor([False]),
    "conf": lambda sample, other: torch.tensor([1.0]),
    "ref_dict": lambda sample, other: {},
    "constraint_mask": lambda sample, other: other.new_ones(len(sample["target"]), other.shape[1]),
    "answers": lambda sample, other: None,
    "decoder_prompt": lambda sample, other: sample["prev_output_tokens"][:1].numpy(),
    "prefix_tokens": lambda sample, other: other.new_empty(0),
    "target_str": lambda sample, other: "",
    "w_resize_ratio": lambda sample, other: torch.tensor(1.0),
    "h_resize_ratio": lambda sample, other: torch.tensor(1.0),
    "region_coord": lambda sample, other: torch.zeros(4),
}
NET_INPUT = (
    "src_tokens",
    "src_lengths",
    "patch_images",
    "patch_images_2",
    "patch_masks",
    "code_masks",
    "prev_output_tokens",
)
ORDER = (
    "id",
    "nsentences",
    "ntokens",
    "net_input",
    "conf",
    "ref_dict",
    "constraint_masks",
    "answers",
    "decoder_prompts",
    "code_images",
    "target_strs",
    "target",
    "prefix_tokens",
    "w_resize_ratios",
    "h_resize_ratios",
    "region_coords",
)
