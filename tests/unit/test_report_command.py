"""``ofa report``: a result file and its rows become a page, whichever task they are of."""

import json
import re
from argparse import ArgumentTypeError

import answer_files
import pytest
from answer_files import color_of
from caption_files import caption
from caption_files import write_tsv as write_captions
from grounding_files import scene, write_rows

from ofa.cli.main import main
from ofa.report.options import named_scores
from ofa.task.results import write_json

NO_METEOR = ["--scores", "CIDEr,BLEU-4"]


@pytest.fixture
def boxes(tmp_path):
    """Rows and a result file: the first box is right, the second one is not, the third reaches
    beyond the image."""
    data = write_rows(tmp_path / "rows.tsv", range(3))
    found = [list(scene(0)[2]), [0, 0, 3, 3], [0, 0, 48, 36]]
    entries = [
        {"uniq_id": f"{row}_1", "box": box, "score": -1.0, "bins": [1, 2, 3, 4]}
        for row, box in enumerate(found)
    ]
    write_json(tmp_path / "val_predict.json", entries)
    return data, tmp_path / "val_predict.json", entries


def report(results, data, task: str, out, *options: str) -> int:
    return main(
        ["report", str(results), "--data", str(data), "--task", task, "--out", str(out), *options]
    )


def test_boxes_are_scored_and_drawn(tmp_path, boxes, capsys):
    data, results, _ = boxes
    assert report(results, data, "refcoco", tmp_path / "page.html") == 0
    assert re.search(r"score +0\.3333", capsys.readouterr().out)
    page = (tmp_path / "page.html").read_text()
    assert page.count('<rect class="predicted"') == page.count('<rect class="true"') == 3
    assert "refcoco: val" in page and "the red square" in page and "only wrong (2)" in page


def test_the_content_of_the_page_is_json_too(tmp_path, boxes):
    data, results, entries = boxes
    out = ["--json", str(tmp_path / "page.json")]
    assert report(results, data, "refcoco", tmp_path / "page.html", *out) == 0
    found = json.loads((tmp_path / "page.json").read_text())
    assert found["scores"]["score"] == pytest.approx(1 / 3) and found["score_names"][0] == "score"
    right = found["items"][-1]
    assert (right["id"], right["scores"][0], right["question"]) == ("0_1", 1.0, "the red square")
    assert right["boxes"] == [["true", list(scene(0)[2])], ["predicted", entries[0]["box"]]]
    assert "image" not in right


def test_the_worst_overlap_comes_first(tmp_path, boxes):
    data, results, _ = boxes
    out = ["--json", str(tmp_path / "page.json")]
    assert report(results, data, "refcoco", tmp_path / "page.html", *out) == 0
    found = json.loads((tmp_path / "page.json").read_text())
    overlaps = [item["scores"][found["score_names"].index("IoU")] for item in found["items"]]
    assert found["ranked_by"] == "IoU" and overlaps == sorted(overlaps)
    (histogram,) = found["histograms"]
    assert sum(histogram["counts"]) == 3 and histogram["counts"][-1] == 1
    assert histogram["edges"][0] == 0 and histogram["edges"][-1] == 1


def test_each_answer_and_what_is_taken_for_it_are_in_tables(tmp_path):
    """Rows 0, 3 and 6 are true, 1, 4 and 7 are false, 2 and 5 are neither."""
    rows = map(answer_files.ROWS["snli_ve"], range(8))
    data = answer_files.write_rows(tmp_path / "rows.tsv", rows)
    predicted = ["yes", "no", "no", "no", "no", "maybe", "yes", "yes"]
    entries = [{"uniq_id": f"{row}#0", "answer": word} for row, word in enumerate(predicted)]
    write_json(tmp_path / "test_predict.json", entries)
    out = ["--json", str(tmp_path / "page.json")]
    assert report(tmp_path / "test_predict.json", data, "snli_ve", tmp_path / "p.html", *out) == 0
    _, answers, confusion = json.loads((tmp_path / "page.json").read_text())["tables"]
    assert answers["head"] == ["answer", "rows", "predicted", "snli_score", "wrong predictions"]
    assert answers["rows"] == [
        ["yes", "3", "3", "0.667", "no (1)"],
        ["no", "3", "4", "0.667", "yes (1)"],
        ["maybe", "2", "1", "0.500", "no (1)"],
    ]
    assert confusion["head"] == ["", "yes", "no", "maybe"] and confusion["counts"]
    assert confusion["rows"] == [
        ["yes", "2", "1", "0"],
        ["no", "1", "2", "0"],
        ["maybe", "0", "1", "1"],
    ]


