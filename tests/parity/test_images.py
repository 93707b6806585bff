"""Image tensors equal those that upstream makes of the same TSV rows."""

import numpy as np
import pytest
from golden import load, load_json, path

from ofa.data.images import IMAGENET_MEAN, IMAGENET_STD, image_transform
from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image

CASES = {
    "dataset_caption": 4,
    "dataset_caption_train": 4,
    "dataset_caption_train_scst": 4,
    "dataset_refcoco": 4,
}
TOLERANCE = 1e-3


@pytest.mark.parametrize("case", CASES)
def test_image_tensors_equal_the_recorded_ones(case, tmp_path, monkeypatch):
    monkeypatch.setenv("OFA_INDEX_DIR", str(tmp_path))
    recorded, arrays = load_json(case), load(case)
    flags = dict(
        flag.lstrip("-").split("=") if "=" in flag else (flag.lstrip("-"), True)
        for flag in recorded["info"]["flags"]
    )
    mean_std = (IMAGENET_MEAN, IMAGENET_STD) if "imagenet-default-mean-and-std" in flags else ()
    transform = image_transform(int(flags["patch-image-size"]), *mean_std)
    rows = TsvFile(path(recorded["info"]["tsv"]), [CASES[case]])
    assert len(rows) == recorded["info"]["n_rows"]
    for row, expected in enumerate(recorded["batch"]["net_input.patch_images"]):
        image = transform(decode_image(rows[row][0], rows.where(row))).numpy()
        blocks = image.reshape(3, 8, image.shape[1] // 8, 8, image.shape[2] // 8).mean((2, 4))
        assert list(image.shape) == expected["shape"] and image.dtype == np.float32
        assert image.mean() == pytest.approx(expected["mean"], abs=TOLERANCE)
        assert image.std() == pytest.approx(expected["std"], abs=TOLERANCE)
        np.testing.assert_allclose(
            blocks, arrays["net_input.patch_images.grid8x8"][row], atol=TOLERANCE
        )
        crop = image[:, 8:24, 8:24]
        np.testing.assert_allclose(
            crop, arrays["net_input.patch_images.crop_8_24"][row], atol=TOLERANCE
        )
