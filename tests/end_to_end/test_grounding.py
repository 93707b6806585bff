"""Grounding the whole way on a toy scale: training, evaluation by one and two processes, pages,
predictions, uploads."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import training_runs
from grounding_files import COLORS, SIZE, scene, write_questions, write_rows

from ofa.tokens.boxes import box_overlap
from ofa.tokens.train_tokenizer import build_vocabulary

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12
RECIPE = (
    "--task=refcoco",
    "--selected-cols=0,4,2,3",
    "--max-image-size=32",
    "--num-bins=32",
    "--eval-acc",
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--batch-size=8",
    "--lr=4e-3",
    "--max-epoch=6",
    '--eval-args={"beam":3}',
    "--best-checkpoint-metric=score",
    "--maximize-best-checkpoint-metric",
    "--eval-print-samples",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SimpleNamespace:
    """Files, a checkpoint after 60 updates on 80 rows, and the log of the training."""
    folder = tmp_path_factory.mktemp("grounding")
    texts = [f'which region does the text " the {color} square " describe?' for color in COLORS]
    build_vocabulary(
        [*texts * 3, "what does the image describe? yes no maybe"], 320, folder / "vocabulary"
    )
    files = SimpleNamespace(
        folder=folder,
        vocabulary=folder / "vocabulary",
        train=write_rows(folder / "train.tsv", range(100, 180)),
        valid=write_rows(folder / "valid.tsv", range(ROWS)),
    )
    done = training_runs.train(training_runs.flags(files, folder / "run", *RECIPE))
    assert done.code == 0, done.log[-3000:]
    return SimpleNamespace(
        **vars(files), log=done.log, checkpoint=str(folder / "run/checkpoint_last.pt")
    )


def ofa(*words: str) -> int:
    """``ofa ...`` in this process."""
    from ofa.cli.main import main

    return main([*map(str, words)])


@pytest.fixture(scope="module")
def evaluated(run) -> Path:
    """Results of one process with one thread: what several do with one each is the same to the
    last bit."""
    folder, threads = run.folder / "results", torch.get_num_threads()
    torch.set_num_threads(1)
    assert (
        ofa(
            "evaluate",
            run.valid,
            "--path",
            run.checkpoint,
            "--cpu",
            "--batch-size",
            "5",
            "--gen-subset",
            "val",
            "--results-path",
            folder,
            "--report",
            folder / "val.html",
            "--json",
            folder / "val.json",
        )
        == 0
    )
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def model(run):
    from ofa import OFA

    return OFA.load(run.checkpoint, device="cpu", batch_size=5)


def test_training_lowers_the_loss_and_validates_by_accuracy(run):
    losses = [
        float(value) for value in re.findall(r"valid on 'valid' subset \| loss ([\d.]+)", run.log)
    ]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]
    assert (
        len(re.findall(r"\| score [\d.]+ ", run.log)) == 6
        and "example hypothesis: <bin_" in run.log
    )


def test_the_result_file_has_a_box_of_four_bins_inside_every_image(run, evaluated):
    entries = json.loads((evaluated / "val_predict.json").read_text())
    assert [entry["uniq_id"] for entry in entries] == [f"{row}_1" for row in range(ROWS)]
    for entry in entries:
        boxes = [entry, *entry["others"]]
        assert len(boxes) == 3 and [one["score"] for one in boxes] == sorted(
            (one["score"] for one in boxes), reverse=True
        )
        for one in boxes:
            assert len(one["bins"]) == 4
            assert all(0 <= corner <= side for corner, side in zip(one["box"], SIZE * 2))


def test_the_accuracy_is_that_of_the_boxes_in_the_file(run, evaluated):
    entries = json.loads((evaluated / "val_predict.json").read_text())
    overlaps = box_overlap(
        [entry["box"] for entry in entries], [scene(row)[2] for row in range(ROWS)]
    )
    scores = json.loads((evaluated / "val_scores.json").read_text())["scores"]
    assert scores["score"] == pytest.approx((overlaps >= 0.5).float().mean().item())
    assert scores["IoU"] == pytest.approx(overlaps.mean().item(), abs=1e-4)
    validated = float(re.findall(r"\| score ([\d.]+) ", run.log)[-1])
    assert scores["score"] == pytest.approx(validated, abs=1e-4), (
        "evaluation and validation count alike"
    )


def test_one_and_two_processes_write_the_same_file(run, evaluated, tmp_path):
    words = ("--cpu", "--batch-size", "5", "--gen-subset", "val", "--nproc", "2")
    assert ofa("evaluate", run.valid, "--path", run.checkpoint, *words, "--out", tmp_path) == 0
    assert (tmp_path / "val_predict.json").read_bytes() == (
        evaluated / "val_predict.json"
    ).read_bytes()
    assert (tmp_path / "val_scores.json").read_bytes() == (
        evaluated / "val_scores.json"
    ).read_bytes()


def test_pages_of_evaluation_and_report_show_the_same_boxes(run, evaluated, tmp_path):
    assert (
        ofa(
            "report",
            evaluated / "val_predict.json",
            "--data",
            run.valid,
            "--task",
            "refcoco",
            "--out",
            tmp_path / "page.html",
            "--json",
            tmp_path / "page.json",
        )
        == 0
    )
    evaluation, report = (
        json.loads(path.read_text()) for path in (evaluated / "val.json", tmp_path / "page.json")
    )
    assert evaluation["items"] == report["items"] and evaluation["scores"] == report["scores"]
    pages = [path.read_text() for path in (evaluated / "val.html", tmp_path / "page.html")]
    boxes = [re.findall(r'<rect class="(?:predicted|true)"[^>]*>', page) for page in pages]
    assert len(boxes[0]) == 2 * ROWS and boxes[0] == boxes[1]


def test_zero_shot_and_unlabeled_rows_are_answered_too(run, tmp_path):
    data = write_rows(tmp_path / "unlabeled.tsv", range(3), box="")
    assert (
        ofa(
            "evaluate",
            data,
            "--path",
            run.checkpoint,
            "--cpu",
            "--zero-shot",
            "--results-path",
            tmp_path,
        )
        == 0
    )
    assert all(
        len(entry["bins"]) == 4
        for entry in json.loads((tmp_path / "test_predict.json").read_text())
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box": "30,5,10,15"}, r"rows\.tsv:1: .*turned round"),
        ({"box": "90,90,99,99"}, r"rows\.tsv:1: .*inside the image of 48 x 36 pixels"),
        ({"box": "1,2,3"}, r"rows\.tsv:1: .*four numbers"),
        ({"text": ""}, r"rows\.tsv:1: .*a text that describes a region"),
    ],
)
def test_a_wrong_row_is_one_message(run, tmp_path, capsys, change, words):
    data = write_rows(tmp_path / "rows.tsv", range(2), **change)
    assert (
        ofa(
            "evaluate",
            data,
            "--path",
            run.checkpoint,
            "--cpu",
            "--results-path",
            tmp_path / "results",
        )
        == 2
    )
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(words, errors[0]), errors
    assert not list(tmp_path.glob("results/*"))


def test_a_result_folder_that_cannot_be_written_is_one_message(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert (
        ofa(
            "evaluate",
            run.valid,
            "--path",
            run.checkpoint,
            "--cpu",
            "--results-path",
            tmp_path / "file/results",
        )
        == 2
    )
    assert str(tmp_path / "file") in capsys.readouterr().err.splitlines()[-1]


def test_python_gives_the_boxes_of_the_evaluation(model, evaluated):
    entries = json.loads((evaluated / "val_predict.json").read_text())
    scenes = [scene(row) for row in range(ROWS)]
    regions = model.ground(
        [image for image, _, _ in scenes], [text for _, text, _ in scenes], best=3
    )
    for region, entry in zip(regions, entries, strict=True):
        assert (
            region.box == tuple(entry["box"])
            and region.bins == tuple(entry["bins"])
            and len(region.others) == 2
        )
        assert region.score == pytest.approx(entry["score"], abs=1e-3)


def test_one_image_gives_one_reply_and_lists_give_lists(model):
    image, text, _ = scene(3)
    alone = model.ground(image, text)
    assert [region.box for region in model.ground(image, [text, text])] == [alone.box] * 2
    assert [region.box for region in model.ground([image, image], text)] == [alone.box] * 2


def test_any_task_can_be_asked_of_any_checkpoint(model, caplog):
    image, _, box = scene(3)
    for _ in range(2):
        assert isinstance(model.caption(image, max_len_b=4), str)
    assert caplog.text.count("'caption' is asked of a checkpoint that was trained for refcoco") == 1
    assert model.answer(image, "what color is it?", answers=["red", "white"], best=2).others
    assert isinstance(model.answer(image, "what color is it?", region=box, max_len_b=4), str)
    assert model.entails(image, "a square") in ("yes", "no", "maybe")
    assert model.entails(image, "a square", premise="a white square") in ("yes", "no", "maybe")
    generated = model.generate([image], ["look at it <bin_3>"], max_len_b=4)
    assert len(generated) == 1 and isinstance(generated[0], str)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda model, image: model.ground(image, " "), "text 1: expects a text"),
        (
            lambda model, image: model.ground([image] * 2, ["a"] * 3),
            "expects lists of one length, found 2 of 'image', 3 of 'text'",
        ),
        (
            lambda model, image: model.answer(image, "what?", region=(1, 2, 3)),
            "region: expects left, top, right, bottom",
        ),
        (
            lambda model, image: model.answer(image, "what?", region=(100, 100, 200, 200)),
            "inside the image of 48 x 36",
        ),
        (
            lambda model, image: model.answer(image, "what?", answers=[]),
            "answers: expects a list of texts",
        ),
        (lambda model, image: model.caption("nowhere.jpg"), "nowhere.jpg: expects an image file"),
        (lambda model, image: model.caption(image, beam=0, best=0), "beam"),
        (lambda model, image: model.caption(image, beams=3), "found 'beams'; did you mean beam"),
        (lambda model, image: model.caption(image, answers=["a"]), "'caption' does not choose"),
        (lambda model, image: model.answer(image, "what?", answers=[1]), "expects a list of texts"),
    ],
)
def test_a_wrong_question_is_one_message(model, ask, words):
    from ofa.errors import UserError

    with pytest.raises(UserError, match=words):
        ask(model, scene(0)[0])


def test_a_checkpoint_whose_vocabulary_is_gone_says_so(run, tmp_path):
    from ofa import OFA
    from ofa.errors import UserError

    with pytest.raises(UserError, match="expected a folder with BPE files"):
        OFA.load(run.checkpoint, tmp_path / "nowhere", device="cpu")
    with pytest.raises(UserError, match="precision: expects one of"):
        OFA.load(run.checkpoint, precision="fp8")


def test_predict_writes_lines_and_annotated_images_and_names_broken_images(
    run, evaluated, tmp_path, caplog
):
    for row in range(3):
        scene(row)[0].save(tmp_path / f"{row}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    asked = [{"image": f"{row}.png", "text": scene(row)[1], "number": row} for row in range(3)]
    asked += [
        {"image": "broken.png", "text": "the square"},
        {"image": "1.png", "hypothesis": "a square"},
    ]
    (tmp_path / "ask.jsonl").write_text("\n".join(map(json.dumps, asked)))
    status = ofa(
        "predict",
        run.checkpoint,
        tmp_path / "ask.jsonl",
        "--cpu",
        "--out",
        tmp_path / "predictions.jsonl",
        "--draw",
        tmp_path / "drawn",
        "--batch-size",
        "2",
        "--best",
        "2",
    )
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert status == 1 and "broken.png" in lines[3]["error"] and "broken.png" in caplog.text
    entries = json.loads((evaluated / "val_predict.json").read_text())
    for line, entry in zip(lines[:3], entries):
        assert (
            line["box"]["pixels"] == entry["box"]
            and line["box"]["bins"] == entry["bins"]
            and "number" in line
        )
        assert line["box"]["normalised"] == pytest.approx(
            [corner / side for corner, side in zip(entry["box"], SIZE * 2)], abs=1e-5
        )
        assert len(line["others"]) == 1
    assert lines[4]["answer"] in ("yes", "no", "maybe")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "0.jpg",
        "1.jpg",
        "1_2.jpg",
        "2.jpg",
    ]


def test_a_broken_image_may_end_the_command(run, tmp_path, capsys):
    (tmp_path / "broken.png").write_text("x")
    assert (
        ofa(
            "predict",
            run.checkpoint,
            tmp_path / "broken.png",
            "--cpu",
            "--stop-on-broken",
            "--out",
            tmp_path / "out.jsonl",
        )
        == 2
    )
    assert "broken.png" in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()


def test_questions_about_a_region_are_learned_and_answered(run, tmp_path):
    files = SimpleNamespace(
        vocabulary=run.vocabulary,
        train=write_questions(tmp_path / "train.tsv", range(100, 148)),
        valid=write_questions(tmp_path / "valid.tsv", range(ROWS)),
    )
    answers = json.dumps({answer: number for number, answer in enumerate([*COLORS, "grey"])})
    recipe = (
        "--task=grounded_qa",
        "--selected-cols=0,5,2,3,4",
        f"--ans2label-dict={answers}",
        "--max-image-size=32",
        "--num-bins=32",
        "--prompt-type=none",
        "--max-epoch=2",
        "--batch-size=8",
        "--best-checkpoint-metric=vqa_score",
        "--maximize-best-checkpoint-metric",
    )
    done = training_runs.train(training_runs.flags(files, tmp_path / "run", *recipe))
    assert done.code == 0 and len(re.findall(r"\| vqa_score [\d.]+ ", done.log)) == 2, done.log[
        -3000:
    ]
    checkpoint = str(tmp_path / "run/checkpoint_last.pt")
    assert (
        ofa(
            "evaluate",
            files.valid,
            "--path",
            checkpoint,
            "--cpu",
            "--results-path",
            tmp_path,
            "--report",
            tmp_path / "page.html",
        )
        == 0
    )
    entries = json.loads((tmp_path / "valid_predict.json").read_text())
    assert [entry["question_id"] for entry in entries] == list(range(ROWS))
    assert (tmp_path / "page.html").read_text().count('<rect class="asked"') == ROWS
    from ofa import OFA

    model = OFA.load(checkpoint, device="cpu")
    regions = [scene(row)[2] if row % 2 else (0, 0, *SIZE) for row in range(ROWS)]
    predictions = model.answer(
        [scene(row)[0] for row in range(ROWS)], "What color is it?", region=regions
    )
    assert predictions == [entry["answer"] for entry in entries]
    assert set(predictions) <= {*COLORS, "grey"}
