"""Batches as a recording describes them, and how they are compared with it."""

import numpy as np
import pytest
import torch
from golden import load, load_json, path

from ofa.data.collate import collate
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import TsvFile
from ofa.task.task_spec import TaskOptions, TaskSpec

# entries of a recording that say more about another entry
DESCRIBED = (".symbols", ".text", ".dtype")


def options_of(spec: TaskSpec, flags: list[str]) -> TaskOptions:
    """A task's options from flags such as ``--max-src-length=80`` or ``--scst``."""
    options = spec.options()
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        default = getattr(options, name)
        setattr(
            options,
            name,
            True if not value else type(default)(value) if default is not None else value,
        )
    return options


def recorded_batch(spec: TaskSpec, name: str, language) -> dict:
    """The batch of a recorded file, ``net_input`` entries as ``net_input.NAME``. Args: language:
    BPE and vocabulary."""
    bpe, vocabulary = language
    info = load_json(name)["info"]
    options = options_of(spec, info["flags"])
    builder = SampleBuilder(spec, options, vocabulary, bpe, info["split"])
    rows = TsvFile(path(info["tsv"]), options.selected_cols)
    batch = collate([builder(dict(zip(spec.column_names, rows[i])), i) for i in range(len(rows))])
    net_input = {f"net_input.{key}": value for key, value in batch.pop("net_input").items()}
    return batch | net_input


def assert_equals_recording(batch: dict, name: str) -> None:
    """Keys, ids, and every array that the recording holds; floats to a millionth."""
    recorded, arrays = load_json(name)["batch"], load(name)
    assert set(batch) == {key for key in recorded if not key.endswith(DESCRIBED)}
    if "id" in recorded:
        assert (
            batch["id"].tolist() == recorded["id"]["value"]
            and batch["id"].dtype == recorded["id"]["numpy_dtype"]
        )
    assert (batch["nsentences"], batch["ntokens"]) == (recorded["nsentences"], recorded["ntokens"])
    for key in set(arrays) & set(batch):
        assert str(batch[key].dtype) == recorded[key]["dtype"], key
        np.testing.assert_allclose(batch[key].numpy(), arrays[key], rtol=1e-6, atol=0, err_msg=key)


def assert_texts_equal_recording(batch: dict, name: str, language) -> None:
    """The words of source and target. Args: language: BPE and vocabulary."""
    bpe, vocabulary = language
    for key in ("net_input.src_tokens", "target"):
        assert [bpe.decode(vocabulary.pieces(row)) for row in batch[key]] == load_json(name)[
            "batch"
        ][f"{key}.text"], key


def assert_answers_equal_recording(batch: dict, name: str) -> None:
    """Accepted answers, and what may be answered at each position."""
    recorded, arrays = load_json(name)["batch"], load(name)
    assert (
        batch["ref_dict"].tolist() == recorded["ref_dict"]["value"]
        and batch["ref_dict"].dtype == object
    )
    if recorded.get("constraint_masks") is None:
        assert batch["constraint_masks"] is None
        return
    masks = batch["constraint_masks"]
    assert list(masks.shape) == recorded["constraint_masks"]["shape"]
    free = masks.all(2).nonzero().tolist()
    assert free == recorded["constraint_masks"]["all_true_rows"]
    allowed = [place for place in masks.nonzero().tolist() if place[:2] not in free]
    np.testing.assert_array_equal(allowed, arrays["constraint_masks.true_indices"])


def assert_images_equal_recording(images: torch.Tensor, name: str) -> None:
    """Mean, deviation, a grid of block means and a crop of every image, to a thousandth."""
    recorded, arrays = load_json(name)["batch"]["net_input.patch_images"], load(name)
    assert images.dtype == torch.float32
    for image, expected in zip(images, recorded, strict=True):
        assert list(image.shape) == expected["shape"]
        assert image.mean().item() == pytest.approx(expected["mean"], abs=1e-3)
        assert image.std().item() == pytest.approx(expected["std"], abs=1e-3)
    blocks = torch.nn.functional.avg_pool2d(images, images.shape[-1] // 8)  # (B, 3, 8, 8)
    np.testing.assert_allclose(blocks, arrays["net_input.patch_images.grid8x8"], atol=1e-3)
    np.testing.assert_allclose(
        images[:, :, 8:24, 8:24], arrays["net_input.patch_images.crop_8_24"], atol=1e-3
    )
