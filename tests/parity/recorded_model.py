"""Models and batches as a recording describes them."""

import argparse
import random

import fill
import numpy as np
import torch

from ofa.models.config import ModelConfig, add_flags
from ofa.models.ofa_model import OFAModel

VOCAB_SIZE = 59457


def recorded_config(arch: str, flags: list[str]) -> ModelConfig:
    """The configuration of an upstream command line."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, allow_abbrev=False)
    add_flags(parser)
    for name in ("patch-image-size", "orig-patch-image-size", "num-bins"):  # the task's
        parser.add_argument(f"--{name}", type=int)
    return ModelConfig.from_namespace(parser.parse_args(flags), arch)


def recorded_model(meta: dict, **changes) -> OFAModel:
    """The model of a recording, with its weights, in evaluation mode."""
    config = recorded_config(meta["arch"], meta["flags"])
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.no_grad():
        model = OFAModel(config, VOCAB_SIZE)
        for name, shape in meta.get("heads", []):
            model.register_classification_head(name, **shape)
        fill.fill_state_dict(
            model.state_dict(),
            meta["seed"],
            meta.get("logit_scale", 1.0),
            meta.get("row_scale"),
            meta.get("name_scale"),
        )
    return model.eval()


def recorded_inputs(case: dict) -> dict:
    """Keyword arguments of the recorded call. Seeds Python's generator as the recording did."""
    if "python_random_seed" in case["meta"]:
        random.seed(case["meta"]["python_random_seed"])
    inputs = {
        name: torch.from_numpy(case[name])
        for name in ("src_tokens", "src_lengths", "prev_output_tokens", "patch_masks", "code_masks")
        if name in case
    }
    for name in ("patch_images", "patch_images_2"):
        if f"{name}_u8" in case:
            inputs[name] = torch.from_numpy(fill.images_from_u8(case[f"{name}_u8"]))
    return {**inputs, **case["meta"].get("call", {})}


def assert_near(found, expected: np.ndarray, atol: float, rtol: float = 0.0) -> None:
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(found, expected, atol=atol, rtol=rtol)
