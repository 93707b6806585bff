"""The page of an evaluation, and what it is made of."""

import base64
import html
import io
import json
import re

import pytest
from PIL import Image

from ofa.report.page import (
    ANSWERS,
    FEW,
    LARGEST,
    Curve,
    Histogram,
    Item,
    Report,
    Table,
    Tile,
    choose_rows,
    training_curves,
    write_report,
    write_report_json,
)


def make_image(side: int, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(file, format=kind)
    return base64.urlsafe_b64encode(file.getvalue()).decode()


def page(tmp_path, **parts) -> str:
    write_report(tmp_path / "deep" / "page.html", Report("A title", "A subtitle", **parts))
    return (tmp_path / "deep" / "page.html").read_text()


def test_the_page_needs_nothing_from_outside(tmp_path):
    text = page(
        tmp_path,
        items=[Item("", "a red square", ["red"], image=make_image(32), id="img0", scores=[1.5])],
        score_names=["CIDEr"],
        tiles=[Tile("CIDEr", "1.5")],
        tables=[Table("t", ["a", "b"], [["x", "1"]])],
        curves=[Curve("loss", [(1, 3.0), (2, 2.0), (3, 1.0)])],
    )
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "data:image/png;base64," in text and "<polyline" in text and "a red square" in text


def test_text_of_captions_and_ids_cannot_become_markup(tmp_path):
    nasty = "<script>alert(1)</script>"
    text = page(tmp_path, items=[Item(nasty, nasty, [nasty], image=make_image(8), id=nasty)])
    assert nasty not in text and "&lt;script&gt;alert(1)" in text


def test_boxes_lie_over_the_image_in_its_own_pixels(tmp_path):
    boxes = [("predicted", [1, 2, 30.5, 20]), ("true", [0, 0, 40, 40])]
    text = page(tmp_path, items=[Item(boxes=boxes, image=make_image(1000), id="a")])
    assert 'viewBox="0 0 1000 1000"' in text, "reduced, but boxes keep the pixels they are given in"
    assert (
        '<rect class="predicted" x="1.0" y="2.0" width="29.5" height="18.0"/>' in text
        and '<rect class="true"' in text
    )
    assert (
        "(no words)" not in text
        and text.count("</i>predicted</span>") == 1
        and "</i>asked about" not in text
    )


def test_wrong_and_partly_right_answers_can_be_filtered(tmp_path):
    items = [
        Item("is it?", "yes", ["no"], image=make_image(8), id=str(row), row=row, scores=[score])
        for row, score in enumerate((0, 0.3, 1, 0))
    ]
    text = page(tmp_path, items=items, score_names=["score"], grading=ANSWERS)
    assert re.findall(r'data-grade="(\w+)"', text) == ["poor", "middling", "good", "poor"]
    assert "only wrong (2)" in text and "only partly right (1)" in text and "only right (1)" in text
    assert text.count('<p class="question">is it?</p>') == 4


def test_without_scores_there_is_nothing_to_filter_by(tmp_path):
    assert 'id="grade"' not in page(tmp_path, items=[Item(answer="x", image=make_image(8), id="a")])


def test_the_content_of_a_page_is_plain_data_without_images(tmp_path):
    item = Item("why?", "yes", ["no"], [("true", (0, 0, 4, 4))], "x", id="a", scores=[0.5])
    report = Report("T", "S", {"score": 0.5}, items=[item], grading=ANSWERS)
    write_report_json(tmp_path / "deep" / "page.json", report)
    found = json.loads((tmp_path / "deep" / "page.json").read_text())
    assert found["scores"] == {"score": 0.5} and found["title"] == "T"
    assert found["items"] == [
        {
            "question": "why?",
            "answer": "yes",
            "references": ["no"],
            "boxes": [["true", [0, 0, 4, 4]]],
            "id": "a",
            "row": 0,
            "scores": [0.5],
            "group": "",
        }
    ]


@pytest.mark.parametrize(("count", "largest"), [(1, 2 * LARGEST), (FEW + 1, LARGEST)])
def test_large_images_are_reduced_less_where_there_are_few(tmp_path, count, largest):
    image = make_image(1000, "BMP")
    items = [Item(answer="x", image=image, id=str(number)) for number in range(count)]
    text = page(tmp_path, items=items)
    data = re.search(r"data:image/jpeg;base64,([^\"]+)", text)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert max(shown.size) == largest


def test_bars_of_a_histogram_stand_on_its_axis_and_say_what_they_count(tmp_path):
    text = page(tmp_path, histograms=[Histogram("rows by IoU", [0, 0.5, 1], [5, 10])])
    bars = re.findall(r'<rect class="bar" .*? y="(.*?)" .*? height="(.*?)"><title>(.*?)<', text)
    (low_top, low, first), (high_top, high, second) = bars
    assert float(high) == pytest.approx(2 * float(low), abs=0.2) and float(low) > 0
    assert float(low_top) + float(low) == pytest.approx(float(high_top) + float(high), abs=0.2)
    assert (first, second) == ("0 to 0.5: 5", "0.5 to 1: 10")


def test_counts_are_shaded_by_their_share_of_the_row(tmp_path):
    table = Table("t", ["", "yes", "no"], [["yes", "3", "1"], ["no", "0", "9"]], counts=True)
    shades = re.findall(r"var\(--accent\) (\d+)%", page(tmp_path, tables=[table]))
    assert shades == ["52", "18", "70"], "3 of 4, 1 of 4, 9 of 9; the 0 has none"


def test_the_order_begins_with_the_score_that_ranks(tmp_path):
    items = [Item(answer="x", id="a", scores=[1, 0.5])]
    text = page(tmp_path, items=items, score_names=["score", "IoU"], ranked_by="IoU")
    assert re.search(r"<option[^>]* selected>(.*?)</option>", text)[1] == "worst IoU first"


def test_a_failure_leaves_no_partial_page(tmp_path):
    with pytest.raises(AttributeError):
        write_report(
            tmp_path / "page.html", Report("t", "s", items=[Item(answer="x", image=None, id="a")])
        )
    assert list(tmp_path.iterdir()) == []


def test_too_many_images_are_thinned_from_the_worst_to_the_best():
    scores = [float(value) for value in (5, 1, 4, 2, 3)]
    assert choose_rows(scores, 3) == [1, 4, 0]
    assert choose_rows(scores, 10) == [1, 3, 4, 2, 0]
    assert choose_rows(scores, 1) == [1]


def test_curves_are_read_from_the_log_of_an_interrupted_and_resumed_run():
    log = """\
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     10 / 100 \
loss=5, nll_loss=4.5, num_updates=10, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     20 / 100 \
loss=4, nll_loss=3.5, num_updates=20, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | train_inner | epoch 001:     10 / 100 \
loss=5, nll_loss=4.25, num_updates=10, lr=0.1, wall=3
2026-01-01 00:00:00 | INFO | valid | epoch 001 | valid on 'valid' subset | \
loss 3 | cider 0.75 | wps 0 | num_updates 15 | best_cider 0.8
2026-01-01 00:00:00 | INFO | train | epoch 001 | loss 4 | nll_loss 3 | num_updates 20 | lr 0.1
"""
    loss, cider = training_curves(log)
    assert loss.values == [(10.0, 4.25)] and cider.values == [(15.0, 0.75)]


@pytest.mark.parametrize(
    "values", [[(1, 0.0), (2, 0.0)], [(1, 1e-4), (2, 3e-4)], [(10, -2.0), (5000, 12345.0)]]
)
def test_any_curve_can_be_drawn_inside_its_frame(tmp_path, values):
    text = page(tmp_path, curves=[Curve("c", values)])
    points = re.search(r'points="([^"]+)"', text)[1].split()
    assert all(
        0 <= float(x) <= 560 and 0 <= float(y) <= 230
        for x, y in (point.split(",") for point in points)
    )


def test_a_book_holds_whole_pages_behind_tabs(tmp_path, capsys):
    from ofa.cli.main import main

    for name in ("a", "b"):
        (tmp_path / f"{name}.html").write_text(
            f'<html><p class="x">page {name} &amp; more</p></html>'
        )
    assert (
        main(
            [
                "merge-reports",
                f"captions={tmp_path / 'a.html'}",
                f"A & B={tmp_path / 'b.html'}",
                "--out",
                str(tmp_path / "book.html"),
                "--title",
                "Both",
            ]
        )
        == 0
    )
    book = (tmp_path / "book.html").read_text()
    found = [html.unescape(page) for page in re.findall(r'srcdoc="([^"]*)"', book)]
    assert found == [(tmp_path / f"{name}.html").read_text() for name in ("a", "b")]
    assert "A &amp; B</a>" in book and "<title>Both</title>" in book


def test_a_book_without_one_of_its_pages_is_one_message(tmp_path, capsys):
    from ofa.cli.main import main

    assert (
        main(["merge-reports", f"a={tmp_path / 'none.html'}", "--out", str(tmp_path / "book.html")])
        == 2
    )
    assert (
        "none.html: expected a text file" in capsys.readouterr().err
        and not (tmp_path / "book.html").exists()
    )


def test_every_task_of_a_joint_training_has_its_curve():
    lines = [
        f"| valid | epoch 001 | loss 1 | cider 0.{n} | vqa_score 0.5{n} | score 0.6{n} |"
        f" num_updates {n}0"
        for n in (1, 2)
    ]
    curves = {curve.name: curve.values for curve in training_curves("\n".join(lines))}
    assert curves["validation CIDEr-D over updates"] == [(10, 0.1), (20, 0.2)]
    assert curves["validation accuracy of answers over updates"] == [(10, 0.51), (20, 0.52)]
    assert curves["validation accuracy of boxes over updates"] == [(10, 0.61), (20, 0.62)]
