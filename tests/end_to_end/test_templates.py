"""A task in one line, from a table to predictions: the commands of docs/templates.md, and a
harder line."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw
from programs import interpreter
from training_runs import flags, make_files, train

from ofa import OFA
from ofa.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
COLORS = ("red", "green", "blue", "white")
SMALL = "--max-update=2 --patch-image-size=32 --code-dict-size=16 --cpu"
LINE = "[image:left] [image:right] the first is [choices:options]? -> [label:answer]"


def draw(path: Path, color: str) -> None:
    image = Image.new("RGB", (40, 30), "gray")
    ImageDraw.Draw(image).ellipse((5, 5, 25, 25), fill=color)
    image.save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twelve small images of balls, and a table about them."""
    folder = tmp_path_factory.mktemp("templates")
    (folder / "photos/images").mkdir(parents=True)
    rows = ["image,thing,color"]
    for number in range(12):
        draw(folder / f"photos/images/{number}.png", COLORS[number % 4])
        rows.append(f"{number}.png,ball,{COLORS[number % 4]}")
    (folder / "photos/things.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def page(photos) -> SimpleNamespace:
    """What the commands of the page print, and the folder they ran in."""
    commands = re.search(r"<!-- one line -->\n```bash\n(.*?)```", PAGE, re.S)[1]
    commands = commands.replace("template/train.sh", f"template/train.sh {SMALL}")
    commands = commands.replace("run_scripts/", f"{ROOT}/run_scripts/")
    commands = f'ofa() {{ "{interpreter()}" -m ofa "$@"; }}\n{commands}'
    environment = {
        **os.environ,
        "OFA_EXECUTABLE": interpreter(),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=photos,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return SimpleNamespace(folder=photos, printed=done.stdout)


def test_the_commands_of_the_page_prepare_check_train_predict_and_report(page):
    assert "template_train.tsv: 10 rows" in page.printed
    assert "no faults, no notes" in page.printed
    entries = json.loads((page.folder / "runs/things/results/val_predict.json").read_text())
    assert len(entries) == 2 and set(entries[0]) >= {"uniq_id", "answer"}
    report = (page.folder / "runs/things/report.html").read_text(encoding="utf-8")
    assert report.count("data:image/") >= 2 and "ball" in report


def test_the_checkpoint_remembers_its_line(page):
    lines = [line for line in page.printed.splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    assert len(found) == 12
    assert {one["task"] for one in found} == {
        "[image] what color is the [text:thing]? -> [text:color]"
    }
    assert found[0]["thing"] == "ball" and "answer" in found[0]


def test_python_asks_by_the_line_or_by_another_one(page):
    model = OFA.load(page.folder / "runs/things/checkpoint_best.pt", page.folder / "vocab/things")
    image = page.folder / "photos/images/1.png"
    (trained,) = [spec.name for spec in model.trained_tasks() if "->" in spec.name]
    assert isinstance(model.ask(trained, image, thing="ball"), str)
    assert isinstance(
        model.ask("[image] where is the [text:thing]? -> [box]", image, thing="ball").box, tuple
    )


@pytest.mark.parametrize("command", ["evaluate", "predict", "doctor", "report", "prepare"])
def test_every_command_shows_where_a_line_is_wrong(photos, capsys, command):
    task = ["--task", "[image] how many [txt:thing]? -> [text:count]"]
    table, out = str(photos / "photos/things.csv"), str(photos / "new")
    arguments = {
        "evaluate": [table, "--path", table],
        "predict": [table, table],
        "doctor": [table],
        "report": [table, "--data", table, "--out", out],
        "prepare": ["csv", table, "--out", out],
    }[command]
    assert main([command, *arguments, *task]) == 2
    printed = capsys.readouterr().err
    assert "did you mean [text:thing]?" in printed
    *_, line, carets = printed.rstrip("\n").split("\n")
    assert line[carets.index("^") :].startswith("txt") and carets.count("^") == 3


# --- two images, and choices that differ from row to row -----------------------------------------


@pytest.fixture(scope="module")
def pairs(photos, tmp_path_factory) -> SimpleNamespace:
    """A training on ten rows with two images and choices."""
    folder = tmp_path_factory.mktemp("pairs")
    images = [
        base64.b64encode((photos / f"photos/images/{number}.png").read_bytes()).decode()
        for number in range(12)
    ]
    rows = [
        (str(n), images[n], images[n + 1], f"{COLORS[n % 4]}&&{COLORS[(n + 1) % 4]}", COLORS[n % 4])
        for n in range(10)
    ]
    table = folder / "pairs.tsv"
    table.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    files = make_files(folder)
    files.train = files.valid = table
    own = (
        "--task=template",
        f"--template={LINE}",
        "--selected-cols=0,1,2,3,4",
        "--num-image-types=2",
        "--best-checkpoint-metric=score",
        "--maximize-best-checkpoint-metric",
        "--max-update=2",
    )
    done = train(flags(files, folder / "run", *own))
    assert done.code == 0, done.log[-3000:]
    return SimpleNamespace(
        folder=folder, table=table, checkpoint=str(folder / "run/checkpoint_best.pt")
    )


def test_only_the_choices_of_a_row_are_predicted(pairs):
    results = pairs.folder / "results"
    words = [
        "evaluate",
        str(pairs.table),
        "--path",
        pairs.checkpoint,
        "--results-path",
        str(results),
        "--cpu",
    ]
    assert main(words) == 0
    entries = json.loads((results / "test_predict.json").read_text())
    choices = [{COLORS[n % 4], COLORS[(n + 1) % 4]} for n in range(10)]
    assert all(entry["answer"] in known for entry, known in zip(entries, choices, strict=True))


def test_lines_of_requests_name_both_images_and_the_choices(pairs, photos, capsys):
    requests = photos / "requests.jsonl"
    images = {"left": "photos/images/1.png", "right": "photos/images/2.png"}
    requests.write_text(
        json.dumps({**images, "options": ["red", "blue"], "note": 7})
        + "\n"
        + json.dumps({**images, "right": "missing.png", "options": "green&&white"})
    )
    assert main(["predict", pairs.checkpoint, str(requests), "--cpu"]) == 1
    good, broken = map(json.loads, capsys.readouterr().out.strip().splitlines())
    assert good["answer"] in ("red", "blue") and good["note"] == 7
    assert "missing.png" in broken["error"]


def test_two_images_are_prepared_and_checked(pairs, photos, tmp_path, capsys):
    table = photos / "pairs.csv"
    rows = [
        "left,right,options,answer",
        "0.png,1.png,red&&blue,red",
        "1.png,0.png,red&&green,green",
    ]
    table.write_text("\n".join(rows))
    out = tmp_path / "out"
    words = [
        "csv",
        str(table),
        "--task",
        LINE,
        "--images",
        str(photos / "photos/images"),
        "--out",
        str(out),
    ]
    assert main(["prepare", *words]) == 0
    first, second = (out / "template_train.tsv").read_text().splitlines()
    assert first.split("\t")[1:3] == second.split("\t")[2:0:-1]
    assert main(["doctor", str(out / "template_train.tsv"), "--task", LINE]) == 0
    broken = out / "broken.tsv"
    broken.write_text(first.replace(first.split("\t")[2], "AAAA") + "\n")
    assert main(["doctor", str(broken), "--task", LINE]) == 1
    assert "broken.tsv:1:2 " in capsys.readouterr().out
