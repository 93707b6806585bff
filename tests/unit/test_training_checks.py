"""What a training lacks is said before torch is imported, with the command that makes it."""

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from caption_files import caption, write_tsv

from ofa.checkpoints.header import read_header
from ofa.cli.main import main
from ofa.data.shard_writer import pack
from ofa.errors import UserError
from ofa.tasks import declared_specs
from ofa.trainer import checks
from ofa.trainer.checks import count_rows, look_at
from ofa.trainer.flags import check_flags

FLAGS = ["--task=caption", "--arch=ofa_nano", "--selected-cols=0,4,2", "--num-bins=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training rows, validation rows and a vocabulary of 7 words: 4 + 7 + 1 + 8192 + 8 entries."""
    path = tmp_path_factory.mktemp("files")
    write_tsv(path / "train.tsv", [caption(number) for number in range(6)])
    write_tsv(path / "val.tsv", [caption(number) for number in range(3)])
    (path / "bpe").mkdir()
    (path / "bpe/dict.txt").write_text("".join(f"{number} 1\n" for number in range(7)))
    (path / "bpe/vocab.txt").write_text("a\n")
    return path


def facts(folder, *flags, data="train.tsv,val.tsv", start=None):
    files = ",".join(str(folder / name) for name in data.split(","))
    return look_at(files, start and str(start), [*FLAGS, f"--bpe-dir={folder}/bpe", *flags])


def refused(folder, *flags, **given) -> str:
    with pytest.raises(UserError) as error:
        facts(folder, *flags, **given)
    return str(error.value).replace(f"{folder}/", "")


def test_rows_and_entries_are_counted(folder):
    found = facts(folder)
    assert (found.rows, found.entries) == (6, 4 + 7 + 1 + 8192 + 8)
    assert found.exact and found.spec.name == "caption"


def test_several_training_files_count_as_their_mean(folder):
    assert facts(folder, data="train.tsv,val.tsv,val.tsv").rows == 4  # (6 + 3) / 2, rounded


@pytest.mark.parametrize(
    "data, flags, message",
    [
        ("none.tsv,val.tsv", (), "none.tsv: expected a TSV file with rows to learn from"),
        ("train.tsv,none.tsv", (), "none.tsv: .* rows to validate with, .*--val-fraction 0.1"),
        ("train.tsv,bpe", (), "bpe: expected WebDataset shards"),
        ("train.tsv,val.tsv", ("--selected-cols=0,7,2",), "train.tsv:1: .* asks for column 7"),
        ("train.tsv,val.tsv", ("--selected-cols=0,2",), "expects 3 columns .*, found 2"),
        (
            "train.tsv,val.tsv",
            ("--selected-cols=0,1,2",),
            "train.tsv:1: .* expected an image in base64 in column 1, found 'img0'",
        ),
        (
            "train.tsv,val.tsv",
            ("--num-bins=many",),
            "--num-bins: expected an integer, found 'many'",
        ),
        ("train.tsv,val.tsv", ("--bpe-dir=none",), "none: expected a folder with BPE files"),
        (
            "train.tsv,val.tsv",
            ("--scst-cider-cached-tokens=df.p",),
            "ofa cider-df build --tsv train.tsv --out df.p",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(folder, data, flags, message):
    assert re.search(message, refused(folder, *flags, data=data))


JOINT = ["--task=joint", "--arch=ofa_nano", "--num-bins=8"]


def joint(folder, **caption_entry):
    """The facts of a mixture of one task."""
    (folder / "joint.json").write_text(json.dumps({"caption": caption_entry}))
    return look_at(str(folder / "joint.json"), None, [*JOINT, f"--bpe-dir={folder}/bpe"])


def test_the_files_of_a_mixture_are_looked_at(folder):
    found = joint(folder, data="train.tsv,val.tsv", selected_cols="0,4,2", weight=1.5)
    assert (found.spec, found.rows, found.entries) == (None, 9, 4 + 7 + 1 + 8192 + 8)
    with pytest.raises(UserError, match="none.tsv: expected a TSV file with rows to learn from"):
        joint(folder, data=f"{folder}/none.tsv,{folder}/val.tsv")
    with pytest.raises(UserError, match="train.tsv:1: .* asks for column 7"):
        joint(folder, data="train.tsv,val.tsv", selected_cols="0,7,2")
    with pytest.raises(UserError, match="unknown option 'dat'"):
        joint(folder, dat="train.tsv")


def test_a_mixture_is_a_file_or_a_line_of_the_task_joint(folder):
    with pytest.raises(UserError, match="--task joint: expected .* or --mixture, found neither"):
        look_at("", None, JOINT)
    flags = ["--task=caption", "--mixture=caption=none.tsv*2"]
    with pytest.raises(UserError, match=r"--mixture: .* \(ofa train joint\), found --task caption"):
        look_at("", None, flags)


def test_a_mixture_in_one_line_is_looked_at(folder):
    flags = [*JOINT, f"--bpe-dir={folder}/bpe", "--mixture=caption=none.tsv*2"]
    with pytest.raises(UserError, match="none.tsv: expected a TSV file"):
        look_at("", None, flags)


@pytest.fixture(scope="module")
def pairs(folder):
    """Rows of a pretraining: id, image, four columns of texts and objects, data set and type."""
    image = checks.first_row(str(folder / "train.tsv"))[4]
    row = ["p0", image, "a cube", "", "", "", "", "caption"]
    (folder / "pairs.tsv").write_text("\t".join(row) + "\n")
    (folder / "texts.tsv").write_text("t0\n")
    return folder / "pairs.tsv"


def pretraining(folder, data, *flags):
    all_flags = ["--task=unify_task", "--arch=ofa_nano", "--num-bins=8", "--disable-validation"]
    weights = "--task-weights=image_text_matching=0"
    return look_at(str(data), None, [*all_flags, f"--bpe-dir={folder}/bpe", weights, *flags])


@pytest.mark.parametrize(
    "files, flags, message",
    [
        ("pairs.tsv,none.tsv", (), "none.tsv: expected a TSV file with rows to learn from"),
        ("pairs.tsv", ("--text-data={}/none.tsv",), "none.tsv: expected a TSV file"),
        ("pairs.tsv", ("--text-data={}/texts.tsv",), "column 1, found 1 column"),
        ("texts.tsv", (), "texts.tsv:1: .* asks for column"),
        ("pairs.tsv", ("--task-weights=qa=2",), "--neg-sample-dir: expects the folder of"),
        ("pairs.tsv", ("--task-weights=qu=2",), "unknown task 'qu'"),
    ],
)
def test_the_files_of_a_pretraining_are_looked_at(folder, pairs, files, flags, message):
    data = ",".join(f"{folder}/{name}" for name in files.split(","))
    with pytest.raises(UserError, match=message):
        pretraining(folder, data, *(flag.format(folder) for flag in flags))


def test_files_of_a_task_that_is_not_pretrained_are_not_looked_at(folder, pairs):
    left_out = "--task-weights=image_text_matching=0,text_infilling=0"
    found = pretraining(folder, pairs, left_out, f"--text-data={folder}/none.tsv")
    assert found.entries == 4 + 7 + 1 + 8192 + 8


def test_the_rows_of_a_pretraining_are_its_pairs(folder, pairs):
    (folder / "texts_of_two.tsv").write_text("t0\ta text\nt1\tanother\n")
    found = pretraining(folder, pairs, f"--text-data={folder}/texts_of_two.tsv")
    assert (found.rows, found.spec) == (1, None)


def test_a_training_without_validation_needs_no_file_for_it(folder):
    assert facts(folder, "--disable-validation", data="train.tsv,none.tsv").rows == 6


def test_cider_optimization_without_stage_1_says_to_run_it(folder):
    message = refused(folder, "--criterion=scst_reward_criterion", start="none.pt")
    assert "Run caption-stage1 first" in message and "--from none" not in message
    assert "--from none" in refused(folder, start="none.pt")


def test_weights_and_biases_are_refused_where_the_package_is_missing(folder, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert "pip install 'ofa-fairseq[wandb]'" in refused(folder, "--wandb-project=photos")
    monkeypatch.setattr(checks, "find_spec", lambda name: name)
    assert facts(folder, "--wandb-project=photos").rows == 6


def test_what_is_not_one_of_our_tasks_is_not_looked_at():
    assert look_at("none.tsv", None, ["--task=translation"]).rows is None


# --- checkpoints


def save(path, entries=20, width=128, **options):
    weights = {"encoder.embed_tokens.weight": torch.zeros(entries, width)}
    task = {"_name": "caption", "num_bins": 8, **options}
    torch.save({"model": weights, "cfg": {"task": task, "model": {"_name": "ofa_nano"}}}, path)
    return path


def test_a_checkpoint_is_described_without_reading_its_tensors(tmp_path):
    header = read_header(save(tmp_path / "a.pt"))
    assert header.table == (20, 128)
    assert (header.options["task"], header.options["arch"]) == ("caption", "ofa_nano")
    content = {"a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
    content |= {"__metadata__": {"ofa": '{"cfg": {"task": {"num_bins": 9}}}'}}
    text = json.dumps(content).encode()
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(48))
    header = read_header(tmp_path / "b.safetensors")
    assert header.shapes == {"a": (3, 4)} and header.options == {"num_bins": 9}


def test_a_class_that_a_checkpoint_names_is_never_looked_up(tmp_path):
    class Command:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"model": {}, "extra": Command()}, tmp_path / "a.pt")
    assert read_header(tmp_path / "a.pt").shapes == {} and not (tmp_path / "made").exists()


class Names(dict):
    pass


class Steps(list):
    pass


def test_containers_of_unknown_classes_are_no_damage_to_a_description(tmp_path):
    weights = {"decoder.embed_tokens.weight": torch.zeros(5, 4)}
    extra = {"names": Names(a=1), "steps": Steps([1, 2])}
    torch.save({"model": weights, "extra_state": extra}, tmp_path / "a.pt")
    assert read_header(tmp_path / "a.pt").table == (5, 4)


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "an empty file"),
        (b"GIF89a....", "a file of another kind"),
        (b"PK\x03\x04 cut", "a damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content, found):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=f"a.pt: expected a checkpoint, found {found}"):
        read_header(tmp_path / "a.pt")


def test_a_checkpoint_of_another_size_or_vocabulary_is_refused(folder, tmp_path):
    fits = save(tmp_path / "a.pt", entries=8212)
    assert facts(folder, start=fits).start.table == (8212, 128)
    message = refused(folder, start=save(tmp_path / "b.pt", entries=8213))
    assert "has 8213 vocabulary entries, the folder bpe makes 8212" in message
    message = refused(folder, start=save(tmp_path / "c.pt", width=256))
    assert "expected a model of the size ofa_nano (width 128), found ofa_tiny" in message
    message = refused(folder, start=save(tmp_path / "d.pt", token_bucket_size=32))
    assert message.endswith("found 32; give --token-bucket-size=32")


def test_auto_takes_the_shapes_of_the_checkpoint(folder, tmp_path):
    start = save(tmp_path / "a.pt", token_bucket_size=32, num_bins=9)
    files, flags = f"{folder}/train.tsv,{folder}/val.tsv", [f"--bpe-dir={folder}/bpe"]
    found = look_at(files, str(start), ["--task=caption", "--arch=ofa_nano", *flags], carries=True)
    assert found.carried == ("--token-bucket-size=32", "--num-bins=9")
    assert found.entries == 4 + 7 + 1 + 8192 + 9


# --- rows


def test_rows_of_a_large_file_are_estimated_until_it_has_an_index(tmp_path, monkeypatch):
    (tmp_path / "a.tsv").write_text("one\trow\n" * 1000)
    monkeypatch.setattr(checks, "SOON_INDEXED", 100)
    monkeypatch.setattr(checks, "SAMPLE", 800)
    assert count_rows(str(tmp_path / "a.tsv")) == (1000, False)
    monkeypatch.setattr(checks, "SOON_INDEXED", 1 << 20)
    assert count_rows(str(tmp_path / "a.tsv")) == (1000, True)  # makes the index
    monkeypatch.setattr(checks, "SOON_INDEXED", 100)
    assert count_rows(str(tmp_path / "a.tsv")) == (1000, True)


def test_rows_of_shards_are_those_of_their_manifest(tmp_path, folder):
    pack(str(folder / "train.tsv"), str(tmp_path / "shards"), "rows", most_rows=4)
    assert count_rows(str(tmp_path / "shards")) == (6, True)


# --- flags


@pytest.mark.parametrize("flag, meant", [("--leraning-rate=1", "--lr"), ("--sise", "--size")])
def test_an_unknown_flag_is_answered_by_the_nearest(flag, meant):
    with pytest.raises(UserError, match=f"found {flag.split('=')[0]}; did you mean {meant}[?]"):
        check_flags(["--lr=1", flag], ["--size"], "caption")


def test_the_beginning_of_a_flag_is_spelled_out():
    flags = ["--warmup-upd", "5", "--max-ep=5", "--lr=1", "value=1"]
    expected = ["--warmup-updates", "5", "--max-epoch=5", "--lr=1", "value=1"]
    assert check_flags(flags, [], "caption") == expected


def test_what_may_be_several_flags_is_left_to_the_parser():
    assert check_flags(["--max=5", "--warmup=2"], [], "caption") == ["--max=5", "--warmup=2"]


def test_flags_of_every_task_are_known():
    for spec in declared_specs():
        names = [item.name.replace("_", "-") for item in fields(spec.options)]
        check_flags([f"--{name}" for name in names], [], None)


def test_errors_come_before_torch(folder):
    code = (
        "import sys\nfrom ofa.cli.main import main\n"
        f"files = '{folder}/train.tsv,{folder}/val.tsv'\n"
        f"flags = ['--task=caption', '--arch=ofa_nano', '--bpe-dir={folder}/bpe']\n"
        "for more in (['--lernrate=1'], ['--selected-cols=0,9,2'], ['--bpe-dir=none'],\n"
        "             ['--from=none.pt'], ['--from=' + files.split(',')[0]],\n"
        "             ['--task=joint'], ['--task=unify_task', '--text-data=none.tsv']):\n"
        "    assert main(['train', files, *flags, *more]) == 2, more\n"
        "heavy = {'torch', 'fairseq', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == 7


def test_the_command_names_itself_for_an_unknown_flag(capsys):
    assert main(["train", "caption", "--epochs=3"]) == 2
    error = capsys.readouterr().err
    assert "ofa train: expected a flag" in error and "did you mean --max-epoch?" in error


def test_ways_to_share_the_work_that_are_not_offered_are_refused_before_torch():
    with pytest.raises(UserError, match="--ddp-backend slowmo: needs fairscale"):
        look_at("", None, ["--ddp-backend=slowmo"])
