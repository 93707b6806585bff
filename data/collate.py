"""Samples -> batch, with the keys of upstream. The only collate function of the project.

``FIELDS`` names the keys; a value is that of ``Sample`` with a dimension B in front. ``conf``,
``patch_masks`` and ``code_masks``, which have one element in a sample, are [B]. Arguments of the
model are in ``net_input``, with ``src_lengths`` int64[B], without padding; ``nsentences`` is B,
``ntokens`` the number of target tokens that are not padding.

A key is there if the samples have it, and None if their value is None. Samples of different tasks
may lie in one batch; for a key that only some of them have the others get a neutral value, which
changes nothing. The names of the samples' tasks stay out. Images of uint8 come with their
``image_statistics``, float32[B, 2, 3] (``normalize_images``); beside images that are float they are
normalized here. A batch of pretraining has ``image_rows``
int64[B], too (``rows_of_images``).

``facts``, in batches for a device alone, is what is known here and would be asked of the GPU again
and again, each time with a wait until it has caught up:

    source_padding: bool, some source token or image is padding
    target_padding: bool, some of prev_output_tokens is
    image_codes: True, all targets are image codes; False, none is; None, some are
    num_images: int, different images of a batch with ``image_rows``
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ofa.data.encoded_images import EncodedImage, EncodedImages
from ofa.data.images import IMAGE_STATISTICS, normalized
from ofa.data.sample import TASK, Sample

FACTS = "facts"
IMAGE_ROWS = "image_rows"  # int64[B]: see ``rows_of_images``


def collate(samples: list[Sample], pad: int = 1, for_device: bool = False) -> dict[str, Any]:
    """Batch of samples, padded on the right; an empty dict of none.

    Args: pad: token id. for_device: with ``facts``, which upstream has not.
    Raises: ValueError if a key needs a value where nothing is neutral.
    """
    if not samples:
        return {}
    samples = with_images_of_one_type(samples)
    batch: dict[str, Any] = {"net_input": {}}
    for key in dict.fromkeys(key for sample in samples for key in sample if key != TASK):
        name, join, neutral = FIELDS[key]
        values: list[Any] = [sample.get(key) for sample in samples]
        present = next((value for value in values if value is not None), None)
        for place, sample in enumerate(samples):
            if values[place] is None and present is not None:
                if neutral is None:
                    raise ValueError(f"samples with and without '{key}' cannot lie in one batch")
                values[place] = neutral(present, sample)
        more = (pad,) if join is join_tokens else ()
        part = batch["net_input"] if key in NET_INPUT else batch
        part[name] = None if values[0] is None else join(values, *more)
    batch["net_input"]["src_lengths"] = batch["net_input"]["src_tokens"].ne(pad).sum(dim=1)
    ntokens = int(batch["target"].ne(pad).sum())
    facts = {FACTS: facts_of(batch["net_input"], pad)} if for_device else {}
    return batch | {"nsentences": len(samples), "ntokens": ntokens, **facts}


def facts_of(net_input: dict[str, Any], pad: int) -> dict[str, Any]:
    """See above. Args: net_input: of a batch, on the CPU."""
    images, codes = net_input.get("patch_masks"), net_input.get("code_masks")
    padded = bool(net_input["src_tokens"].eq(pad).any())
    every, some = (False, False) if codes is None else (bool(codes.all()), bool(codes.any()))
    return {
        "source_padding": padded or images is not None and not bool(images.all()),
        "target_padding": bool(net_input["prev_output_tokens"].eq(pad).any()),
        "image_codes": every if every == some else None,
    }


def with_images_of_one_type(samples: list[Sample]) -> list[Sample]:
    """The samples, their images normalized unless all are uint8."""
    images = (sample.get("patch_image") for sample in samples)
    types = {image.dtype for image in images if image is not None}
    if len(types) < 2 or torch.uint8 not in types:
        return samples
    found: list[Any] = [dict(sample) for sample in samples]
    for sample in found:
        statistics = sample.pop(IMAGE_STATISTICS, None)
        for name in IMAGES & sample.keys() if statistics is not None else ():
            image = sample[name]
            if isinstance(image, EncodedImage):
                image = EncodedImages.join([image]).pixels(statistics.device)[0]
            sample[name] = normalized(image, statistics)
    return found


def rows_of_images(samples: list[Sample]) -> torch.Tensor:
    """int64[B]: for each sample the first with the very same image (one tensor, not an equal one).
    Nobody looks at the image of a sample without one: its row is that of another image, if any."""
    first: dict[int, int] = {}
    rows = [first.setdefault(id(sample["patch_image"]), row) for row, sample in enumerate(samples)]
    shown = next((row for row, sample in zip(rows, samples) if sample["patch_mask"]), 0)
    return torch.tensor(
        [row if sample["patch_mask"] else shown for row, sample in zip(rows, samples)]
    )


def join_tokens(values: list[torch.Tensor], pad: int) -> torch.Tensor:
    """int64[L] of different lengths L -> int64[B, longest]."""
    return pad_sequence(values, batch_first=True, padding_value=pad)


def join_images(values: list[Any]) -> torch.Tensor | EncodedImages:
    """[3, H, W] -> [B, 3, H, W]; files stay files."""
    if any(isinstance(value, EncodedImage) for value in values):
        return EncodedImages.join(values)
    return torch.stack(values)


def blank_like(image: torch.Tensor | EncodedImage) -> torch.Tensor:
    if isinstance(image, EncodedImage):
        return torch.zeros(3, image.side, image.side, dtype=torch.uint8)
    return torch.zeros_like(image)


def join_masks(values: list[torch.Tensor]) -> torch.Tensor:
    """bool[T, V] -> bool[B, longest, V]; a padded position allows every token."""
    return pad_sequence(values, batch_first=True, padding_value=True)


def join_prompts(values: list) -> np.ndarray:
    """Lists of tokens: a matrix if they are equally long, else an object array of lists."""
    lists = [np.asarray(value).tolist() for value in values]
    return np.array(lists) if len({len(value) for value in lists}) == 1 else join_objects(lists)


def join_objects(values: list) -> np.ndarray:
    """Object array[B] that keeps every value as it is."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


