"""Text to image from training to images: a tiny model learns to draw, its images are files,
a page shows them."""

import json
from types import SimpleNamespace

import pytest
from drawing_files import (
    COLORS,
    SIDE,
    Colors,
    ColorScorer,
    drawing_flags,
    make_drawing_vocabulary,
    use_colors,
    write_drawings,
)
from PIL import Image
from training_runs import SMALL, log_lines, train

from ofa.cli.main import main

SCORER = "--image-text-scorer=drawing_files:ColorScorer"
TWO_ROWS = 2


def training_flags(files, save_dir, *more: str) -> list[str]:
    left_out = (
        "--lr=",
        "--batch-size",
        "--update-freq",
        "--max-epoch",
        "--dropout",
        "--freeze",
        "--save-interval-",
        "--validate-interval-",
        "--encoder-drop",
        "--decoder-drop",
        "--best-checkpoint",
        "--maximize",
        "--warmup",
        "--reset-",
    )
    flags = [
        flag
        for flag in drawing_flags(f"{files.train},{files.valid}", files.vocabulary)
        if not flag.startswith(left_out)
    ]
    return [
        *flags,
        *SMALL,
        "--warmup-ratio=0.1",
        "--batch-size=8",
        "--dropout=0.0",
        "--cpu",
        f"--save-dir={save_dir}",
        "--log-interval=4",
        *more,
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A checkpoint that was trained for seconds."""
    folder = tmp_path_factory.mktemp("drawing")
    files = SimpleNamespace(
        folder=folder,
        vocabulary=make_drawing_vocabulary(folder / "vocabulary"),
        train=write_drawings(folder / "train.tsv", range(32)),
        valid=write_drawings(folder / "valid.tsv", range(4)),
    )
    run = train(
        training_flags(files, folder / "run", "--lr=1e-2", "--max-epoch=25", "--disable-validation")
    )
    assert run.code == 0, run.log
    return SimpleNamespace(
        **vars(files), checkpoint=folder / "run" / "checkpoint_last.pt", log=run.log
    )


@pytest.fixture
def colors(monkeypatch):
    """``--image-tokenizer colors``: the tests' tokenizer."""
    import ofa.models.image_tokenizer.codec as module

    monkeypatch.setattr(module, "load_image_tokenizer", lambda path, device="cpu": Colors())


def evaluate(drawn, results, *more: str) -> int:
    return main(
        [
            "evaluate",
            str(drawn.valid),
            f"--path={drawn.checkpoint}",
            f"--results-path={results}",
            "--cpu",
            "--gen-subset=valid",
            "--batch-size=3",
            "--seed=3",
            *more,
        ]
    )


def test_images_have_the_colors_of_their_captions(drawn, colors, tmp_path):
    images = tmp_path / "images"
    assert (
        evaluate(
            drawn,
            tmp_path,
            "--image-tokenizer=colors",
            SCORER,
            f"--gen-images-path={images}",
            f"--report={tmp_path / 'page.html'}",
        )
        == 0
    )
    entries = json.loads((tmp_path / "valid_predict.json").read_text())
    assert [entry["caption"] for entry in entries] == [f"a {color} square" for color in COLORS]
    for row, entry in enumerate(entries):
        assert entry["files"] == [
            f"images/all_results/{row:06d}_a_{COLORS[row]}_square_{sample}.png"
            for sample in range(4)
        ]
        assert (
            entry["scores"] == sorted(entry["scores"], reverse=True)
            and len(entry["codes"].split()) == 4
        )
        best = Image.open(images / "top1" / f"{row:06d}_a_{COLORS[row]}_square.png")
        assert best.size == (SIDE, SIDE) and ColorScorer().score([best], [entry["caption"]]) == [
            entry["scores"][0]
        ]
        true = Image.open(images / "reference" / f"{row:06d}_a_{COLORS[row]}_square.png")
        assert ColorScorer().score([true], [entry["caption"]]) == [1.0]
    assert sum(entry["scores"][0] for entry in entries) / 4 > 0.9
    assert json.loads((tmp_path / "valid_scores.json").read_text())["scores"]["score"] > 0.9
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png") == 4 and "a blue square" in page


def test_results_do_not_depend_on_the_number_of_processes(drawn, tmp_path):
    assert (
        evaluate(drawn, tmp_path / "one") == 0
        and evaluate(drawn, tmp_path / "two", "--nproc=2") == 0
    )
    one, two = ((tmp_path / name / "valid_predict.json").read_text() for name in ("one", "two"))
    assert one == two and len(json.loads(one)[0]["codes"].split()) == 4


def test_the_page_can_be_made_from_the_result_file(drawn, colors, tmp_path):
    assert evaluate(drawn, tmp_path, "--image-tokenizer=colors", SCORER) == 0
    page = tmp_path / "page.html"
    assert (
        main(
            [
                "report",
                str(tmp_path / "valid_predict.json"),
                f"--data={drawn.valid}",
                "--task=image_gen",
                f"--out={page}",
            ]
        )
        == 0
    )
    assert page.read_text().count("data:image/png") == 4


def test_images_that_nothing_can_make_are_one_message(drawn, tmp_path, capsys):
    assert evaluate(drawn, tmp_path, f"--gen-images-path={tmp_path / 'images'}") == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("error: ")
        and "expected --image-tokenizer" in error
        and len(error.splitlines()) == 1
    )


