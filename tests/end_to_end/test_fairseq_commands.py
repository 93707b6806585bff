"""Every command of fairseq that docs/commands.md names works with ``--user-dir ofa``; those that
cannot work say so in one line."""

import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from programs import interpreter
from training_runs import ROOT, flags, fork, make_files

COMMANDS = ("train", "validate", "generate")
PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data, and a checkpoint that the first of the commands makes."""
    files = make_files(tmp_path_factory.mktemp("commands"))
    done = run(
        [interpreter(), script("train")],
        flags(files, files.folder / "run", "--max-update=1", "--disable-validation"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files.checkpoint = files.folder / "run/checkpoint_last.pt"
    return files


def script(name: str) -> str:
    return str(Path(sys.executable).parent / f"fairseq-{name}")


def run(command: list[str], arguments: list[str]) -> subprocess.CompletedProcess:
    """The command from a folder where no code lies."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments],
        cwd=os.path.sep,
        env=environment,
        capture_output=True,
        text=True,
        input="a red cube\n",
    )


def of_checkpoint(files, *more: str) -> list[str]:
    return [
        f"{files.train},{files.valid}",
        f"--user-dir={ROOT / 'ofa'}",
        "--task=caption",
        f"--bpe-dir={files.vocabulary}",
        "--selected-cols=0,4,2",
        "--num-bins=20",
        "--code-dict-size=16",
        "--patch-image-size=32",
        "--cpu",
        f"--path={files.checkpoint}",
        *more,
    ]


def test_the_page_names_the_commands_that_are_run_here_and_no_other():
    named = set(re.findall(r"fairseq-([a-z]+(?:-[a-z]+)*)", PAGE)) - {"fixed"}
    named |= set(re.findall(r"fairseq_cli\.(\w+)", PAGE))
    assert named == set(COMMANDS)


def test_generate_ends_quietly_when_nobody_reads_its_output(files):
    arguments = " ".join(
        map(
            shlex.quote,
            [script("generate"), *of_checkpoint(files, "--gen-subset=valid", "--batch-size=2")],
        )
    )
    done = run(["bash", "-c", f"{arguments} | true; exit ${{PIPESTATUS[0]}}"], [])
    assert (
        done.returncode == 141
        and "Traceback" not in done.stderr
        and "BrokenPipe" not in done.stderr
    ), done.stderr[-3000:]


@pytest.mark.parametrize("command", [[script("generate")], ["-m", "fairseq_cli.generate"]])
def test_generate_prints_each_row_in_words_and_a_line_of_bleu(files, command):
    done = run(
        [interpreter(), *command],
        of_checkpoint(files, "--gen-subset=valid", "--batch-size=4", "--beam=2", "--max-len-b=5"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in "STHDP":
        assert len(re.findall(rf"^{kind}-\d+_0\t", done.stdout, re.M)) == 7
    assert "T-0_0\t A red cube on a table&&There is a red cube" in done.stdout
    assert re.search(r"^Generate valid with beam=2: BLEU4 = ", done.stdout, re.M)
    assert "DEBUG" not in done.stderr


def test_validate_prints_the_figures_of_the_file(files):
    command = [interpreter(), script("validate")]
    done = run(command, of_checkpoint(files, "--valid-subset=valid", "--batch-size=4"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(
        r"valid on 'valid' subset \| loss [\d.]+ .* ntokens 173 \| nsentences 7", done.stdout
    )


def run_script(script: str, *arguments: str) -> None:
    sys.argv, sys.stdin = [script, *arguments], io.StringIO("a red cube\n")
    runpy.run_path(script, run_name="__main__")


@pytest.mark.parametrize(
    "name, more, message",
    [
        (
            "generate",
            ("--path=nowhere.pt",),
            "--path: expects a checkpoint, found no file nowhere.pt",
        ),
        ("generate", ("--lm-path=nowhere.pt", "--lm-weight=0.5"), "not offered"),
        (
            "validate",
            ("--path=nowhere.pt", "--batch-size=4"),
            "--path: expects a checkpoint, found no file nowhere.pt",
        ),
        ("interactive", (), "use: ofa predict"),
        ("eval-lm", (), "use: fairseq-validate"),
    ],
)
def test_what_cannot_work_is_one_line(files, name, more, message, tmp_path):
    done = fork(run_script, (script(name), *of_checkpoint(files, *more)), tmp_path / "log")
    errors = [line for line in done.log.splitlines() if line.startswith("error: ")]
    assert done.code == 2 and len(errors) == 1 and "Traceback" not in done.log, done.log[-3000:]
    assert message in errors[0]
