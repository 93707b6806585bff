"""``ofa upstream``: what it writes, and how the programs read upstream's command lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ofa.cli import upstream
from ofa.cli.main import main
from ofa.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many there are; none at first."""
    found = [0]
    monkeypatch.setattr(upstream, "count_gpus", lambda quick: found[0])
    return found


@pytest.fixture
def started(monkeypatch):
    """The commands that a process would become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(upstream, "become", lambda command, environment: commands.append(command))
    return commands


@pytest.fixture
def called(monkeypatch):
    """The command lines of ofa that a program would run."""
    commands: list[list[str]] = []
    monkeypatch.setattr(upstream, "run_command", lambda words: commands.append(words) or 0)
    return commands


def test_every_program_of_the_table_is_written_and_calls_itself(tmp_path, capsys):
    assert main(["upstream", "--out", str(tmp_path)]) == 0
    for path in upstream.PROGRAMS:
        assert f"program('{path}', __file__)" in (tmp_path / path).read_text()
    assert f"ofa vocab fetch gpt2 --out {tmp_path / 'utils/BPE'}" in capsys.readouterr().out


def test_files_of_others_are_replaced_only_when_that_is_asked_for(tmp_path, capsys):
    (tmp_path / "train.py").write_text("mine")
    assert main(["upstream", "--out", str(tmp_path)]) == 2
    assert "found train.py; choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
    for more in (["--force"], []):  # and what it wrote itself is no file of others
        assert main(["upstream", "--out", str(tmp_path), *more]) == 0
    assert "program('train.py'" in (tmp_path / "train.py").read_text()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, capsys):
    (tmp_path / "OFA").touch()
    assert main(["upstream", "--out", str(tmp_path / "OFA")]) == 2
    assert f"OFA: expected a folder to write, found the file {tmp_path}" in capsys.readouterr().err


def test_a_program_finds_the_package_and_not_the_folders_beside_it(tmp_path):
    assert main(["upstream", "--out", str(tmp_path)]) == 0
    program = tmp_path / "run_scripts/gigaword/eval_rouge.py"
    for name in ("data", "utils", "numpy"):
        (program.parent / name).mkdir()
        (program.parent / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run([sys.executable, program, "none.json"], capture_output=True, text=True)
    assert done.returncode == 2 and "error: none.json: expected a JSON list" in done.stderr


def test_what_shells_and_launchers_leave_is_dropped(gpus):
    words = ["a.tsv", "--local-rank=0", "--local_rank=1", "--max-epoch={10,}", " ", "--bitfit"]
    assert upstream.settled(words, gpus=0) == ["a.tsv", "--max-epoch=10", "--bitfit"]


def test_json_values_are_no_lists_of_the_shell(gpus):
    words = ['--eval-args={"beam":5,"max_len_b":16}', "--model-overrides={'a':1,'b':2}"]
    assert upstream.settled(words, gpus=0) == words


def test_a_list_of_several_values_is_an_error_that_names_bash(gpus):
    with pytest.raises(UserError, match=r"--lr=\{0.03,5e-5,1e-4\}.*run the script by bash"):
        upstream.settled(["--lr={0.03,5e-5,1e-4}"], gpus=0)


@pytest.mark.parametrize("found, expected", [(0, ["--seed=7"]), (1, ["--fp16", "--seed=7"])])
def test_half_precision_is_for_gpus(found, expected):
    assert upstream.settled(["--fp16", "--seed=7"], found) == expected


def test_gpus_are_counted_once(monkeypatch, started):
    counted: list[bool] = []
    monkeypatch.setattr(upstream, "count_gpus", lambda quick: counted.append(quick) or 0)
    upstream.train(Path(), ["a.tsv", "--fp16"])
    assert counted == [True] and started[0][1:] == ["-m", "fairseq_cli.train", "a.tsv", "--cpu"]


def test_training_is_that_of_fairseq(gpus, started):
    upstream.train(Path(), ["a.tsv", "--local-rank=0", "--task=caption"])
    assert started[0][1:] == ["-m", "fairseq_cli.train", "a.tsv", "--task=caption", "--cpu"]


def test_one_process_is_no_group(gpus, started, monkeypatch):
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    upstream.train(Path(), [])
    assert not {"WORLD_SIZE", "RANK"} & {*upstream.os.environ}


def test_more_processes_than_gpus_are_an_error_with_the_update_freq(gpus, started, monkeypatch):
    gpus[0] = 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(UserError, match="found 2; start 2, and multiply --update-freq by 4"):
        upstream.train(Path(), [])
    assert not started


def write(path: Path, content) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_captions_are_scored_against_a_file_of_coco(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ofa.metrics.caption_scores.shutil.which", lambda name: None)  # no Java
    texts = ["a dog runs on the grass", "two cats sleep on a red sofa"]
    found = [{"image_id": str(n), "caption": text} for n, text in enumerate(texts)]
    labels = [{"image_id": n, "caption": text} for n, text in enumerate(texts)]
    files = [write(tmp_path / "r.json", found), write(tmp_path / "l.json", {"annotations": labels})]
    assert upstream.coco_eval(Path(), files) == 0
    assert "'CIDEr': 10.0, 'BLEU-1': 0.99" in capsys.readouterr().out
    assert upstream.coco_eval(Path(), [*files, str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["CIDEr"] == pytest.approx(10)


def test_captions_of_other_images_are_an_error(tmp_path):
    results = write(tmp_path / "r.json", [{"image_id": "7", "caption": "a dog"}])
    labels = write(tmp_path / "l.json", {"annotations": []})
    with pytest.raises(UserError, match="found 7; do the two files belong together"):
        upstream.coco_eval(Path(), [results, labels])


def test_summaries_are_scored_by_the_mean_of_their_rouge(tmp_path, capsys):
    rows = [{"hyp": "us orders up", "ref": "us orders up"}, {"hyp": "a", "ref": "b"}]
    assert upstream.eval_rouge(Path(), [write(tmp_path / "r.json", rows)]) == 0
    assert capsys.readouterr().out.splitlines() == ["Rouge1:  0.5", "Rouge2:  0.5", "RougeL:  0.5"]


def test_image_scores_take_the_weights_of_the_checkout(called):
    words = ["--gpu", "4", "--batch-size", "128", "--path1", "top1", "--path2", "gt_stat.npz"]
    upstream.image_scores(Path("OFA"), words)
    (command,) = called
    assert command[:4] == ["image-scores", "top1", "--real-images", "gt_stat.npz"]
    assert command[-1] == f"OFA/{upstream.INCEPTION}"


@pytest.mark.parametrize(
    "columns, expected",
    [
        ("0,1", {"--for": "pretraining", "--image-column": "1"}),
        (
            "0,1,2,3",
            {
                "--for": "generation",
                "--image-column": "2",
                "--text-column": "3",
                "--code-image-size": "256",
            },
        ),
    ],
)
def test_image_codes_are_made_for_the_task_that_the_columns_tell(called, columns, expected):
    words = f"--file a.txt --outputs b.txt --selected_cols {columns} --code_image_size 256"
    words += " --vq_model vqgan --vqgan_model_path v/last.ckpt --vqgan_config_path v/model.yaml"
    upstream.generate_code(Path(), words.split())
    (command,) = called
    given = dict(zip(command[2::2], command[3::2]))
    common = {"--images": "a.txt", "--out": "b.txt", "--tokenizer": "v", "--id-column": "0"}
    assert command[:2] == ["tokenizer", "encode"] and given == common | expected


def test_other_numbers_of_columns_are_refused(called, capsys):
    words = "--file a --outputs b --selected_cols 0,1,2 --vqgan_config_path v/model.yaml"
    with pytest.raises(SystemExit):
        upstream.generate_code(Path(), words.split())
    assert "expected two or four columns, found '0,1,2'" in capsys.readouterr().err
