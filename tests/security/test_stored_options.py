"""A checkpoint or a mixture file chooses no code and no place to write to; this call does."""

import json
import logging
import sys
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from drawing_files import Colors, drawing_flags, make_drawing_vocabulary, write_drawings
from fairseq_setup import configuration

from ofa.errors import UserError
from ofa.io.safe_load import load_checkpoint
from ofa.io.stored_options import drop_from_checkpoint, is_readable_path, warn_once
from ofa.task.mixture_file import read_members

TRAP = """from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
class Scorer:
    def score(self, images, texts): return [0.0] * len(texts)
"""


@pytest.fixture
def caution(caplog):
    warn_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint whose options name a class of a module that can be imported, and files."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "stored_trap.py").write_text(TRAP)
    vocabulary = make_drawing_vocabulary(folder / "vocabulary")
    rows = write_drawings(folder / "train.tsv", range(4))
    cfg = configuration(drawing_flags(f"{rows},{rows}", vocabulary))
    from fairseq import tasks
    from omegaconf import OmegaConf

    model = tasks.setup_task(cfg.task).build_model(cfg.model)
    stored = {
        name: OmegaConf.to_container(group) if OmegaConf.is_config(group) else group
        for name, group in cfg.items()
    }
    stored["task"] |= {
        "image_text_scorer": "stored_trap:Scorer",
        "gen_images_path": str(folder / "elsewhere"),
    }
    torch.save(
        {"args": None, "cfg": stored, "model": model.state_dict(), "task_state": {}},
        folder / "checkpoint.pt",
    )
    return SimpleNamespace(
        folder=folder,
        checkpoint=folder / "checkpoint.pt",
        vocabulary=vocabulary,
        ran=folder / "stored_trap.ran",
    )


@pytest.fixture
def importable(made, monkeypatch):
    monkeypatch.syspath_prepend(str(made.folder))
    yield
    sys.modules.pop("stored_trap", None)
    made.ran.unlink(missing_ok=True)


def test_a_class_that_only_the_checkpoint_names_is_not_imported(made, importable, caution):
    from ofa import OFA

    model = OFA.load(made.checkpoint, device="cpu")
    assert len(model.draw("a red square", samples=2, tokenizer=Colors())) == 2
    assert not made.ran.exists() and "stored_trap" not in sys.modules
    assert (
        sum("--image-text-scorer in this call" in record.getMessage() for record in caution.records)
        == 1
    )


def test_a_class_that_this_call_names_is_called(made, importable):
    from ofa import OFA

    model = OFA.load(made.checkpoint, device="cpu", image_text_scorer="stored_trap:Scorer")
    assert len(model.draw("a red square", samples=2, tokenizer=Colors())) == 2
    assert made.ran.exists()


def test_evaluation_neither_writes_nor_reads_where_the_checkpoint_says(made, importable):
    from ofa.inference.evaluate import EvaluationOptions, image_writer_of, load, open_rows

    options = EvaluationOptions(checkpoint=str(made.checkpoint), device="cpu")
    task = load(options)[1]
    assert image_writer_of(task, options) is None and not (made.folder / "elsewhere").exists()
    with pytest.raises(UserError, match="expected a TSV file or a folder"):
        open_rows(task, options)


def test_converting_a_checkpoint_does_not_pass_names_of_code_on(made):
    from ofa.checkpoints.read import read_source

    source = read_source(made.checkpoint)
    assert source.task["image_text_scorer"] is None and source.task["bpe_dir"] == str(
        made.vocabulary
    )


@pytest.mark.parametrize("name", ["audio_pretraining", "translation"])
def test_tasks_and_networks_of_other_programs_are_not_set_up(made, tmp_path, name):
    from ofa.inference.fairseq_loading import LoadedCheckpoint

    content = load_checkpoint(made.checkpoint)
    content["cfg"]["task"] = {"_name": name, "data": str(tmp_path)}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"unknown task '{name}'"):
        LoadedCheckpoint([str(tmp_path / "a.pt")], {}).task(name)
    content = load_checkpoint(made.checkpoint)
    content["cfg"]["model"] |= {"_name": "transformer", "arch": "transformer"}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(
        UserError, match="a model of this project, found the architecture 'transformer'"
    ):
        LoadedCheckpoint([str(tmp_path / "a.pt")], {}).task(name)


@pytest.mark.parametrize("where", ["cfg", "args", "joint"])
def test_code_is_dropped_wherever_options_are_stored(where, caution):
    options = {"image_text_scorer": "posix:system", "patch_image_size": 384}
    content = {
        "cfg": {"cfg": {"task": options}},
        "args": {"args": Namespace(**options)},
        "joint": {"task_state": {"members": {"image_gen": options}}},
    }[where]
    drop_from_checkpoint(content, f"{where}.pt")
    found = vars(content["args"]) if where == "args" else options
    assert found == {"image_text_scorer": None, "patch_image_size": 384}
    assert f"{where}.pt: stores image_text_scorer 'posix:system'" in caution.text


def test_a_mixture_file_names_no_code(tmp_path, caution):
    from ofa.tasks.image_gen import SPEC

    (tmp_path / "train.tsv").write_text("")
    (tmp_path / "joint.json").write_text(
        json.dumps(
            {"image_gen": {"data": "train.tsv,train.tsv", "image_text_scorer": "posix:system"}}
        )
    )
    (member,) = read_members(str(tmp_path / "joint.json"), {"image_gen": SPEC})
    assert "image_text_scorer" not in member.options and "--image-text-scorer" in caution.text


