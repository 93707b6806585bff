"""What ``ofa convert`` writes for this project is loaded as a checkpoint of a training is."""

from argparse import Namespace
from dataclasses import asdict

import pytest
import torch
from caption_files import make_vocabulary
from PIL import Image
from small_network import build_small

from ofa import OFA
from ofa.bpe import load_language
from ofa.cli.main import main
from ofa.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that says something, with the options of a caption training."""
    folder = tmp_path_factory.mktemp("converted")
    _, vocabulary = load_language(make_vocabulary(folder / "vocabulary"), None, 16, 8)
    switches = dict.fromkeys(("scale_attn", "scale_fc", "scale_heads", "disable_entangle"), True)
    model = build_small(len(vocabulary), resnet_width=64, **switches)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_images" not in name:
                parameter += 0.2 * torch.randn_like(parameter)
    task = {"_name": "caption", "code_dict_size": 16, "num_bins": 8, "patch_image_size": 32, "bpe_dir": str(folder / "vocabulary")}
    config = Namespace(**asdict(model.config), arch="ofa_tiny", _name="ofa_tiny")
    torch.save({"args": None, "cfg": {"task": task, "model": config}, "model": model.state_dict(),
                "optimizer_history": [{"num_updates": 5}], "extra_state": {}}, folder / "source.pt")  # fmt: skip
    return folder / "source.pt"


def test_the_same_is_said_after_a_way_through_another_layout(checkpoint, tmp_path):
    there, back = str(tmp_path / "there"), str(tmp_path / "back.safetensors")
    assert main(["convert", str(checkpoint), "--to", "huggingface", "--out", there]) == 0
    vocabulary = ["--bpe-dir", str(checkpoint.parent / "vocabulary")]
    assert main(["convert", there, "--to", "ofa", "--out", back, *vocabulary]) == 0
    assert main(["convert", str(checkpoint), "--to", "fairseq", "--out", str(tmp_path / "released.pt")]) == 0
    picture = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    said = []
    for path in (checkpoint, back, tmp_path / "released.pt"):
        answer = OFA.load(path, device="cpu").caption(picture, beam=3, max_len_b=6)
        said.append((str(answer), round(answer.score, 6)))
    assert said[0][0] and said == [said[0]] * 3


def test_a_folder_of_another_project_is_not_taken_for_a_checkpoint(checkpoint, tmp_path):
    assert main(["convert", str(checkpoint), "--to", "huggingface", "--out", str(tmp_path / "there")]) == 0
    for path in (tmp_path / "there", tmp_path / "there/model.safetensors"):
        with pytest.raises(UserError, match="ofa convert --to ofa"):
            OFA.load(path)
