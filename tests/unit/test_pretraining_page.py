"""Pages of a pretraining: boxes and filled images of the tasks, and the summary of all
figures."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from ofa.cli.main import main
from ofa.io.image_grid import as_field
from ofa.io.images import decode_image
from ofa.metrics.pretraining import PredictedRow, Score
from ofa.report.page import write_report
from ofa.report.pretraining_page import item_of, tasks_report
from ofa.task.pretraining_tasks import PretrainingOptions

OPTIONS = PretrainingOptions(
    patch_image_size=64, max_image_size=64, num_bins=33, code_image_size=32
)  # 2 pixels of 64 per bin
IMAGE = as_field(Image.new("RGB", (128, 64), (200, 30, 60)))  # squashed to a square for the model
SQUARE = as_field(Image.new("RGB", (64, 64), (200, 30, 60)))
TRUE, SAID = "<bin_0> <bin_0> <bin_16> <bin_16>", "<bin_8> <bin_8> <bin_16> <bin_32>"


def boxes(item) -> list[tuple[str, list[float]]]:
    return [(kind, list(box)) for kind, box in item.boxes]


def test_boxes_are_drawn_in_pixels_of_the_image():
    item = item_of(
        "visual_grounding", PredictedRow("which region?", TRUE, SAID, (TRUE,), IMAGE), OPTIONS
    )
    assert boxes(item) == [("true", [0, 0, 64, 32]), ("predicted", [32, 16, 64, 64])]
    assert item.answer == "" and not item.references
    nothing = item_of(
        "visual_grounding", PredictedRow("which region?", TRUE, "a star", (TRUE,), IMAGE), OPTIONS
    )
    assert boxes(nothing) == [("true", [0, 0, 64, 32])] and nothing.answer == "a star"


def test_objects_have_boxes_and_names():
    item = item_of(
        "detection",
        PredictedRow("what?", f"{TRUE} red star {SAID} ring", f"{SAID} blue star", image=IMAGE),
        OPTIONS,
    )
    assert [kind for kind, _ in boxes(item)] == ["true", "true", "predicted"] and boxes(item)[2][
        1
    ] == [32, 16, 64, 64]
    assert item.answer == "blue star" and item.references == ["red star, ring"]


def test_a_region_is_marked_and_all_its_phrases_are_counted():
    phrases = (
        "the star",
        "the red star",
        "the red shape",
        "the shape",
        "the large star",
        "the large shape",
    )
    item = item_of(
        "grounded_captioning",
        PredictedRow(
            f"what does the region describe? region: {TRUE}", "the star", "the ring", phrases, IMAGE
        ),
        OPTIONS,
    )
    assert (
        boxes(item) == [("asked about", [0, 0, 64, 32])]
        and item.question == "what does the region describe?"
    )
    assert item.references == [*phrases[:4], "and 2 more"] and item.answer == "the ring"


def test_filled_images_stand_between_what_was_seen_and_what_is_true():
    codes = " ".join(f"<code_{number}>" for number in range(16))
    asked = PredictedRow(
        "what is the image in the middle part?",
        codes,
        codes.replace("<code_3>", "<code_9>"),
        image=SQUARE,
    )
    assert item_of("image_infilling", asked, OPTIONS).answer == "94 % of 16 codes right"
    item = item_of(
        "image_infilling", replace(asked, filled=Image.new("RGB", (32, 32), (200, 40, 60))), OPTIONS
    )
    strip = decode_image(item.image)
    assert strip.size == (3 * 132 + 4, 132 + 4)
    middles = [strip.getpixel((4 + 132 * number + 64, 68)) for number in range(3)]
    assert middles == [(128, 128, 128), (200, 40, 60), (200, 30, 60)] and strip.getpixel(
        (10, 10)
    ) == (200, 30, 60)
    assert item.references[0] == "mean pixel error 3.3"


def figures() -> dict:
    pixels = Score(
        "mean pixel error", 20.0, 40.0, "mean image", 9, lower_is_better=True, reachable=10.0
    )
    return {
        task: asdict(one)
        for task, one in {
            "qa": Score("accuracy", 0.75, 0.5, "yes", 9),
            "detection": Score("F1@0.5", 0.1, 0.2, f"{TRUE} star", 9),
            "image_infilling": Score(
                "right codes", 0.1, 0.0, "<code_1> <code_2>", 9, further=(pixels,)
            ),
        }.items()
    }


def test_texts_have_no_image_and_are_shown_in_words(tmp_path):
    text = PredictedRow(
        "1 <mask> 2", "1 5 2", "1 6 2", readable=("a <mask> star", "a red star", "a blue star")
    )
    log = "\n".join(
        f"train_inner | epoch 001: {n} / 9 nll_loss={3 - n}, qa_acc={50 + n}, num_updates={n}, lr=1"
        for n in (1, 2)
    )
    report = tasks_report(
        "Tasks",
        figures(),
        {"text_infilling": [text], "qa": [PredictedRow("what?", "yes", "no", image=SQUARE)]},
        OPTIONS,
        log,
    )
    write_report(tmp_path / "tasks.html", report)
    page = (tmp_path / "tasks.html").read_text()
    assert (
        "a &lt;mask&gt; star" in page
        and "a blue star" in page
        and page.count("<img") == 1
        and "1 6 2" not in page
    )
    assert "qa: right tokens (%)" in page and page.count("<polyline") == 2
    assert "<option>text infilling</option>" in page and 'data-group="qa"' in page
    assert "box 0, 0, 16, 16 star" in page and "the commonest code at each place" in page
    assert (
        "mean pixel error (less is better)" in page
        and "The mean pixel error of the true codes is 10.000." in page
    )


@pytest.fixture
def results(tmp_path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    content = {
        "scores": figures(),
        "drawn": {
            "drawings": 9,
            "things": 20,
            "things_right": 0.65,
            "all_things_there": 0.4,
            "exact": 0.3,
        },
        "gain": {
            "updates": 150,
            "tasks": {
                "boxes": {
                    "measure": "score",
                    "scratch": [0.1, 0.2, 0.3],
                    "pretrained": [0.5, 0.2, 0.8],
                }
            },
        },
        "draw_predict": [{"id": "7", "caption": "a red star", "files": ["0.png"]}],
    }
    for name, value in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    (tmp_path / "timings.tsv").write_text("1 draw\t60\n2 learn\t1140\n")
    return tmp_path


def test_the_summary_has_all_that_is_given(results):
    given = [
        "--scores",
        f"{results}/scores.json",
        "--drawings",
        f"one of each={results}/drawn.json",
        "--gain",
        f"{results}/gain.json",
        "--timings",
        f"{results}/timings.tsv",
        "--images",
        f"{results}/draw_predict.json",
    ]
    assert (
        main(
            [
                "pretraining",
                "summary",
                *given,
                "--title",
                "All of it",
                "--out",
                f"{results}/page.html",
                "--json",
                f"{results}/page.json",
            ]
        )
        == 0
    )
    content = json.loads((results / "page.json").read_text())
    assert content["title"] == "All of it" and content["tiles"][0]["value"] == "2 of 3"
    assert [item["answer"] for item in content["items"]] == ["a red star"]
    page = (results / "page.html").read_text()
    assert "2 of 3" in page and "65.0\u00a0%" in page and "20 min" in page and "All of it" in page
    assert "<td>0.200 ± 0.100</td><td>0.500 ± 0.300</td><td>2\u00a0of\u00a03</td>" in page
    assert (
        "a red star" in page and page.count("<img") == 1 and "<td>2 learn</td><td>1140</td>" in page
    )
    assert main(["pretraining", "summary", *given[:2], "--out", f"{results}/small.html"]) == 0
    assert (
        "finetuning" not in (results / "small.html").read_text()
        and "<script>" not in (results / "small.html").read_text()
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--scores", "{}/none.json"], "none.json: expected a JSON file of figures"),
        (["--timings", "{}/none.tsv"], "none.tsv: expected lines"),
        (["--scores", "{}/drawn.json"], "expected the files of the commands that --help names"),
        (
            ["--gain", "{}/draw_predict.json"],
            "expected the files of the commands that --help names",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(results, flags, message, capsys):
    assert (
        main(
            [
                "pretraining",
                "summary",
                *(flag.format(results) for flag in flags),
                "--out",
                f"{results}/page.html",
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (results / "page.html").exists()