@pytest.mark.parametrize(
    "option, value",
    [
        ("gen_images_path", "elsewhere"),
        ("clip_model_path", "/dev/zero"),
        ("image_tokenizer", "https://example.org/x"),
        ("vqgan_model_path", "${oc.env:HOME}"),
    ],
)
def test_a_mixture_file_names_no_place_to_write_to_and_no_device(tmp_path, option, value, caution):
    from ofa.tasks.image_gen import SPEC

    (tmp_path / "joint.json").write_text(
        json.dumps({"image_gen": {"data": "a.tsv,b.tsv", option: value}})
    )
    (member,) = read_members(str(tmp_path / "joint.json"), {"image_gen": SPEC})
    assert option not in member.options and f"stores {option}" in caution.text


@pytest.mark.parametrize(
    "group, options",
    [
        ("model", {"encoder_ffn_embed_dim": 10**7}),
        ("model", {"encoder_layers": 10**5}),
        ("model", {"decoder_layers": -1}),
        ("model", {"decoder_layers": float("inf")}),
        ("model", {"encoder_attention_heads": 0}),
        ("model", {"max_source_positions": 10**9}),
        ("model", {"image_bucket_size": 10**5}),
        ("model", {"lora_rank": 10**8}),
        ("model", {"adapter": True, "adapter_dim": 10**9}),
        ("model", {"encoder_drop_path_rate": "x"}),
        ("task", {"code_dict_size": 10**9}),
        ("task", {"num_bins": "1000"}),
        ("task", {"patch_image_size": 10**6}),
    ],
)
def test_sizes_far_beyond_the_tensors_are_refused_before_memory_is_taken(
    made, tmp_path, group, options
):
    from ofa import OFA
    from ofa.checkpoints.read import read_source

    content = load_checkpoint(made.checkpoint)
    content["cfg"][group].update(options)
    torch.save(content, tmp_path / "a.pt")
    words = list(options)[-1].replace("_", ".")
    for read in (lambda path: OFA.load(path, device="cpu"), read_source):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "a.pt")


def test_a_tensor_that_repeats_its_numbers_tells_no_size(made, tmp_path):
    from ofa import OFA

    content = load_checkpoint(made.checkpoint)
    content["model"]["encoder.layers.0.fc1.bias"] = torch.zeros(1).expand(1 << 20)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="fc1.bias, which repeats the numbers of a smaller one"):
        OFA.load(tmp_path / "a.pt", device="cpu")


def test_a_disk_in_memory_is_no_device(monkeypatch):
    monkeypatch.setattr("os.path.realpath", lambda path: path)
    assert is_readable_path("/dev/shm/not/there.tsv") and not is_readable_path("/dev/shmem")


@pytest.mark.parametrize(
    "value",
    [
        "/dev/zero",
        "/proc/self/environ",
        "https://example.org/x",
        "//host/share",
        "\\\\host\\share",
        "a\0b",
        "s3://x",
    ],
)
def test_devices_and_networks_are_no_paths_to_read(value, caution):
    content = {"cfg": {"task": {"clip_model_path": value, "bpe_dir": "vocabulary"}}}
    drop_from_checkpoint(content, "a.pt")
    assert content["cfg"]["task"] == {
        "clip_model_path": None,
        "bpe_dir": "vocabulary",
    } and not is_readable_path(value)


def test_a_link_to_a_device_is_no_path_to_read(tmp_path):
    (tmp_path / "innocent.pt").symlink_to("/dev/zero")
    assert not is_readable_path(str(tmp_path / "innocent.pt"))


def test_options_that_would_read_the_environment_are_dropped(monkeypatch):
    """omegaconf would resolve ${oc.env:NAME}, and a message could show it."""
    content = {
        "cfg": {
            "task": {
                "bpe_dir": "${oc.env:HOME}",
                "tpu": "${common.tpu}",
                "names": ["${oc.env:HOME}"],
            }
        }
    }
    drop_from_checkpoint(content, "a.pt")
    assert content["cfg"]["task"] == {"bpe_dir": None, "tpu": "${common.tpu}", "names": None}


def test_options_that_networks_of_fairseq_evaluate_are_dropped(made, tmp_path, caution):
    """Its attention gives a text of the model's options to eval()."""
    from fairseq import checkpoint_utils

    content = load_checkpoint(made.checkpoint)
    content["cfg"]["model"] |= {
        "xformers_att_config": f"open({str(tmp_path / 'ran')!r}, 'w')",
        "adaptive_softmax_cutoff": f"[open({str(tmp_path / 'ran')!r}, 'w')]",
    }
    torch.save(content, tmp_path / "a.pt")
    model = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "a.pt"))["cfg"]["model"]
    assert (
        model.xformers_att_config is None
        and model.adaptive_softmax_cutoff is None
        and "xformers_att_config" in caution.text
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"cfg": {"task": {1.5: {}}}},
        {"cfg": {"task": {"_name": "${"}}},
        {"cfg": {"task": {"a": torch.zeros(1)}}, "args": None},
        {"cfg": None, "args": Namespace(task="caption", arch="(" * 500)},
        {"cfg": None, "args": Namespace(lr="[" * 5000)},
    ],
)
def test_options_of_another_kind_are_one_message(made, tmp_path, changed):
    from ofa.inference.fairseq_loading import LoadedCheckpoint

    torch.save({**load_checkpoint(made.checkpoint), **changed}, tmp_path / "a.pt")
    with pytest.raises(UserError) as error:
        LoadedCheckpoint([str(tmp_path / "a.pt")], {})
    assert "\n" not in str(error.value)
