"""Samples of the eight pretraining tasks equal the recorded ones: tokens and masks exactly, pixels
to 1e-3.

Random parts too, as far as they do not come from numpy: with the recorded seed the same words are
masked, the same negatives drawn, the same squares cut out. Images of captions and questions are
changed in color by other draws: only their form counts.
"""

import random

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from golden import load, load_json, path

from ofa.data.bad_rows import BadRows
from ofa.data.fairseq_mixture import PretrainingDataset
from ofa.data.negatives import NegativeSampler
from ofa.data.pretraining import PretrainingBuilder, RandomStreams
from ofa.data.rows import NamedRows
from ofa.data.tsv import TsvFile
from ofa.task.pretraining_tasks import PretrainingOptions, parse_weights
from ofa.tasks.fairseq_mixture import UnifyTask
from ofa.tasks.pretraining import EXTRAS, PAIRS
from ofa.tokens.bpe import load_language

SAMPLES = {sample["name"]: sample for sample in load_json("dataset_unify_samples")["samples"]}
UPSTREAM_RESIZE = 480  # largest shorter side of an enlarged image at every --patch-image-size


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    import ofa

    ofa.register_fairseq_plugin()
    options = PretrainingOptions(
        patch_image_size=128, code_image_size=32, max_src_length=80, max_resize=UPSTREAM_RESIZE
    )
    bpe, vocabulary = load_language(bpe_folder("gpt2"))
    negatives = NegativeSampler(path("unify_negative_sample"))
    builder = PretrainingBuilder(UnifyTask.spec, options, vocabulary, bpe, "train", negatives)
    files = {"text_infilling": "text", "image_infilling": "image", "detection": "detection"}
    extras = {
        name: NamedRows(TsvFile(path(f"dataset_unify_{file}.tsv")), EXTRAS[name])
        for name, file in files.items()
    }
    pairs = NamedRows(TsvFile(path("dataset_unify_vl.tsv")), PAIRS)
    files = {"pairs": pairs, **extras}
    return PretrainingDataset(files, builder, parse_weights(None), False, BadRows())


def seeded(seed: int) -> RandomStreams:
    return RandomStreams(random.Random(seed), torch.Generator().manual_seed(seed), random.Random(0))


def made(dataset, name: str):
    """The sample that a recording describes, drawn with its seed."""
    kind, streams = name.split("_")[0], seeded(SAMPLES[name]["seed"])
    if kind.startswith("row"):
        return dataset.samples("pairs", int(kind[3:]), streams)[name.endswith("second")]
    if name == "pure_text_1":  # both texts are masked by one stream
        dataset.samples("text_infilling", 0, streams)
    file, row = {
        "pure_text_0": ("text_infilling", 0),
        "pure_text_1": ("text_infilling", 1),
        "pure_image_0": ("image_infilling", 0),
        "detection_0": ("detection", 0),
    }[name]
    return dataset.samples(file, row, streams)[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_equals_upstream(dataset, name):
    sample, recorded = made(dataset, name), SAMPLES[name]["example"]
    assert sample["id"] == recorded["id"]
    for key in ("source", "target", "prev_output_tokens", "patch_mask", "code_mask", "conf"):
        if key not in recorded:
            assert sample[key] is None
            continue
        assert str(sample[key].dtype) == recorded[key]["dtype"] and sample[
            key
        ].tolist() == pytest.approx(recorded[key]["value"], rel=1e-6), key
    image = recorded["patch_image"]
    assert (
        list(sample["patch_image"].shape) == image["shape"]
        and sample["patch_image"].dtype == torch.float32
    )
    if "caption" in name or "qa" in name:
        return
    arrays = load("dataset_unify_samples")
    blocks = torch.nn.functional.avg_pool2d(sample["patch_image"], image["shape"][-1] // 8)
    np.testing.assert_allclose(blocks, arrays[f"{name}.patch_image.grid8x8"], atol=1e-3)
    np.testing.assert_allclose(
        sample["patch_image"][:, 8:24, 8:24], arrays[f"{name}.patch_image.crop_8_24"], atol=1e-3
    )


def test_a_batch_of_eight_rows_has_upstreams_structure(dataset):
    recorded, arrays = load_json("dataset_unify_batch")["batch"], load("dataset_unify_batch")
    batches = dataset.collater([dataset[row] for row in range(8)])
    for prefix, batch in zip(("v1", "v2"), batches, strict=True):
        assert (
            batch["id"].tolist() == recorded[f"{prefix}.id"]["value"]
            and batch["nsentences"] == recorded[f"{prefix}.nsentences"]
        )
        net_input = batch["net_input"]
        assert set(net_input) == {
            key.split(".")[2] for key in recorded if key.startswith(f"{prefix}.net_input.")
        }
        for key in ("patch_masks", "code_masks"):
            expected = arrays.get(f"{prefix}.net_input.{key}")
            assert (
                net_input[key] is None
                if expected is None
                else net_input[key].tolist() == expected.tolist()
            )
        np.testing.assert_allclose(batch["conf"], arrays[f"{prefix}.conf"])
        assert net_input["patch_images"].shape[1:] == torch.Size(
            recorded[f"{prefix}.net_input.patch_images"][0]["shape"]
        )


def rows_of(tokens, pad: int = 1) -> list[list[int]]:
    return [[token for token in row if token != pad] for row in np.asarray(tokens).tolist()]


def test_the_deterministic_rows_of_a_batch_equal_upstream(dataset):
    arrays = load("dataset_unify_batch")
    pairs, extras = dataset.collater([dataset[row] for row in range(8)])

    def equal(batch, prefix, keys, rows):
        for key in keys:
            found = batch["net_input"].get(key, batch.get(key))
            expected = arrays.get(f"{prefix}.net_input.{key}", arrays.get(f"{prefix}.{key}"))
            for row in rows:
                assert rows_of(found)[row] == rows_of(expected)[row], (prefix, key, row)

    # the rows' own samples, without boxes
    own = [row for row in range(0, 16, 2) if row not in (8, 10)]
    equal(pairs, "v1", ("src_tokens", "target", "prev_output_tokens"), own)
    equal(pairs, "v1", ("src_tokens",), (8, 10))  # grounding: the box depends on the cut
    # grounded captioning: so does its source
    equal(pairs, "v1", ("target", "prev_output_tokens"), (9, 11))
    equal(extras, "v2", ("target", "prev_output_tokens"), (0, 1, 2))  # texts, codes
    equal(extras, "v2", ("src_tokens",), (2, 3))
