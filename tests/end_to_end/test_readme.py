"""Every command of the README and of the pages works as it stands there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from programs import interpreter

from ofa.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def block(name: str, language: str = "bash") -> str:
    """The block of commands after ``<!-- name -->``, the same on every page that shows it."""
    (found,) = set(re.findall(rf"<!-- {name} -->\n```{language}\n(.*?)```", TEXT, re.S))
    return found


def run(
    commands: str, folder: Path, python: str | None = None, **settings: str
) -> subprocess.CompletedProcess:
    """Run a block in another folder, with this interpreter's environment in the place of .venv."""
    python = python or interpreter()
    commands = commands.replace("source .venv/bin/activate", f'ofa() {{ "{python}" -m ofa "$@"; }}')
    commands = commands.replace("run_scripts/", f"{ROOT}/run_scripts/")
    environment = {
        **os.environ,
        "OFA_EXECUTABLE": python,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twelve small images with captions and questions, as a user might bring them."""
    tmp_path = tmp_path_factory.mktemp("readme")
    images = tmp_path / "photos" / "images"
    images.mkdir(parents=True)
    colors = ["red", "green", "blue", "white"]
    for number in range(12):
        image = Image.new("RGB", (40, 30), "gray")
        ImageDraw.Draw(image).ellipse((5, 5, 25, 25), fill=colors[number % 4])
        image.save(images / f"{number}.jpg")
    (tmp_path / "photos/captions.json").write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(12)],
                "annotations": [
                    {"image_id": n, "caption": f"A {colors[n % 4]} ball{end}"}
                    for n in range(12)
                    for end in (".", " on grey")
                ],
            }
        )
    )
    rows = [f"{n}.jpg,What color is the ball?,{colors[n % 4]}" for n in range(12)]
    (tmp_path / "photos/questions.csv").write_text("\n".join(["image,question,answer", *rows]))
    return tmp_path


SMALL = "--max-update=2 --patch-image-size=32 --code-dict-size=16 --cpu"


def trained_briefly(commands: str, *flags: str) -> str:
    """The commands with flags behind those of ``ofa train``."""
    return re.sub(r"(?m)^ofa train .*", lambda line: " ".join([line[0], SMALL, *flags]), commands)


@pytest.fixture(scope="module")
def own_images(photos) -> str:
    """What the commands for one's own images print."""
    commands = trained_briefly(block("own images"))
    commands = commands.replace("ofa evaluate", "ofa evaluate --cpu --scores CIDEr --max-len-b 6")
    done = run(commands, photos, BATCH="4", EFFECTIVE_BATCH="4", NUM_WORKERS="0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def commands_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        line
        for found in re.findall(r"```bash\n(.*?)```", text, re.S)
        for line in found.splitlines()
    ]


def test_what_the_page_on_trouble_proposes_works(photos, own_images, monkeypatch):
    """In the order of the page: some commands read what earlier ones make."""
    commands = commands_of("troubleshooting.md")
    assert len(commands) > 20
    monkeypatch.chdir(photos)
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "ofa", command
        if words[0] == "train":  # it becomes another program
            done = run(f"source .venv/bin/activate\n{command}", photos)
            assert done.returncode == 0, done.stderr[-2000:]
        else:  # the bare doctor looks at this machine, whose faults are not the page's
            assert main(words) == 0 or words == ["doctor"], command


def test_the_steps_of_the_tutorial_are_the_commands_of_the_readme():
    steps = [
        block("own images prepare"),
        block("own images check"),
        block("own images vocabulary"),
        block("own images train"),
        block("own images evaluate"),
    ]
    assert "".join(steps) == block("own images")


def test_own_images_from_annotations_to_a_page(photos, own_images):
    assert "CIDEr" in own_images and (photos / "runs/photos/report.html").is_file()
    assert len(json.loads((photos / "runs/photos/captions/images_predict.json").read_text())) == 12


def test_own_questions_from_a_table_to_drawn_answers(photos, own_images):
    commands = f"source .venv/bin/activate\n{block('own questions')}"
    commands = trained_briefly(commands, "--max-epoch=1")
    commands = commands.replace("ofa evaluate", "ofa evaluate --cpu").replace(
        "ofa predict", "ofa predict --cpu --max-len-b 6"
    )
    done = run(commands, photos, BATCH="4", EFFECTIVE_BATCH="4", NUM_WORKERS="0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (
        "no faults" in done.stdout
        and "vqa_score" in done.stdout
        and (photos / "runs/questions/report.html").is_file()
    )
    assert len(list((photos / "runs/questions/drawn").iterdir())) == 12


def test_an_own_task_from_a_table_to_scores(photos):
    shutil.copytree(ROOT / "examples/counting_task", photos / "examples/counting_task")
    rows = [f"{n}.jpg,balls,{n % 3}" for n in range(12)]
    (photos / "photos/counts.csv").write_text("\n".join(["image,thing,count", *rows]))
    offline = "--quiet --no-deps --no-build-isolation --no-index --target site"
    commands = f"source .venv/bin/activate\n{trained_briefly(block('own task'))}"
    commands = commands.replace("pip install", f'"{sys.executable}" -m pip install {offline}')
    commands = commands.replace("ofa evaluate", "ofa evaluate --cpu --max-len-b 4")
    path = os.pathsep.join([str(photos / "site"), str(ROOT)])
    settings = {"BATCH": "4", "EFFECTIVE_BATCH": "4", "NUM_WORKERS": "0", "PYTHONPATH": path}
    done = run(commands, photos, sys.executable, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "no faults" in done.stdout and "acc" in done.stdout
    assert (photos / "runs/counts/report.html").is_file()


def test_own_drawings_from_captions_to_images(photos, own_images):
    commands = f"source .venv/bin/activate\n{block('own drawings')}".replace(
        "--minutes 10", "--updates 2 --minutes 0 --batch-size 2"
    )
    commands = commands.replace("512", "16").replace(
        "train_stage1.sh", "train_stage1.sh --max-update=2 --patch-image-size=32 --cpu"
    )
    commands = commands.replace("ofa draw", "ofa draw --cpu --samples 2")
    done = run(commands, photos, BATCH="4", EFFECTIVE_BATCH="4", NUM_WORKERS="0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(list((photos / "drawn").rglob("*.png"))) >= 2


def test_the_commands_for_pretraining_are_well_formed(tmp_path):
    blocks = block("pretraining") + block("shards") + block("pretraining score")
    commands = "ofa() { shift 2; }\n" + blocks
    done = run(commands, tmp_path, DRY_RUN="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert "--task=unify_task" in done.stdout and "--task=image_gen" in done.stdout
    assert "'shards/vision_language_examples-*.tar'" in done.stdout


def test_the_commands_for_other_tasks_and_few_parameters_are_well_formed(tmp_path):
    commands = "ofa() { :; }\n" + block("other tasks") + block("parameter-efficient tuning")
    done = run(commands, tmp_path, DRY_RUN="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    for task in ("rte", "gigaword", "caption", "refcoco", "ocr"):
        assert f"--task={task}" in done.stdout, task
    assert "--lora-rank=16" in done.stdout and "ofa_cn_base.pt" in done.stdout


def test_the_python_lines_say_something_about_an_image(photos, own_images, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    exec(block("python", "python"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[3] in ("yes", "no", "maybe")


def test_the_commands_for_upstream_files_are_well_formed(tmp_path):
    commands = re.sub(r"fetch \w+( --out \S+)?", "fetch --help", block("upstream"))
    commands += block("recipes") + block("two stages")
    done = run(commands, tmp_path, DRY_RUN="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert "--arch=ofa_base" in done.stdout and "checkpoints/ofa_base.pt" in done.stdout
    assert (
        "--path=checkpoints/caption_base_best.pt" in done.stdout
        and "refcocog_train.tsv" in done.stdout
        and done.stdout.count("scst_reward_criterion") == 3
    )


def test_the_commands_for_upstreams_own_scripts_write_what_these_call(tmp_path):
    commands = f'ofa() {{ "{sys.executable}" -m ofa "$@"; }}\n' + block("unchanged")
    done = run(re.sub(r"fetch \w+ --out \S+", "fetch --help", commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "OFA/train.py").is_file() and (tmp_path / "OFA/evaluate.py").is_file()


def test_every_command_and_folder_of_the_tables_exists():
    from ofa.cli.main import build_parser

    for path in re.findall(r"run_scripts/[\w/]+\.sh", TEXT):
        assert (ROOT / path).is_file(), path
    for folder in re.findall(r"^\| `(\w+)/` \|", PAGES[0].read_text(encoding="utf-8"), re.M):
        assert (ROOT / folder).is_dir(), folder
    for command in re.findall(r"^\| `ofa ([\w -]+)`", TEXT, re.M):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args([*command.split(), "--help"])
        assert ended.value.code == 0, command


def test_every_ofa_command_of_the_blocks_is_understood():
    from ofa.cli.main import build_parser

    blocks = "".join(re.findall(r"```(?:bash|text)\n(.*?)```", TEXT, re.S))
    commands = [  # in a block of text two spaces begin a remark
        shlex.split(line.partition("  ")[0].removesuffix(" ..."), comments=True)[1:]
        for line in blocks.splitlines()
        if line.startswith("ofa ")
    ]
    assert len(commands) > 15
    for command in commands:
        command = [word for word in command if word != "--compare" and "_scores.json" not in word]
        known, unknown = build_parser().parse_known_args(command)
        assert not unknown and callable(known.run), command


def test_the_first_commands_of_the_readme_are_the_quickstart_and_the_tests():
    first = re.search(r"```bash\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), re.S)[1]
    assert [line.split("#")[0].split() for line in first.splitlines()] == [
        ["bash", "run_scripts/quickstart.sh"],
        ["bash", "run_scripts/test.sh"],
    ]


def test_the_versions_to_install_are_those_of_the_set_up():
    """The commands themselves fetch gigabytes."""
    setup = (ROOT / "run_scripts/setup.sh").read_text(encoding="utf-8")
    table = (ROOT / "run_scripts/torch_versions.txt").read_text(encoding="utf-8")
    torch, torchvision, *_ = re.findall(r"(?m)^\d.*", table)[0].split()
    preferred = {f"torch=={torch}", f"torchvision=={torchvision}", "."}
    tools = re.findall(r'pip_install ("setuptools.* ninja)', setup)[0]
    fairseq = re.findall(r"fairseq-fixed==[\d.]+", setup)[0]
    assert installed_by(block("package")) == preferred
    assert installed_by(block("package to compile")) == {*preferred, *shlex.split(tools), fairseq}


def installed_by(commands: str) -> set[str]:
    lines = [shlex.split(line) for line in commands.splitlines() if line.startswith("pip ")]
    return {word for line in lines for word in line[2:] if not word.startswith("-")}


def test_the_builds_of_torch_on_the_page_are_those_of_the_set_up():
    table = (ROOT / "run_scripts/torch_versions.txt").read_text(encoding="utf-8")
    page = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
    shown = re.findall(r"(?m)^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) ", page)
    assert shown == [tuple(row.split()) for row in re.findall(r"(?m)^\d.*", table)]


def test_every_block_of_commands_has_a_name_by_which_a_test_runs_it():
    named = TEXT.replace((ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), "")
    names = set(re.findall(r"(?:<!-- ([\w -]+) -->\n)?```bash\n", named))
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/*/test_*.py"))
    tested = set(re.findall(r"""(?:block\(["']|<!-- )([\w -]+?)(?:["']\)| -->)""", tests))
    # Scripts and conversions have tests of their own, with smaller files; the page on trouble is
    # run line by line.
    assert names - tested == {"two commands", "quickstart", "pretraining demo", "conversion"}