IMAGES = {"patch_image", "patch_image_2"}
NO_CHANGE = torch.tensor([[0.0] * 3, [1.0] * 3])  # mean and deviation: a filler of zeros stays so
Neutral = Callable[[Any, Sample], Any]  # (the value of another sample, the sample) -> value
# Key of a sample -> key of the batch, how values are joined, what stands for one that is missing.
FIELDS: dict[str, tuple[str, Any, Neutral | None]] = {
    "id": ("id", np.array, lambda other, _: ""),
    "source": ("src_tokens", join_tokens, None),
    "patch_image": ("patch_images", join_images, lambda other, _: blank_like(other)),
    "patch_image_2": ("patch_images_2", join_images, None),
    IMAGE_STATISTICS: (IMAGE_STATISTICS, torch.stack, lambda other, _: NO_CHANGE),
    "patch_mask": ("patch_masks", torch.cat, lambda other, _: torch.tensor([False])),
    "code_mask": ("code_masks", torch.cat, lambda other, _: torch.tensor([False])),
    "prev_output_tokens": ("prev_output_tokens", join_tokens, None),
    "target": ("target", join_tokens, None),
    "conf": ("conf", torch.cat, lambda other, _: torch.ones_like(other)),
    "ref_dict": ("ref_dict", join_objects, lambda other, _: {}),
    "constraint_mask": (
        "constraint_masks",
        join_masks,
        lambda other, sample: other.new_ones(len(sample["target"]), other.shape[1]),
    ),
    "answers": ("answers", join_objects, lambda other, _: None),
    "decoder_prompt": (
        "decoder_prompts",
        join_prompts,
        lambda other, sample: sample["prev_output_tokens"][:1].numpy(),
    ),
    "prefix_tokens": ("prefix_tokens", join_tokens, lambda other, _: other.new_empty(0)),
    "target_str": ("target_strs", np.array, lambda other, _: ""),
    "code_image": ("code_images", np.array, None),
    "w_resize_ratio": ("w_resize_ratios", torch.stack, lambda other, _: torch.ones_like(other)),
    "h_resize_ratio": ("h_resize_ratios", torch.stack, lambda other, _: torch.ones_like(other)),
    "region_coord": ("region_coords", torch.stack, lambda other, _: torch.zeros_like(other)),
}
NET_INPUT = "source patch_image patch_image_2 patch_mask code_mask prev_output_tokens".split()
