"""The page of an evaluation, and what it is made of."""

import base64
import io
import re

import pytest
from PIL import Image

from ofa.report import Curve, Item, Report, Table, Tile, choose_rows, training_curves, write_report


def picture(side: int, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(file, format=kind)
    return base64.urlsafe_b64encode(file.getvalue()).decode()


def page(tmp_path, **parts) -> str:
    write_report(tmp_path / "deep" / "page.html", Report("A title", "A subtitle", **parts))
    return (tmp_path / "deep" / "page.html").read_text()


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(tmp_path, items=[Item(0, "img0", picture(32), "a red square", ["red"], [1.5])], score_names=["CIDEr"],
                tiles=[Tile("CIDEr", "1.5")], tables=[Table("t", ["a", "b"], [["x", "1"]])],
                curves=[Curve("loss", [(1, 3.0), (2, 2.0), (3, 1.0)])])
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "data:image/png;base64," in text and "<polyline" in text and "a red square" in text


def test_text_of_captions_and_ids_cannot_become_markup(tmp_path):
    nasty = "<script>alert(1)</script>"
    text = page(tmp_path, items=[Item(0, nasty, picture(8), nasty, [nasty], [])])
    assert nasty not in text and "&lt;script&gt;alert(1)" in text


def test_large_pictures_are_reduced(tmp_path):
    text = page(tmp_path, items=[Item(0, "big", picture(1000, "BMP"), "x")])
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", text)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert max(image.size) <= 360


def test_a_failure_leaves_no_partial_page(tmp_path):
    with pytest.raises(AttributeError):
        write_report(tmp_path / "page.html", Report("t", "s", items=[Item(0, "a", None, "x")]))
    assert list(tmp_path.iterdir()) == []


def test_too_many_pictures_are_thinned_from_the_worst_to_the_best():
    scores = [float(value) for value in (5, 1, 4, 2, 3)]
    assert choose_rows(scores, 3) == [1, 4, 0]
    assert choose_rows(scores, 10) == [1, 3, 4, 2, 0]
    assert choose_rows(scores, 1) == [1]


def test_curves_are_read_from_the_log_of_an_interrupted_and_resumed_run():
    log = """\
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     10 / 100 loss=5, nll_loss=4.5, num_updates=10, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     20 / 100 loss=4, nll_loss=3.5, num_updates=20, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     10 / 100 loss=5, nll_loss=4.25, num_updates=10, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 3 | cider 0.75 | wps 0 | num_updates 15 | best_cider 0.8
2026-01-01 00:00:00 | INFO | train | epoch 001 | loss 4 | nll_loss 3 | num_updates 20 | lr 0.1
"""
    loss, cider = training_curves(log)
    assert loss.values == [(10.0, 4.25)] and cider.values == [(15.0, 0.75)]


@pytest.mark.parametrize("values", [[(1, 0.0), (2, 0.0)], [(1, 1e-4), (2, 3e-4)], [(10, -2.0), (5000, 12345.0)]])
def test_any_curve_can_be_drawn_inside_its_frame(tmp_path, values):
    text = page(tmp_path, curves=[Curve("c", values)])
    points = re.search(r'points="([^"]+)"', text)[1].split()
    assert all(0 <= float(x) <= 560 and 0 <= float(y) <= 230 for x, y in (point.split(",") for point in points))