def test_answers_outside_of_the_commonest_ones_are_counted_together(tmp_path):
    colors = [*"aabbccddeeffgghhiijjkkllmmnn"]  # 14 classes
    rows = [answer_files.class_row(row, color) for row, color in enumerate(colors)]
    data = answer_files.write_rows(tmp_path / "rows.tsv", rows)
    entries = [{"uniq_id": row, "answer": "n"} for row in range(len(colors))]
    write_json(tmp_path / "test_predict.json", entries)
    out = ["--json", str(tmp_path / "page.json")]
    results = tmp_path / "test_predict.json"
    assert report(results, data, "image_classify", tmp_path / "page.html", *out) == 0
    _, answers, confusion = json.loads((tmp_path / "page.json").read_text())["tables"]
    assert len(answers["rows"]) == 12 and answers["note"] == "The 12 commonest of 14 answers."
    assert confusion["head"][-1] == "(others)"
    assert [row[-1] for row in confusion["rows"]] == ["2"] * 12 + ["4"]


def test_scores_to_compare_with_that_are_missing_are_named(tmp_path):
    with pytest.raises(ArgumentTypeError, match=r"at .*nowhere, found no file \(No such file or"):
        named_scores(f"old={tmp_path / 'nowhere'}")
    with pytest.raises(ArgumentTypeError, match="found a folder; ofa evaluate --out writes it"):
        named_scores(str(tmp_path))


def test_boxes_are_compared_with_those_of_another_model_and_of_a_constant(tmp_path, boxes, capsys):
    data, results, _ = boxes
    other = {"score": [0.0, 1.0, 0.0], "IoU": [0.0, None, 0.0]}
    write_json(tmp_path / "old_scores.json", {"scores": {"score": 1 / 3}, "by_row": other})
    compare = ["--compare", f"old={tmp_path / 'old_scores.json'}"]
    assert report(results, data, "refcoco", tmp_path / "page.html", *compare) == 0
    head, score, *_ = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", head.strip()) == [
        *("model", "95% interval", "old", "minus old", "constant baseline")
    ]
    assert re.search(
        r"0\.000 to 1\.000 +0\.3333 +\+0\.0000 \(-1\.000 to \+1\.000\) +0\.\d{4}$", score
    )
    assert (
        "score: share of boxes that overlap the true by half"
        in (tmp_path / "page.html").read_text()
    )
    assert report(results, data, "refcoco", tmp_path / "page.html", "--no-constant-baseline") == 0
    assert "constant" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "other, message",
    [
        ({"scores": {"CIDEr": 1.2}}, "--compare old: expected some of score, .*, found CIDEr"),
        (
            {"scores": {"score": 1.0}, "by_row": {"score": [1.0, 1.0]}},
            "--compare old: scores of 2 rows, here of 3 rows: of another file",
        ),
        ({"scores": {"score": 1.0}, "by_row": {"score": [1.0, 1.0, 1.0]}}, None),
    ],
)
def test_scores_that_cannot_be_compared_are_named(tmp_path, boxes, caplog, other, message):
    data, results, _ = boxes
    write_json(tmp_path / "old_scores.json", other)
    compare = ["--compare", f"old={tmp_path / 'old_scores.json'}"]
    assert report(results, data, "refcoco", tmp_path / "page.html", *compare) == 0
    found = [line for line in caplog.messages if "--compare" in line]
    assert len(found) == bool(message) and all(re.match(message or "", line) for line in found)


