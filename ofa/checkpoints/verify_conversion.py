"""Proof that two files hold the same model: their logits on a fixed batch of images and text,
and of image codes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ofa.checkpoints.adapt import CONSTANTS, EMBEDDINGS, adapt_state_dict, check_fit
from ofa.checkpoints.read import Source
from ofa.errors import UserError
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel
from ofa.models.positions import code_positions, image_buckets, token_buckets

SEED = 7
# samples, tokens of a source, of a target, of a target of codes
BATCH, WORDS, ANSWER, CODES = (2, 12, 9, 17)
PATCHES = 4, 3  # of an image of the batch, at most


def network(config: ModelConfig, weights: Mapping[str, Tensor]) -> OFAModel:
    """The network around given tensors, which are not copied; its constant tables are made anew.

    Args: weights: upstream names. Raises: UserError if they are not all of the network's, or do not
    fit it.
    """
    state = dict(weights)
    config.load_checkpoint_heads = True
    with torch.device("meta"):
        model = OFAModel(config, len(state[EMBEDDINGS[0]]))
        adapt_state_dict(model, state)
    check_fit(model, state)
    state |= constants(config)
    state |= {
        key: torch.zeros((), dtype=torch.long)
        for key in state
        if key.endswith("num_batches_tracked") and state[key].is_meta
    }
    absent = [key for key, value in state.items() if value.is_meta]
    if absent:
        raise UserError(
            f"{len(absent)} tensors missing from the checkpoint ({', '.join(absent[:3])}, ...); is"
            " the file complete?"
        )
    nn.Module.load_state_dict(model, state, assign=True)
    return model.eval()


def network_of(source: Source) -> OFAModel:
    """The network of a file. Raises: UserError that names the file, if its tensors are not all
    of the network's."""
    try:
        return network(source.config, source.weights)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None


def constants(config: ModelConfig) -> dict[str, Tensor]:
    """The tables that follow from the configuration, upstream names."""
    tables = {
        "decoder.image_position_idx": code_positions(
            config.code_image_size, config.image_bucket_size
        )
    }
    for side in ("encoder", "decoder"):
        tables[f"{side}.version"] = torch.tensor([3.0])
        tables[f"{side}.token_rp_bucket"] = token_buckets(config.token_bucket_size)
        tables[f"{side}.image_rp_bucket"] = image_buckets(config.image_bucket_size)
    assert all(key.endswith(CONSTANTS) for key in tables)
    return tables


def fixed_batches(config: ModelConfig, num_entries: int) -> dict[str, dict[str, Any]]:
    """The same for every model of these sizes: name -> ``net_input``.

    ``image and text`` has a padded source, and one sample of two without its image; ``codes`` a
    target of image codes.
    """
    random = torch.Generator().manual_seed(SEED)

    def tokens(length: int, longest: int) -> Tensor:
        return torch.randint(
            min(4, num_entries - 1), num_entries, (BATCH, min(length, longest)), generator=random
        )

    rows, columns = (min(side, config.image_bucket_size) for side in PATCHES)
    source = tokens(WORDS, config.max_source_positions)
    source[1, -source.size(1) // 3 :] = 1
    images = torch.rand(BATCH, 3, 16 * rows, 16 * columns, generator=random) * 2 - 1
    target = tokens(ANSWER, config.max_target_positions)
    target[:, 0] = 0
    codes = tokens(CODES, min(config.max_target_positions, (config.code_image_size // 8) ** 2 + 1))
    codes[:, 0] = 0
    text = {
        "src_tokens": source,
        "patch_images": images,
        "patch_masks": torch.tensor([True, False]),
        "prev_output_tokens": target,
    }
    return {
        "image and text": text,
        "codes": {
            "src_tokens": source,
            "prev_output_tokens": codes,
            "code_masks": torch.ones(BATCH, dtype=torch.bool),
        },
    }


@torch.inference_mode()
def logits(model: OFAModel, num_entries: int) -> dict[str, Tensor]:
    """float32[B, T, V] for every batch of ``fixed_batches``. The weights of the model become
    float32."""
    model = model.float()
    return {
        name: model(**batch)[0] for name, batch in fixed_batches(model.config, num_entries).items()
    }


def largest_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Batch -> largest difference of two models' logits; NaN where one of them is not finite."""
    return {name: (one[name] - other[name]).abs().max().item() for name in one}
