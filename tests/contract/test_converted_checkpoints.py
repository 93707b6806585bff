"""What ``ofa convert`` writes for this project is loaded as a checkpoint of a training is."""

import pytest
import torch
from PIL import Image
from small_checkpoint import save_checkpoint

from ofa import OFA
from ofa.cli.main import main
from ofa.errors import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network that says something, with the options of a caption training."""
    return save_checkpoint(tmp_path_factory.mktemp("converted"))


def test_the_same_is_said_after_a_way_through_another_layout(checkpoint, tmp_path):
    there, back = str(tmp_path / "there"), str(tmp_path / "back.safetensors")
    assert main(["convert", str(checkpoint), "--to", "huggingface", "--out", there]) == 0
    vocabulary = ["--bpe-dir", str(checkpoint.parent / "vocabulary")]
    assert main(["convert", there, "--to", "ofa", "--out", back, *vocabulary]) == 0
    assert (
        main(
            ["convert", str(checkpoint), "--to", "fairseq", "--out", str(tmp_path / "upstream.pt")]
        )
        == 0
    )
    image = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB")
    said = []
    for path in (checkpoint, back, tmp_path / "upstream.pt"):
        answer = OFA.load(path, device="cpu").caption(image, beam=3, max_len_b=6)
        said.append((str(answer), round(answer.score, 6)))
    assert said[0][0] and said == [said[0]] * 3


def test_a_folder_of_another_project_is_not_taken_for_a_checkpoint(checkpoint, tmp_path):
    assert (
        main(["convert", str(checkpoint), "--to", "huggingface", "--out", str(tmp_path / "there")])
        == 0
    )
    for path in (tmp_path / "there", tmp_path / "there/model.safetensors"):
        with pytest.raises(UserError, match="ofa convert --to ofa"):
            OFA.load(path)


@pytest.mark.parametrize("given, size", [({}, 256), ({"patch_image_size": 64}, 64)])
def test_a_file_that_stores_no_image_size_is_used_at_that_of_its_architecture_with_a_warning(
    checkpoint, tmp_path, caplog, given, size
):
    content = torch.load(checkpoint, weights_only=False)
    del content["cfg"]["task"]["patch_image_size"]  # as converted by earlier versions
    torch.save(content, tmp_path / "old.pt")
    model = OFA.load(tmp_path / "old.pt", device="cpu", **given)
    assert {
        model.checkpoint.config(name)["patch_image_size"] for name in ("caption", "refcoco")
    } == {size}
    assert ("stores no image size; 256 pixels are taken" in caplog.text) == (not given)
