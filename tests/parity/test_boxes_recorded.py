"""Bins of the recorded boxes."""

import pytest
from golden import load, load_json, path

from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image
from ofa.tokens.boxes import bins_to_text, box_overlap, boxes_to_bins, parse_box, resize_ratios


def test_bins_and_ratios_equal_the_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_INDEX_DIR", str(tmp_path))
    recorded, arrays = load_json("dataset_refcoco")["batch"], load("dataset_refcoco")
    for row, (image, box) in enumerate(TsvFile(path("dataset_refcoco.tsv"), "4,3")):
        size, corners = decode_image(image).size, parse_box(box)
        ratios = arrays["w_resize_ratios"][row], arrays["h_resize_ratios"][row]
        assert max(abs(a - b) for a, b in zip(resize_ratios(size, 128), ratios, strict=True)) < 1e-6
        assert (
            bins_to_text(boxes_to_bins(corners, size, 128)).split()
            == recorded["target.symbols"][row][:4]
        )


@pytest.mark.parametrize(("name", "least"), [("acc_at_0_5", 0.5), ("acc_at_0_75", 0.75)])
def test_a_hit_is_what_upstream_counts(name, least):
    recorded = load_json("metrics_captions")["results"]["grounding_acc"]
    assert (box_overlap(recorded["hyps"], recorded["refs"]) >= least).float().tolist() == recorded[
        name
    ]
