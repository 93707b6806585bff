"""An image of several samples goes through the stem once; what the model predicts and learns of it
stays the same."""

from argparse import Namespace

import pytest
import torch
from small_network import build_awake, build_small

pytest.importorskip("fairseq")
import fairseq.benchmark.dummy_lm  # noqa: E402, F401

from ofa.criterions.fairseq_label_smoothed import AdjustLabelSmoothedCrossEntropyCriterion  # noqa: E402
from ofa.data.collate import IMAGE_ROWS, rows_of_images  # noqa: E402

VOCAB, B, T = 60, 5, 4
ROWS = torch.tensor([0, 1, 0, 0, 1])  # the fourth has no image
TASK = Namespace(target_dictionary=Namespace(pad=lambda: 1, eos=lambda: 2))


def batch(second: bool = False) -> dict:
    torch.manual_seed(1)
    inputs = {
        "src_tokens": torch.randint(4, VOCAB, (B, 3)),
        "prev_output_tokens": torch.randint(4, VOCAB, (B, T)),
        "patch_masks": torch.tensor([True, True, True, False, True]),
    }
    for name in ("patch_images", "patch_images_2")[: 1 + second]:
        inputs[name] = torch.randn(B, 3, 32, 32)[ROWS]
        inputs[name][3] = 0
    return inputs


def count_images(model) -> list[int]:
    """Images of each call of the stem, from now on."""
    seen = []
    model.encoder.embed_images.register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    return seen


@pytest.mark.parametrize("second", [False, True], ids=["one image", "two images"])
def test_logits_and_gradients_are_those_of_images_looked_at_one_by_one(second):
    """In evaluation mode, because the statistics of batch norm count an image as often as it is
    looked at."""
    found = []
    for rows in (ROWS, None):
        model = build_awake(VOCAB, num_image_types=2)
        seen = count_images(model)
        logits, _ = model(**batch(second), image_rows=rows)
        (logits * torch.arange(logits.numel()).cos().view_as(logits)).sum().backward()
        found.append((logits, [parameter.grad for parameter in model.parameters()], seen))
    (logits, gradients, seen), (expected, expected_gradients, all_seen) = found
    assert seen == [2] * (1 + second) and all_seen == [B] * (1 + second)
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    for gradient, other in zip(gradients, expected_gradients):
        assert (gradient is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(
                gradient, other, atol=1e-4 * float(other.abs().max()) + 1e-5, rtol=1e-3
            )
    stem = [
        gradient
        for (name, _), gradient in zip(model.named_parameters(), gradients)
        if "embed_images" in name
    ]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in stem)


def test_statistics_of_batch_norm_are_those_of_the_images_without_fillers():
    models = [build_small(VOCAB).train() for _ in range(2)]
    inputs = batch()
    models[0](**inputs, image_rows=ROWS)
    models[1].encoder.embed_images(inputs["patch_images"][:2])
    for found, expected in zip(*(model.encoder.embed_images.buffers() for model in models)):
        torch.testing.assert_close(found, expected)


def test_every_sample_has_its_own_image_where_paths_are_dropped_per_sample():
    model = build_small(VOCAB, resnet_drop_path_rate=0.1)
    seen = count_images(model)
    model.train()(**batch(), image_rows=ROWS)
    model.eval()(**batch(), image_rows=ROWS)
    assert seen == [B, 2]


@pytest.mark.parametrize("rows", [None, ROWS], ids=["separate images", "shared images"])
def test_both_passes_of_r_drop_look_at_an_image_once(rows):
    model = build_small(VOCAB, dropout=0.5).train()
    seen = count_images(model)
    inputs = batch()
    sample = {
        "id": list(range(B)),
        "net_input": inputs,
        "target": inputs["prev_output_tokens"],
        "ntokens": B * T,
        "nsentences": B,
        "conf": torch.ones(B),
    }
    if rows is not None:
        sample[IMAGE_ROWS] = rows
    AdjustLabelSmoothedCrossEntropyCriterion(
        TASK, sentence_avg=False, label_smoothing=0.1, use_rdrop=True
    )(model, sample)
    assert seen == [B if rows is None else 2]


def test_rows_are_those_of_the_very_same_image():
    one, other, filler = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)

    def rows(*images: torch.Tensor) -> list[int]:
        samples = [
            {"patch_image": image, "patch_mask": torch.tensor([image is not filler])}
            for image in images
        ]
        return rows_of_images(samples).tolist()

    assert rows(one, other, one, filler, other) == [0, 1, 0, 0, 1]
    assert rows(filler, one) == [1, 1]
    assert rows(filler, filler) == [0, 0]
