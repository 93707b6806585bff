"""The one place where images are opened: which formats, which suffixes, which files of a folder;
whatever else the process does."""

import ast
import io
import logging
import os
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from ofa.cli.main import main
from ofa.data.image_rows import open_images
from ofa.data.images import as_image
from ofa.errors import UserError
from ofa.inference.evaluate import ImageFolder
from ofa.inference.requests import read_requests, usual_tasks
from ofa.io.image_files import IMAGE_SUFFIXES, ImageFolders, list_images, look_at
from ofa.io.images import FORMATS, open_image
from ofa.metrics.fid import real_images
from ofa.tasks import spec_of

ROOT = Path(__file__).parents[2]
OPENERS = {
    "open": "Image",
    "ImageFile": "PIL",
    "imread": "",
    "read_image": "",
    "decode_jpeg": "",
    "decode_png": "",
    "frombuffer": "Image",
}
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def image_bytes(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def openers(text: str) -> list[str]:
    """What a source text calls to open images: ``Image.open``, ``imread``, ...; and imports of
    other decoders."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr in OPENERS:
            owner = OPENERS[node.attr]
            if not owner or isinstance(node.value, ast.Name) and node.value.id == owner:
                found.append(node.attr)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [
                f"{getattr(node, 'module', None) or ''}.{alias.name}".strip(".")
                for alias in node.names
            ]
            found += [
                name
                for name in names
                if name.startswith(("torchvision.io", "cv2", "imageio", "skimage", "PIL.ImageFile"))
            ]
    return found


def test_images_are_opened_in_one_place_alone():
    files = [
        path
        for folder in ("ofa", "models", "data", "criterions", "tasks", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 200
    assert {str(path.relative_to(ROOT)) for path in files if openers(path.read_text())} == {
        "ofa/io/images.py",
        "benchmarks/tsv.py",  # compares our reader with a bare decoder
    }


@pytest.mark.parametrize(
    "text",
    [
        "from PIL import Image\nImage.open(x)",
        "from PIL import ImageFile",
        "import torchvision.io",
        "from torchvision.io import read_image",
        "import cv2",
        "plt.imread(x)",
    ],
)
def test_the_search_finds_other_ways_to_open_an_image(text):
    assert openers(text)


def test_the_demo_page_hands_over_files_not_images():
    source = (ROOT / "ofa/demo/app.py").read_text()
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "gr"
        and node.func.attr in ("Image", "ImageEditor")
    ]
    sources = [
        {word.arg: getattr(word.value, "value", None) for word in call.keywords} for call in calls
    ]
    assert calls and all(words.get("type") == "filepath" for words in sources)


# -------------------------------------------------------------------------------------------
# formats


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_is_read(kind):
    found = open_image(image_bytes(kind))
    with Image.open(io.BytesIO(image_bytes(kind))) as image:
        assert np.array_equal(found, image.convert("RGB"))


@pytest.mark.parametrize(
    "data, name",
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS or PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "EPS"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (b"BLP2" + bytes(280), "BLP"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "WMF"),
        (b"\xd0\xcf\x11\xe0" + bytes(40), "FPX"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "HEIC or a video"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='x'/>", "SVG"),
        (b"<html>not found", "HTML"),
        (image_bytes("ICO"), "ICO"),
        (image_bytes("DDS"), "DDS"),
        (image_bytes("PCX"), "PCX"),
        (image_bytes("ICNS"), "ICNS"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_those_that_are(data, name):
    with pytest.raises(
        UserError, match=r"^a\.jpg: expects a whole image, found .*" + name
    ) as caught:
        open_image(data, "a.jpg")
    assert f"read are {', '.join(FORMATS)}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["SGI", "IM", "SPIDER", "XBM", "MSP"])
def test_formats_without_a_name_of_their_own_are_refused_too(kind):
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert({"SPIDER": "F", "XBM": "1", "MSP": "1"}.get(kind, "RGB")).save(
        file, kind
    )
    with pytest.raises(UserError, match="bytes that are none"):
        open_image(file.getvalue())


def test_every_suffix_of_a_format_that_is_read_is_listed():
    others = {".dib", ".jps", ".avifs", ".pfm", ".webm"}
    known = {
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in (*FORMATS, "MPO")
    }
    assert known - others <= set(IMAGE_SUFFIXES)
    assert all(features.check(name) for name in ("webp", "avif", "jpg_2000")) == (len(FORMATS) == 9)


# -------------------------------------------------------------------- other libraries, other
# threads


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_truncated_files_are_refused_even_where_another_library_fills_them(monkeypatch, kind):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = image_bytes(kind)
    with pytest.raises(UserError, match="truncated or damaged" if kind != "GIF" else "none"):
        open_image(data[: len(data) * 2 // 3])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_opening_an_image_touches_no_filters_of_warnings(monkeypatch):
    """They are the whole process's: what one thread saves and restores undoes what others do."""

    def touched(*_args, **_kwargs):
        raise AssertionError("the filters of warnings were changed")

    # a description of 99 bytes, which end behind the data: Pillow warns of it
    damaged = b"II*\0" + struct.pack("<LHHHLLL", 8, 1, 270, 2, 99, 8, 0)
    images = [*map(image_bytes, FORMATS), image_bytes("PNG", exif=damaged)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with monkeypatch.context() as patch:
            for name in ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"):
                patch.setattr(warnings, name, touched)
            found = [open_image(data, upright=True).size for data in images]
    assert len(found) == len(images) and caught


def test_threads_may_give_one_image_that_is_not_decoded_yet(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shared = Image.open(tmp_path / "a.png")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(as_image, [shared] * 32))
    assert all(np.array_equal(image, pixels) for image in found)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "too large", "zero byte", "nobody's"])
