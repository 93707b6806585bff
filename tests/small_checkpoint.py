"""A checkpoint that is made in a moment, as a caption training would have left it."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import torch
from caption_files import make_vocabulary
from small_network import build_small

from ofa.tokens.bpe import load_language


def save_checkpoint(folder: Path, **switches) -> Path:
    """A network that predicts something, with the options of its training.

    Args: switches: as of ``build_small``.
    """
    _, vocabulary = load_language(make_vocabulary(folder / "vocabulary"), None, 16, 8)
    on = dict.fromkeys(("scale_attn", "scale_fc", "scale_heads", "disable_entangle"), True)
    model = build_small(len(vocabulary), **{"resnet_width": 64, **on, **switches})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_images" not in name:
                parameter += 0.2 * torch.randn_like(parameter)
    task = {
        "_name": "caption",
        "code_dict_size": 16,
        "num_bins": 8,
        "patch_image_size": 32,
        "bpe_dir": str(folder / "vocabulary"),
    }
    config = Namespace(**asdict(model.config), arch="ofa_tiny", _name="ofa_tiny")
    torch.save(
        {
            "args": None,
            "cfg": {"task": task, "model": config},
            "model": model.state_dict(),
            "optimizer_history": [{"num_updates": 5}],
            "extra_state": {},
        },
        folder / "source.pt",
    )
    return folder / "source.pt"
