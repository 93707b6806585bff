"""Bucket tables, exactly."""

import numpy as np
import pytest
from golden import load

from ofa.models.positions import code_positions, image_buckets, token_bucket_rows, token_buckets

TABLES = load("bucket_tables")


@pytest.mark.parametrize("size", [8, 16, 64, 256])
def test_token_buckets_are_the_recorded_ones(size):
    table, expected = token_buckets(size).numpy(), TABLES[f"token_rel_{size}"]
    distance = np.arange(1024)[:, None] - np.arange(1024)[None, :]
    assert (table == expected[distance + 1023]).all()


@pytest.mark.parametrize("size", [4, 7])
def test_small_image_buckets_are_the_recorded_ones(size):
    assert (image_buckets(size).numpy() == TABLES[f"image_full_{size}"]).all()


def test_full_image_buckets_agree_at_the_recorded_probes():
    i, j = TABLES["image_probe_ij"].T
    assert (image_buckets(42).numpy()[i, j] == TABLES["image_probe_val"]).all()


def test_code_positions_are_the_recorded_ones():
    assert (code_positions(128, 42).numpy() == TABLES["decoder_image_position_idx_128"]).all()


def test_longer_texts_share_the_last_bucket():
    table = token_buckets(16)
    rows = token_bucket_rows(table, 0, 1030)
    assert (rows[:1024, :1024] == table).all()
    assert rows[1029, 0] == table[1023, 0] and rows[0, 1029] == table[0, 1023]