def test_what_is_no_regular_file_is_one_message_at_once(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "too large":
        path.touch()
        os.truncate(path, (1 << 30) + 1)
    path = {"zero byte": "a\0.jpg", "nobody's": "~nobody at all/a.jpg"}.get(kind, path)
    with pytest.raises(UserError, match="expects an image file, found none"):
        as_image(path)
    assert look_at(str(path)).broken


def test_folders_that_link_to_each_other_are_looked_through_once(tmp_path):
    inner = tmp_path / "images" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(image_bytes("PNG"))
    (inner / "loop").symlink_to(tmp_path / "images")
    assert ImageFolders([tmp_path / "images"]).find("a.png") == str(inner / "a.png")


def test_threads_leave_the_filters_of_warnings_as_they_were(monkeypatch):
    before, data, found = list(warnings.filters), image_bytes("TIFF"), []
    threads = [
        threading.Thread(target=lambda: found.extend(open_image(data) for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        len(found) == 400
        and all(np.array_equal(image, PIXELS) for image in found)
        and warnings.filters == before
    )


# --------------------------------------------------------------------------------------------
# folders


@pytest.fixture
def folder(tmp_path):
    """Images of unusual suffixes, other files, and what a Mac leaves."""
    for name, kind in (
        ("a.JFIF", "JPEG"),
        ("b.jpe", "JPEG"),
        ("c.avif", "AVIF"),
        ("d.jp2", "JPEG2000"),
        ("e.pgm", "PPM"),
        ("f.png", "PNG"),
    ):
        (tmp_path / name).write_bytes(image_bytes(kind))
    for name in ("._a.JFIF", ".DS_Store", "notes.txt", "table.csv"):
        (tmp_path / name).write_text("no image")
    for name in ("__MACOSX", "more"):
        (tmp_path / name).mkdir()
    return tmp_path


WAYS_IN = {
    "list": lambda folder: [path.name for path in list_images(folder)],
    "predict": lambda folder: [
        request.name for request in read_requests(str(folder), usual_tasks(), {})
    ],
    "evaluate": lambda folder: [
        path.name for path in ImageFolder(str(folder), spec_of("caption")).files
    ],
    "tokenizer": lambda folder: [Path(path).name for path in open_images(folder).files],
    "image-scores": lambda folder: [path.name for path in real_images(folder)],
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_a_folder_gives_its_images_names_what_it_skips_and_ignores_hidden_files(
    folder, caplog, way
):
    with caplog.at_level(logging.WARNING):
        assert WAYS_IN[way](folder) == ["a.JFIF", "b.jpe", "c.avif", "d.jp2", "e.pgm", "f.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: 3 entries skipped, of another type: more, notes.txt, table.csv"
    ]


def test_broken_files_of_a_folder_are_skipped_and_named(folder, caplog):
    (folder / "a.JFIF").write_bytes(image_bytes("JPEG")[:300])
    rows = ImageFolder(str(folder), spec_of("caption"))
    assert len(rows) == 5 and list(rows.broken) == [str(folder / "a.JFIF")]
    assert any(
        "1 of 6 images skipped, unreadable" in record.getMessage() for record in caplog.records
    )


def test_scores_of_a_folder_with_a_broken_image_are_computed_and_the_status_is_1(folder, capsys):
    options = ["image-scores", str(folder), "--feature-extractor", "test_image_quality:MeanColors"]
    assert main(options) == 0
    (folder / "a.JFIF").write_bytes(b"broken")
    assert main(options) == 1
    assert capsys.readouterr().out.count("IS  ") == 2