def test_a_row_without_a_box_is_counted_and_the_others_are_scored(tmp_path, boxes, capsys, caplog):
    data, results, _ = boxes
    lines = [line.split("\t") for line in open(data).read().split("\n")[:-1]]
    column = next(i for i, cell in enumerate(lines[1]) if cell.count(",") == 3)
    lines[1][column] = ""
    (tmp_path / "rows.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    assert report(results, data, "refcoco", tmp_path / "page.html") == 0
    assert re.search(r"score +0\.5000", capsys.readouterr().out)
    assert (
        "not scored, without a reference: 1 of 3 rows" in caplog.text
        and "rows.tsv:2" in caplog.text
    )
    page = (tmp_path / "page.html").read_text()
    assert (
        page.count('<rect class="predicted"') == 3
        and page.count('<rect class="true"') == 2
        and "nan" not in page.split("<script>")[0]
    )


def test_a_result_file_of_upstream_has_boxes_only_and_any_order(tmp_path, boxes):
    data, results, entries = boxes
    write_json(
        results, [{"uniq_id": entry["uniq_id"], "box": entry["box"]} for entry in reversed(entries)]
    )
    assert report(results, data, "refcoco", tmp_path / "page.html") == 0
    assert "only right (1)" in (tmp_path / "page.html").read_text()


def test_objects_are_scored_and_drawn(tmp_path, capsys):
    image = open(write_rows(tmp_path / "rows.tsv", range(1))).read().split("\t")[-1].strip()
    (tmp_path / "rows.tsv").write_text(f"7\t{image}\t1,2,30,20,1,dog&&3,4,20,25,2,cat\n")
    entry = {"uniq_id": "7", "boxes": [{"box": [1, 2, 30, 20], "name": "dog"}], "score": -1.0}
    task, out = "[image] what is there? -> [boxes:things]", tmp_path / "page.html"
    write_json(tmp_path / "val_predict.json", [entry])
    assert report(tmp_path / "val_predict.json", tmp_path / "rows.tsv", task, out) == 0
    assert re.search(r"score +0\.6667", capsys.readouterr().out)
    page = out.read_text()
    assert page.count('<rect class="predicted"') == 1 and page.count('<rect class="true"') == 2
    write_json(tmp_path / "val_predict.json", [{**entry, "boxes": [{"box": [1, 2, 30]}]}])
    assert report(tmp_path / "val_predict.json", tmp_path / "rows.tsv", task, out) == 2
    assert "entry 1: expects a list of boxes with names as 'boxes'" in capsys.readouterr().err


def test_captions_are_scored_and_shown_with_their_references(tmp_path, capsys):
    data = write_captions(tmp_path / "rows.tsv", [caption(row) for row in range(4)], joined=True)
    write_json(
        tmp_path / "test_predict.json",
        [{"image_id": f"img{row}", "caption": caption(row)} for row in range(4)],
    )
    options = [
        "--selected-cols",
        "1,4,2",
        *NO_METEOR,
        "--report-title",
        "four cubes",
        "--report-images",
        "2",
    ]
    assert (
        report(tmp_path / "test_predict.json", data, "caption", tmp_path / "page.html", *options)
        == 0
    )
    page = (tmp_path / "page.html").read_text()
    assert (
        page.count("<article") == 2
        and "four cubes" in page
        and "There is a" in page
        and "CIDEr" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("task", "entry", "words"),
    [
        (
            "vqa_gen",
            lambda row: {"question_id": 7000 + row, "answer": "red"},
            "What color is the cube",
        ),
        ("snli_ve", lambda row: {"uniq_id": f"{row}#0", "answer": "yes"}, "The cube is heavy."),
        (
            "image_classify",
            lambda row: {
                "uniq_id": row,
                "answer": "no class",
                "others": [{"answer": color_of(row)}],
            },
            "no class",
        ),
    ],
)
def test_answers_are_scored_and_shown_with_their_questions(tmp_path, capsys, task, entry, words):
    data = answer_files.write_rows(tmp_path / "rows.tsv", map(answer_files.ROWS[task], range(6)))
    write_json(tmp_path / "test_predict.json", [entry(row) for row in range(6)])
    assert report(tmp_path / "test_predict.json", data, task, tmp_path / "page.html") == 0
    page, printed = (tmp_path / "page.html").read_text(), capsys.readouterr().out
    assert (
        page.count("<article") == 6
        and words in page
        and ("only wrong" in page)
        and "page.html" in printed
    )
    if task == "image_classify":
        assert re.search(r"score +0\.0000", printed) and re.search(r"top5 +1\.0000", printed)


def test_unlabeled_rows_are_shown_without_scores(tmp_path, boxes):
    _, results, _ = boxes
    data = write_rows(tmp_path / "unlabeled.tsv", range(3), box="")
    assert report(results, data, "refcoco", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert (
        page.count('<rect class="predicted"') == 3
        and '<rect class="true"' not in page
        and "all scores" not in page
    )


def test_cider_d_takes_document_frequencies_from_a_file(tmp_path, capsys):
    data = write_captions(tmp_path / "rows.tsv", [caption(0)])
    write_json(tmp_path / "val_predict.json", [{"image_id": "0_0", "caption": caption(0)}])
    others = write_captions(tmp_path / "all.tsv", map(caption, range(4)))
    assert (
        main(
            ["cider-df", "build", "--tsv", str(others), "--no-eos", "--out", str(tmp_path / "df.p")]
        )
        == 0
    )
    for flag, nothing in ((), True), (("--cider-df", str(tmp_path / "df.p")), False):
        assert (
            report(
                tmp_path / "val_predict.json",
                data,
                "caption",
                tmp_path / "page.html",
                *NO_METEOR,
                *flag,
            )
            == 0
        )
        assert (float(re.search(r"CIDEr-D +([\d.]+)", capsys.readouterr().out)[1]) == 0) is nothing


def test_a_file_of_other_content_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "df.p").write_text("x")
    with pytest.raises(SystemExit):
        report(
            "nowhere.json",
            "nowhere.tsv",
            "caption",
            tmp_path / "page.html",
            "--cider-df",
            str(tmp_path / "df.p"),
        )
    assert (
        "--cider-df" in (message := capsys.readouterr().err) and "document frequencies" in message
    )


@pytest.mark.parametrize(
    ("change", "task", "words"),
    [
        (
            lambda entries: entries[:2],
            "refcoco",
            r"rows\.tsv:3: expects a prediction with the id '2_1'",
        ),
        (
            lambda entries: [*entries, entries[0]],
            "refcoco",
            r"one entry for each of the 3 rows .* found 4 with 3 different ids",
        ),
        (
            lambda entries: [{"uniq_id": "0_1"}],
            "refcoco",
            r"val_predict\.json: entry 1: expects answer or a box",
        ),
        (lambda entries: ["x"], "refcoco", r"val_predict\.json: entry 1: expects a prediction"),
        (lambda entries: entries, "refcocoo", r"unknown task 'refcocoo'; known: .*refcoco"),
        (lambda entries: entries, "caption", r"asks for column|expects|found"),
    ],
    ids=["missing", "twice", "no-answer", "no-entry", "task", "other-task"],
)
def test_what_does_not_fit_is_one_message(tmp_path, boxes, capsys, change, task, words):
    data, results, entries = boxes
    results.write_text(json.dumps(change(entries)))
    status = report(results, data, task, tmp_path / "page.html", "--selected-cols", "0,4,2,3")
    message = capsys.readouterr().err
    assert status == 2 and len(message.splitlines()) == 1 and re.search(words, message), message
    assert not (tmp_path / "page.html").exists()
