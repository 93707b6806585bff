"""Files that we write open by torch's reader that runs no code, and hold the same values as
before."""

import argparse
import collections
import copy
import dataclasses
import enum
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tokenizer import save_tokenizer
from test_checkpoint_command import run, save
from test_convert import OUT, convert
from test_convert import save as save_convertible

from ofa.checkpoints.adapt import store_once
from ofa.checkpoints.architecture import EMBEDDINGS
from ofa.checkpoints.options import comparable, options_of
from ofa.checkpoints.read import ENTRY, named_base
from ofa.io import tensor_files


class Choice(str, enum.Enum):  # noqa: UP042 (as fairseq's choices)
    FAST = "fast"


@dataclasses.dataclass
class Options:
    rate: float = 0.5


SIDES = ("encoder", "decoder")
Pair = collections.namedtuple("Pair", "left right")


@pytest.fixture
def written(tmp_path):
    """Function: what torch's restricted reader makes of a file with this content."""

    def write_and_read(content):
        tensor_files.save(content, tmp_path / "a.pt")
        return torch.load(tmp_path / "a.pt", weights_only=True)

    return write_and_read


@pytest.mark.parametrize(
    "value, expected",
    [
        (argparse.Namespace(a=1, b=argparse.Namespace(c="d")), {"a": 1, "b": {"c": "d"}}),
        (Choice.FAST, "fast"),
        (Path("/a/b"), "/a/b"),
        (Options(), {"rate": 0.5}),
        (np.float64(0.1), 0.1),
        (np.float32(2.5), 2.5),
        (np.bool_(True), True),
        (np.int64(2**62), 2**62),
        (np.str_("text"), "text"),
        (2**80, 2**80),
        (Pair(1, 2), (1, 2)),
        ((1, [2, (3,)]), (1, [2, (3,)])),
        (collections.defaultdict(int, a=np.int8(3)), {"a": 3}),
        (frozenset([4]), [4]),
        (collections.deque([5]), [5]),
        (np.array(["x", None], dtype=object), ["x", None]),
        ({np.int64(7): None}, {7: None}),
        (b"bytes", b"bytes"),
    ],
)
def test_every_kind_of_value_becomes_one_of_python(written, value, expected):
    found = written({"value": value})["value"]
    assert found == expected and type(found) is type(expected)


def test_arrays_become_tensors_of_the_same_type_and_values(written):
    numbers = np.random.RandomState(3).get_state()[1]
    found = written({"numbers": numbers, "halves": np.array([0.5, math.nan], dtype=np.float16)})
    assert found["numbers"].dtype == torch.uint32 and found["numbers"].tolist() == numbers.tolist()
    assert found["halves"].dtype == torch.float16 and found["halves"][1].isnan()


def test_a_state_dict_keeps_the_versions_of_its_modules_and_shared_tensors_stay_shared(written):
    state = torch.nn.BatchNorm1d(3).state_dict()
    state["again"] = state["weight"]
    found = written({"model": state})["model"]
    assert found._metadata == state._metadata
    assert found["again"].data_ptr() == found["weight"].data_ptr()


def test_a_checkpoint_of_a_training_holds_equal_tables_once_and_no_constant_ones(written):
    """On a GPU every name has a tensor of its own, and averages have the constant tables again."""

    def copies(value: float, dtype=torch.float32) -> dict:
        state = {name: torch.full((100, 8), value, dtype=dtype) for name in EMBEDDINGS}
        for name in ("token_rp_bucket", "image_rp_bucket", "image_position_idx"):
            state |= {f"{side}.{name}": torch.ones(64, 64) for side in SIDES}
        return {**state, "encoder.version": torch.tensor([3.0])}

    extra = {"ema": copies(2.0), "ema_fp32_params": copies(3.0)}
    state = {"model": copies(1.0, torch.float16), "extra_state": extra}
    expected = copy.deepcopy(state)
    store_once(state)
    found = written(state)
    parts = [found["model"], found["extra_state"]["ema"], found["extra_state"]["ema_fp32_params"]]
    originals = [expected["model"], *expected["extra_state"].values()]
    for part, original in zip(parts, originals):
        assert part.keys() == {*EMBEDDINGS, "encoder.version"}
        assert all(tensor.equal(original[name]) for name, tensor in part.items())
    places = [{part[name].data_ptr() for name in EMBEDDINGS} for part in parts]
    assert [len(found) for found in places] == [1, 1, 1]


def small(path: Path) -> Path:
    """A checkpoint with settings in every form that a training stores."""
    return save(path, extra_state={"best": np.float64(1.5), "ema": {}}, task_state={"at": path})


@pytest.mark.parametrize("action", ["strip", "average"])
def test_edited_checkpoints_open_without_running_code(tmp_path, action):
    path, out = small(tmp_path / "a.pt"), tmp_path / "out.pt"
    assert run(action, path, "--out", out) == 0
    found = torch.load(out, weights_only=True)
    assert (
        type(found["cfg"]["model"]) is dict
        and found["args"] is None
        and found["task_state"]["at"] == str(path)
    )


def test_merged_weights_and_tuned_weights_open_without_running_code(tmp_path):
    base = small(tmp_path / "base.pt")
    tuned = {"decoder.decoder_prompt_encoder.embedding.weight": torch.ones(2, 64)}
    light = save(
        tmp_path / "light.pt",
        model=tuned,
        **{ENTRY: {"base": named_base(base), "methods": ["prefix"]}},
    )
    assert run("strip", light, "--out", tmp_path / "strip.pt") == 0
    assert run("merge", light, "--out", tmp_path / "merged.pt") == 0
    assert torch.load(tmp_path / "strip.pt", weights_only=True)[ENTRY]["methods"] == ["prefix"]
    assert len(torch.load(tmp_path / "merged.pt", weights_only=True)["model"]) > 100


def test_stripping_an_old_file_keeps_all_its_options_in_groups(tmp_path):
    old = argparse.Namespace(
        arch="ofa_tiny", task="caption", patch_image_size=256, lr=[1e-5], beam=5
    )
    content = torch.load(small(tmp_path / "a.pt"), weights_only=False)
    torch.save({"args": old, "model": content["model"]}, tmp_path / "old.pt")
    assert run("strip", tmp_path / "old.pt", "--out", tmp_path / "new.pt") == 0
    found = torch.load(tmp_path / "new.pt", weights_only=True)
    assert found["args"] is None and found["cfg"]["generation"]["beam"] == 5
    assert (
        found["cfg"]["task"]["_name"] == "caption" and found["cfg"]["model"]["_name"] == "ofa_tiny"
    )
    before = comparable(options_of({"args": old}))
    assert {name: comparable(options_of(found))[name] for name in before} == before


@pytest.mark.parametrize("to", ["fairseq", "mmpretrain", "ofa"])
def test_converted_files_open_without_running_code(tmp_path, to):
    source = save_convertible(tmp_path / "source.pt", resnet_type="resnet50")
    out = tmp_path / (OUT[to] if to != "ofa" else "out.pt")
    assert convert(source, to, out) == 0
    assert torch.load(out, weights_only=True)


def test_a_folder_of_hugging_face_with_a_pickle_opens_without_running_code(tmp_path):
    source = save_convertible(tmp_path / "source.pt", resnet_type="resnet50")
    assert convert(source, "huggingface", tmp_path / "folder", "--bin") == 0
    assert torch.load(tmp_path / "folder/pytorch_model.bin", weights_only=True)


def test_a_tokenizer_opens_without_running_code(tmp_path):
    assert torch.load(save_tokenizer(tmp_path), weights_only=True)["config"]["num_codes"] == 32