def test_a_folder_that_cannot_be_written_is_one_message(drawn, colors, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert (
        evaluate(
            drawn,
            tmp_path,
            "--image-tokenizer=colors",
            f"--gen-images-path={tmp_path / 'file' / 'images'}",
        )
        == 2
    )
    error = capsys.readouterr().err
    assert (
        "--gen-images-path" in error and "can be written" in error and len(error.splitlines()) == 1
    )


def test_the_command_draws_captions(drawn, colors, tmp_path):
    (tmp_path / "captions.txt").write_text("a red square\n\na red square\n")
    out = tmp_path / "drawn"
    command = [
        "draw",
        str(drawn.checkpoint),
        "a blue square",
        f"--texts={tmp_path / 'captions.txt'}",
        f"--out={out}",
        "--samples=3",
        "--cpu",
        "--image-tokenizer=colors",
        SCORER,
    ]
    assert main(command) == 0
    entries = json.loads((out / "draw_predict.json").read_text())
    assert [entry["caption"] for entry in entries] == [
        "a blue square",
        "a red square",
        "a red square",
    ]
    assert len({file for entry in entries for file in entry["files"]}) == 9 and all(
        (out / file).is_file() for entry in entries for file in entry["files"]
    )
    assert (out / "000002_a_red_square.png").is_file()
    before = [(out / file).read_bytes() for entry in entries for file in entry["files"]]
    assert main([*command[:-3], *command[-3:]]) == 0
    assert before == [(out / file).read_bytes() for entry in entries for file in entry["files"]]


def test_the_python_api_gives_images(drawn):
    from ofa import OFA

    model = OFA.load(drawn.checkpoint, device="cpu")
    images = model.draw("a green square", 5, tokenizer=Colors(), scorer=ColorScorer())
    assert len(images) == 5 and images[0].size == (SIDE, SIDE)
    fits = [image.info["clip_score"] for image in images]
    assert fits == sorted(fits, reverse=True) and fits[0] > 0.7
    several = model.draw(["a green square", "a red square"], 2, tokenizer=Colors())
    assert [len(some) for some in several] == [2, 2]


def test_stage_2_makes_images_fit_better_without_any_download(drawn, tmp_path):
    """From weights that have hardly learned anything; captions without codes are enough. Nothing
    warns."""
    captions = write_drawings(tmp_path / "captions.tsv", range(32), codes=False)
    files = SimpleNamespace(train=captions, valid=captions, vocabulary=drawn.vocabulary)
    stage1 = train(
        training_flags(
            drawn, tmp_path / "stage1", "--lr=1e-2", "--max-epoch=2", "--disable-validation"
        )
    )
    assert stage1.code == 0, stage1.log[-3000:]
    run = train(
        [
            *training_flags(
                files, tmp_path / "stage2", "--lr=2e-3", "--max-epoch=12", "--validate-interval=11"
            ),
            "--criterion=clip_scst_reward_criterion",
            "--selected-cols=0,1",
            "--scst",
            '--scst-args={"beam":5,"sampling_topk":5}',
            "--freeze-resnet",
            f"--finetune-from-model={tmp_path / 'stage1' / 'checkpoint_last.pt'}",
            f"--image-tokenizer={drawn.folder}",
            SCORER,
            "--best-checkpoint-metric=score",
            "--maximize-best-checkpoint-metric",
        ],
        prepare=use_colors,
    )
    assert run.code == 0, run.log[-3000:]
    rewards = [float(line.split("score=")[1].split(",")[0]) for line in log_lines(run.log)]
    assert rewards[-1] > rewards[0] + 0.3
    assert "optimization of images: baseline leave-one-out, reward 2.5 x" in run.log
    assert not [
        line
        for line in run.log.splitlines()
        if "WARNING | ofa" in line or "UserWarning" in line and "drawing" in line
    ]
