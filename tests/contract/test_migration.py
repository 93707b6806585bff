"""docs/migration.md: every script of upstream is named, and every call beside it can be made."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from dry_runs import after, dry_run

from ofa.checkpoints.published import published_checkpoints
from ofa.cli import train
from ofa.cli.main import build_parser
from ofa.cli.train import TrainOptions
from ofa.io.flags import flags_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
CALLS = dict(re.findall(r"^\| `(\w+/\w+\.sh)` \| (.*) \|$", PAGE, re.M))
# scripts of each folder of upstream
COUNTS = {
    "caption": 10,
    "gigaword": 2,
    "glue": 7,
    "image_classify": 2,
    "image_gen": 4,
    "mmspeech": 4,
    "ocr": 2,
    "pretraining": 2,
    "refcoco": 16,
    "snli_ve": 5,
    "vqa": 10,
}


def call_of(name: str) -> tuple[dict[str, str], list[str]]:
    """Settings and words of the call in place of a script."""
    words = shlex.split(re.match(r"`(.*?)`", CALLS[name])[1])
    first = next(place for place, word in enumerate(words) if not re.match(r"[A-Z]+=", word))
    return dict(word.split("=", 1) for word in words[:first]), words[first:]


OFFERED = [name for name in CALLS if not name.startswith("mmspeech/")]
TRAINING = [name for name in OFFERED if call_of(name)[1][:2] == ["ofa", "train"]]


def with_sourced(script: Path) -> str:
    """The text of a run script and of those that it sources or runs."""
    text = script.read_text(encoding="utf-8")
    names = re.findall(r"\$HERE/((?:\.\./)?\w+\.sh)", text)
    others = [path for name in names if (path := (script.parent / name).resolve()) != script]
    return "\n".join([text, *map(with_sourced, others)])


def test_every_script_of_upstream_has_a_line():
    folders = [name.split("/")[0] for name in CALLS]
    assert {folder: folders.count(folder) for folder in folders} == COUNTS
    assert sum(COUNTS.values()) == 64
    assert {*CALLS} - {*OFFERED} == {name for name in CALLS if "not offered" in CALLS[name]}


@pytest.mark.parametrize("name", OFFERED)
def test_the_call_in_place_of_a_script_can_be_made(name):
    settings, words = call_of(name)
    if words[0] == "ofa":
        args = build_parser().parse_args(words[1:])
        if words[1] != "train":
            return
        script, more = train.recipe_of(args.what)
        settings |= more | {"SIZE": args.size}
    else:
        script = ROOT / words[1]
    text = with_sourced(script)
    for setting, value in settings.items():
        assert re.search(rf"\b{setting}\b", text), setting
        if setting in ("SIZE", "DATASET", "SPLIT", "MODE", "TUNING", "LOSS"):
            assert re.search(rf"(?<!\w){value}(?!\w)", text), value
    # one of them is the .pt of a .zip
    published = {Path(row["file"]).stem for row in published_checkpoints().values()}
    assert Path(settings.get("CHECKPOINT", "ofa_base.pt")).stem in published


@pytest.mark.parametrize("name", [name for name in TRAINING if "--criterion" in CALLS[name]])
def test_added_flags_reach_the_training(name, parse_training):
    settings, words = call_of(name)
    script, _ = train.recipe_of(words[2])
    flags = [word for word in words[3:] if "=" in word]
    args = parse_training(after(dry_run(script, *flags, **settings), "fairseq_cli.train"))
    assert (args.criterion, args.log_end, args.drop_worst_ratio, args.drop_worst_after) == (
        "adjust_label_smoothed_encouraging_loss",
        0.75,
        0.05,
        2500,
    )


def test_flags_and_settings_in_place_of_variables_exist():
    table = PAGE.split("## Each variable")[1].split("## What differs")[0]
    rows = [line.split("|")[2:4] for line in re.findall(r"^\| `.*", table, re.M)]
    known = {*flags_of(TrainOptions), "--update-freq", "--selected-cols", "--lr", "--max-epoch"}
    read = {
        name for option in fields(TrainOptions) for name in option.metadata.get("env", "").split()
    }
    assert len(rows) == 13
    for flags, settings in rows:
        assert {*re.findall(r"--[\w-]+", flags)} <= known, flags
        assert {*re.findall(r"`([A-Z_]+)`", settings)} <= read, settings


def rows_with_commands(page: str) -> list[list[str]]:
    """Cells of the rows of a page that name a training."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^\|.* `.*ofa train .*", text, re.M)
    return [re.split(r" *\| *", line.strip("| ")) for line in lines]


def test_reported_results_are_those_of_the_published_checkpoints():
    rows = rows_with_commands("docs/results.md")
    cells = {cell for row in rows for cell in row}
    scores = {name: row["score"] for name, row in published_checkpoints().items() if row["score"]}
    missing = [name for name, score in scores.items() if score not in cells and "_cn_" not in name]
    assert missing == [] and len(rows) == 10
    of_large = {row[5] for row in rows}
    for figure in (row[1] for row in rows_with_commands("README.md")):
        assert figure.split(" ", 1)[1] in of_large, figure


@pytest.mark.parametrize("page, count", [("docs/results.md", 10), ("README.md", 7)])
def test_every_recipe_beside_a_result_exists(page, count):
    named = [re.findall(r"ofa train ([\w-]+)", row[-1]) for row in rows_with_commands(page)]
    assert len(recipes := sum(named, [])) == count
    assert all(train.recipe_of(recipe)[0].is_file() for recipe in recipes)
