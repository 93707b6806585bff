"""FID and Inception score of images: by formulas of our own, from folders and from statistics,
one message for what is wrong."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.cli.main import main
from ofa.errors import UserError
from ofa.metrics.fid import image_scores, load_extractor, read_statistics


class MeanColors:
    """Features: mean red, green and blue. Logits: their brightness, three times."""

    def __call__(self, images: torch.Tensor):
        means = images.float().mean((2, 3)) / 255
        return means, 4 * means


def write(folder, colors) -> list:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(colors))]
    for path, color in zip(paths, colors):
        Image.new("RGB", (8, 8), tuple(map(int, color))).save(path)
    return paths


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(1)
    drawn, real = draw.integers(0, 200, (12, 3)), draw.integers(50, 256, (40, 3))
    return write(tmp_path / "drawn", drawn), write(tmp_path / "real", real), drawn / 255, real / 255


def frechet(a, b) -> float:
    """|mu - mu'|^2 + tr(S + S' - 2 (S S')^1/2), the root by eigenvalues."""
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * roots)


def test_the_distance_to_real_images_is_frechet_s(images):
    drawn, real, a, b = images
    assert image_scores(drawn, MeanColors(), real)["FID"] == pytest.approx(frechet(a, b), abs=1e-6)


def test_precomputed_statistics_give_the_same_distance(images, tmp_path):
    drawn, real, _, b = images
    np.savez(tmp_path / "gt_stat.npz", mu=b.mean(0), sigma=np.cov(b, rowvar=False))
    found = image_scores(drawn, MeanColors(), tmp_path / "gt_stat.npz")
    assert found["FID"] == pytest.approx(image_scores(drawn, MeanColors(), real)["FID"], abs=1e-6)


def test_the_inception_score_is_that_of_one_part_where_images_are_few(tmp_path):
    """Two parts of one image each: nothing differs inside of a part, so the score is 1."""
    found = image_scores(write(tmp_path / "two", [(0, 0, 0), (255, 0, 0)]), MeanColors())
    assert found == {"IS": pytest.approx(1.0), "IS deviation": pytest.approx(0.0)}


def test_varied_images_have_a_higher_inception_score(tmp_path):
    varied = write(tmp_path / "varied", [(255, 0, 0), (0, 255, 0), (0, 0, 255)] * 10)
    equal = write(tmp_path / "equal", [(255, 0, 0)] * 30)
    assert (
        image_scores(varied, MeanColors())["IS"]
        > 1.3
        > image_scores(equal, MeanColors())["IS"]
        == pytest.approx(1.0)
    )


def test_the_command_prints_and_writes_them(images, tmp_path, capsys):
    out = tmp_path / "scores.json"
    command = [
        "image-scores",
        str(tmp_path / "drawn"),
        f"--real={tmp_path / 'real'}",
        "--feature-extractor=test_image_quality:MeanColors",
    ]
    assert main([*command, f"--out={out}"]) == 0
    written = json.loads(out.read_text())
    scores = written["scores"]
    assert written["images"] == len(list((tmp_path / "drawn").iterdir()))
    assert (
        scores["FID"] == pytest.approx(frechet(*images[2:]), abs=1e-6)
        and f"{scores['FID']:.4f}" in capsys.readouterr().out
    )


def test_inception_is_read_from_a_local_file(images, tmp_path, monkeypatch):
    """Its weights here are by chance: that both outputs arrive, for images of any size, is
    what can be seen without a download."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    read = []
    monkeypatch.setattr(
        module.FeatureExtractorInceptionV3,
        "load_state_dict",
        lambda self, weights: read.append(weights),
    )
    torch.save({"fc.bias": torch.ones(3)}, tmp_path / "inception.pth")
    found = image_scores(
        images[0][:3], load_extractor(str(tmp_path / "inception.pth"), None), images[1][:3]
    )
    assert read[0]["fc.bias"].tolist() == [1, 1, 1]
    assert set(found) == {"FID", "IS", "IS deviation"} and all(
        np.isfinite(value) for value in found.values()
    )


def test_wrong_files_are_one_message(images, tmp_path):
    drawn = images[0]
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(2), sigma=np.eye(2))
    (tmp_path / "words.npz").write_text("words")
    (tmp_path / "words.png").write_text("words")
    torch.save({"fc.bias": torch.ones(3)}, tmp_path / "inception.pth")
    for call, message in (
        (
            lambda: image_scores(drawn, MeanColors(), tmp_path / "narrow.npz"),
            "narrow.npz: expects mu of 3 numbers",
        ),
        (
            lambda: image_scores(drawn, MeanColors(), tmp_path / "words.npz"),
            "words.npz: expects statistics",
        ),
        (
            lambda: image_scores([*drawn, tmp_path / "words.png"], MeanColors()),
            "words.png: expects a whole image",
        ),
        (lambda: image_scores(drawn[:1], MeanColors()), "expected at least 2 images, found 1"),
        (lambda: load_extractor(None, None), "--inception-model-path"),
        (lambda: load_extractor("/nowhere/inception.pth", None), "found no file at /nowhere"),
        (
            lambda: load_extractor(str(tmp_path / "inception.pth"), None),
            "expects the weights of Inception",
        ),
        (lambda: load_extractor(None, "nowhere:Extractor"), "that Python can import"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def npz(path, **arrays) -> str:
    """A file with any bytes as its arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return path


def npy(shape: str, descr: str = "'<f8'", version: bytes = b"\x01\x00") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(head).to_bytes(2, "little") + head + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        npy("(1000000000000000000,)"),
        npy("(-1,)"),
        npy("(9, -9)"),
        npy("(1000000, 1000000)"),
        npy("(3,)", "'|O'"),
        npy("(3,)", "'<U99999999'"),
        npy("(3,)", version=b"\x02\x00"),
        npy("(3,)", "[('a', '<f8')]"),
        npy("('a',)"),
        npy("(9,)"),
        b"words",
        b"",
    ],
    ids=lambda data: "",
)
def test_statistics_with_headers_that_were_made_up_are_one_message(tmp_path, data):
    with pytest.raises(UserError, match="x.npz: expects (statistics|mu of 3)"):
        read_statistics(npz(tmp_path / "x.npz", mu=data, sigma=npy("(2, 2)")), 3)


def test_a_damaged_npz_and_statistics_that_are_not_finite_are_one_message(tmp_path):
    np.savez(tmp_path / "x.npz", mu=np.array([0.0, np.nan, 1.0]), sigma=np.eye(3))
    with pytest.raises(UserError, match="x.npz: expects finite statistics"):
        read_statistics(tmp_path / "x.npz", 3)
    for cut in (10, 60, 300):
        (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-cut])
        with pytest.raises(UserError, match="y.npz: expects statistics"):
            read_statistics(tmp_path / "y.npz", 3)
