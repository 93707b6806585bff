"""A task that is no file of this project: every command and the Python API know it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from original_data import write_images
from small_checkpoint import save_checkpoint
from training_runs import flags, make_files

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = """\
import json, sys
from ofa.cli.main import main
folder, train, checkpoint, task, word, text, answer = sys.argv[1:]
rows, photos = f"{folder}/rows/counting_train.tsv", f"{folder}/photos"
photo = f"{photos}/a.jpg"
of_task, search = ["--task", task], ["--cpu", "--beam=2", "--max-len-b=4"]
done = {}
made = ["--images", photos, "--out", f"{folder}/rows"]
done["prepare"] = main(["prepare", "csv", f"{folder}/table.csv", *of_task, *made])
if train:
    sys.argv = ["fairseq-train", f"{rows},{rows}", *json.loads(train)]
    from fairseq_cli.train import cli_main
    cli_main()
done["doctor"] = main(["doctor", rows])
results = [f"--results-path={folder}", "--max-tgt-length=5"]
done["evaluate"] = main(["evaluate", rows, "--path", checkpoint, *of_task, *search, *results])
out = ["--draw", f"{folder}/drawn", "--out", f"{folder}/predictions.jsonl"]
done["predict"] = main(["predict", checkpoint, photos, *of_task, f"--{word}", text, *search, *out])
page = ["--data", rows, "--out", f"{folder}/page.html"]
done["report"] = main(["report", f"{folder}/train_predict.json", *of_task, *page])
from ofa import OFA
from ofa.demo.service import Demo
model = OFA.load(checkpoint, device="cpu")
done["python"] = str(model.counting(photo, text)) == str(model.ask(task, photo, **{word: text}))
done["demo"] = Demo(model, ["counting"]).predict("counting", photo, text).answers
json.dump(done, open(f"{folder}/statuses.json", "w"))
"""


def run(
    folder: Path,
    where: Path,
    before: str,
    train: list[str],
    checkpoint: Path,
    task: str,
    word: str,
    text: str,
    target: str,
) -> dict:
    """Every command with the task. Args: where: on the search path. before: code that comes
    first."""
    write_images(folder / "photos", {1: "a.jpg", 2: "b.jpg", 3: "c.jpg"})
    (folder / "table.csv").write_text(
        f"image,{word},{target}\na.jpg,dogs,3\nb.jpg,cats,1\nc.jpg,dogs,2\n"
    )
    path = os.pathsep.join([str(where), str(ROOT)])
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            before + COMMANDS,
            str(folder),
            json.dumps(train) if train else "",
            str(checkpoint),
            task,
            word,
            text,
            target,
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "statuses.json").read_text())


def check(folder: Path, statuses: dict, word: str) -> None:
    assert [
        statuses.pop(name) for name in ("prepare", "doctor", "evaluate", "predict", "report")
    ] == [0] * 5
    assert statuses["python"] is True and statuses["demo"]
    predictions = [
        json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()
    ]
    assert [Path(prediction["drawn"]).name for prediction in predictions] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ] and {prediction[word] for prediction in predictions} == {"birds"}
    assert {"uniq_id", "answer", "score"} <= set(
        json.loads((folder / "train_predict.json").read_text())[0]
    )
    assert "dogs" in (folder / "page.html").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package of ``examples/counting_task`` in a folder of its own, as pip installs it
    without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "counting_task.py"):
        (source / name).write_text((ROOT / "examples/counting_task" / name).read_text())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--target",
            str(target),
            str(source),
        ],
        check=True,
    )
    return target


def test_the_example_is_short():
    lines = [
        line
        for path in (ROOT / "examples/counting_task").glob("*.*")
        for line in path.read_text().splitlines()
    ]
    assert len(lines) <= 40


def test_an_installed_package_adds_a_task_to_every_command(installed, tmp_path):
    recipe = flags(
        make_files(tmp_path / "captions"),
        tmp_path / "trained",
        "--max-update=2",
        "--disable-validation",
        "--eval-args={}",
    )
    own = ("--task=", "--selected-cols=", "--eval-args=")
    train = [*(flag for flag in recipe[1:] if not flag.startswith(own)), "--task=count_things"]
    checkpoint = tmp_path / "trained/checkpoint_last.pt"
    statuses = run(
        tmp_path, installed, "", train, checkpoint, "count_things", "thing", "birds", "count"
    )
    check(tmp_path, statuses, "thing")
    assert json.loads((tmp_path / "train_scores.json").read_text())["scores"].keys() == {"acc"}


def test_a_copied_file_with_another_name_is_a_task_for_every_command(tmp_path):
    text = (
        (ROOT / "tasks/instruction.py").read_text().replace('name="instruction"', 'name="counting"')
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more/counting.py").write_text(text)
    before = f"import ofa.tasks\nofa.tasks.__path__.append({str(tmp_path / 'more')!r})\n"
    statuses = run(
        tmp_path,
        tmp_path,
        before,
        [],
        save_checkpoint(tmp_path),
        "counting",
        "instruction",
        "birds",
        "answer",
    )
    check(tmp_path, statuses, "instruction")
