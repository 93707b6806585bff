"""The options of a checkpoint against its tensors, before a network or a vocabulary is made of
them.

A file of a few kilobytes may say ``encoder_ffn_embed_dim`` 10 000 000: the weights would not fit,
but that is found only after all memory is taken. What is a little too large passes: loading says
then which flag does not fit.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from ofa.checkpoints.architecture import fields_of
from ofa.errors import UserError
from ofa.models.config import ModelConfig

WIDER = 8  # times the width that the tensors have
MORE = 64  # more layers, heads, buckets, ... than the tensors have
ROOM = {
    "max_source_positions": 4096,
    "max_target_positions": 4096,
    "token_bucket_size": 4096,
    "code_image_size": 512,  # pixels
}
LARGEST = 1 << 16  # of sizes that no tensor tells
LARGEST_SIDE = 4096  # pixels of an image
COUNTS = ("code_dict_size", "num_bins", "patch_image_size")  # options of the task
NUMBERS = {field.name: field.type for field in fields(ModelConfig) if field.type in (int, float)}


def check_stored_sizes(
    path: object, options: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Refuse numbers that are none, and sizes far beyond those of the tensors.

    Args: options: of model and task, as the file stores them. weights: upstream names.
    Raises: UserError that names the file and the option.
    """
    for name, tensor in weights.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UserError(
                f"{path}: expected the tensors of a network, found {name}, which repeats the"
                " numbers of a smaller one; get the file from its authors"
            )
    try:
        shapes = fields_of(weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for name, kind in {**NUMBERS, **dict.fromkeys(COUNTS, int)}.items():
        value = options.get(name)
        if value is None:
            continue
        most = _most(name, shapes, weights) if kind is int else math.inf
        numeric = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not numeric or not 0 <= value <= most or value == math.inf:
            raise UserError(
                f"{path}: its options say {name} {str(value)[:60]!r}, expected a number from 0 to "
                f"{most} as its tensors have; take both from one model"
            )


def _most(name: str, shapes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> int:
    """The largest value of an option that is a size."""
    if name.endswith("patch_image_size"):
        return LARGEST_SIDE
    if name not in shapes:
        return max(LARGEST, *(max(tensor.shape, default=0) for tensor in weights.values()))
    if name.endswith(("_dim", "_width")):
        return WIDER * shapes[name]
    return shapes[name] + ROOM.get(name, MORE)
