"""Learned biases of pairs of positions: their look-up, and which pairs have one."""

import torch
from small_network import build_small
from torch.nn import functional as F

from ofa.models.encoder import Patches
from ofa.models.positions import bucket_bias

BUCKETS, HEADS = 11, 4


def test_a_look_up_of_biases_has_the_values_and_gradients_of_an_embedding():
    torch.manual_seed(0)
    table = torch.randn(BUCKETS, HEADS, requires_grad=True)
    buckets = torch.randint(BUCKETS, (3, 5, 7))
    found, expected = bucket_bias(table, buckets), F.embedding(buckets, table).permute(0, 3, 1, 2)
    assert torch.equal(found, expected)
    direction = torch.randn(3, HEADS, 5, 7)
    (gradient,) = torch.autograd.grad(found, table, direction)
    (wanted,) = torch.autograd.grad(expected, table, direction)
    torch.testing.assert_close(gradient, wanted)


def test_pairs_inside_an_image_and_inside_the_text_have_biases_and_no_others():
    encoder, length, patches = build_small(30).encoder, 5, 3
    cells = torch.tensor([[1, 2, 9], [4, 5, 6]])
    empty = torch.zeros(2, patches, 1)
    image = Patches(features=empty, cells=cells, positions=empty, padding_mask=empty[..., 0].bool())
    bias = encoder.relative_bias(0, encoder.pair_buckets(length, [image]))
    expected = torch.zeros(2, encoder.num_heads, patches + length, patches + length)
    of_image, of_text = (
        encoder.image_rel_pos_table_list[0].weight,
        encoder.token_rel_pos_table_list[0].weight,
    )
    for row in range(2):
        pairs = encoder.image_rp_bucket[cells[row]][:, cells[row]]
        expected[row, :, :patches, :patches] = of_image[pairs].permute(2, 0, 1)
    expected[:, :, patches:, patches:] = of_text[encoder.token_rp_bucket[:length, :length]].permute(
        2, 0, 1
    )
    assert expected.count_nonzero() > 0
    assert torch.equal(bias, expected)
