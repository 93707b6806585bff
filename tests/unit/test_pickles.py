"""The one reader of pickles: what Python and torch write comes back as it was, whatever the
protocol.
"""

import argparse
import io
import pickle
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch

from ofa.errors import UserError
from ofa.io.json_files import read_plain
from ofa.io.nesting import check_nesting
from ofa.io.pickles import Unpickler, load_plain
from ofa.io.safe_load import load_checkpoint, restricted_pickle
from ofa.io.tensor_files import to_builtins

SHARED = ["shared"]
VALUES = {
    "scalars": [
        None,
        True,
        False,
        0,
        -1,
        255,
        256,
        70_000,
        -(2**31),
        2**40,
        -(2**63),
        0.1,
        -1e300,
        float("inf"),
        1 + 2j,
    ],
    "texts": [
        "",
        "a",
        "ä\n\\'\"",
        "x" * 300,
        "\ud800",
        "中文" * 100,
        b"",
        b"a\xff\n",
        bytes(range(256)) * 2,
        bytearray(b"ab"),
    ],
    "containers": {
        "l": [1, [2, []]],
        "t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "s": {1, 2},
        "f": frozenset(
            {3, 4}
        ),  # of integers: the order in which a set of texts is printed varies with the hash seed
        "d": {(1, "a"): {}},
        3: 4,
    },
    "shared": [SHARED, SHARED, {"again": SHARED}],
    "collections": [OrderedDict([("a", 1), ("b", [2])]), deque([1, 2]), range(3), slice(1, None)],
    "many": [{f"word {i}": (i, str(i)) for i in range(2000)}, list(range(3000))],
}


def read(data: bytes, **options):
    return Unpickler(io.BytesIO(data), **options).load()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_plain_values_come_back_equal_from_every_protocol(name, protocol):
    if name == "collections" and protocol < 2:
        pytest.skip("protocols 0 and 1 write some of them as objects of classes")
    value = VALUES[name]
    found = read(pickle.dumps(value, protocol))
    assert found == value and repr(found) == repr(value)


def test_dicts_with_a_default_come_back_as_dicts():
    assert read(pickle.dumps([defaultdict(float, {("a",): 1.0}), Counter("aab")], 2)) == [
        {("a",): 1.0},
        {"a": 2, "b": 1},
    ]


def test_a_shared_list_stays_one_list():
    first, second, third = read(pickle.dumps(VALUES["shared"]))
    assert first is second is third["again"]


def test_texts_of_python_2_are_read(tmp_path):
    (tmp_path / "utf8.pkl").write_bytes(b"\x80\x02U\x02\xc3\xa4.")
    (tmp_path / "latin1.pkl").write_bytes(b"S'\\xe4'\n.")
    assert (
        read_plain(tmp_path / "utf8.pkl", "a text")
        == read_plain(tmp_path / "latin1.pkl", "a text")
        == "ä"
    )


def test_random_changes_of_a_pickle_are_a_value_or_one_of_the_errors_of_a_damaged_file(tmp_path):
    whole = pickle.dumps([VALUES["containers"], VALUES["scalars"], VALUES["texts"]], 2)
    rng, path = random.Random(0), tmp_path / "a.pkl"
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            read_plain(path, "a list")
        except UserError as error:
            assert str(error).count("\n") == 0


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new_format", [True, False])
def test_tensors_and_arrays_of_a_checkpoint_come_back_equal(tmp_path, protocol, new_format):
    base = torch.arange(12.0).view(3, 4)
    content = {
        "model": OrderedDict(
            a=base,
            b=base[1:, ::2],
            c=base.t(),
            d=torch.tensor(3, dtype=torch.int64),
            e=torch.zeros(0, 3),
            f=base.bfloat16(),
            g=base > 3,
            h=torch.nn.Parameter(base.clone()),
            i=torch.tensor([1]).expand(1000, 5),
        ),
        "cfg": {
            "model": argparse.Namespace(
                lr=np.float32(0.5),
                size=torch.Size([1, 2]),
                dtype=torch.float16,
                device=torch.device("cpu"),
            )
        },
        "extra_state": {
            "rng": np.arange(6, dtype=np.uint32).reshape(2, 3),
            "big": np.arange(3, dtype=">i4"),
            "columns": np.asfortranarray(np.eye(3)),
            "yes": np.bool_(True),
            "none": np.zeros((0, 2)),
        },
    }
    torch.save(
        content,
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=new_format,
    )
    found = load_checkpoint(tmp_path / "a.pt")
    for name, tensor in content["model"].items():
        assert (
            found["model"][name].equal(tensor)
            and found["model"][name].dtype == tensor.dtype
            and found["model"][name].stride() == tensor.stride()
        ), name
    assert (
        found["model"]["a"].untyped_storage().data_ptr()
        == found["model"]["b"].untyped_storage().data_ptr()
    )
    assert found["cfg"] == {"model": vars(content["cfg"]["model"])}
    assert found["extra_state"].pop("yes") is True
    for name, array in found["extra_state"].items():
        expected = content["extra_state"][name]
        np.testing.assert_array_equal(array.numpy(), expected)
        assert array.numpy().dtype == expected.dtype.newbyteorder("=")


def test_arrays_of_numpy_1_are_read(tmp_path, monkeypatch):
    """Their functions had another module."""
    old = pickle.dumps(np.arange(3.0), 2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    assert to_builtins(restricted_pickle("a.pt").load(io.BytesIO(old))).tolist() == [0, 1, 2]


def test_containers_that_no_file_needs_are_refused():
    value = inner = []
    for _ in range(200):
        inner.append([])
        inner = inner[0]
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        check_nesting(value)
    value = [1] * 100
    for _ in range(10):
        value = [value, value, value, value]
    with pytest.raises(ValueError, match="the same values again and again"):
        check_nesting(value)
    chain = [[]]
    for _ in range(200):
        chain.append([chain[-1]])  # every link is seen at the second level first
    with pytest.raises(ValueError, match="nested"):
        check_nesting(chain)


def test_values_that_repeat_themselves_inside_of_a_namespace_are_refused():
    value = [1]
    for _ in range(40):
        value = [value, value]
    with pytest.raises(ValueError, match="the same values again and again"):
        check_nesting({"args": argparse.Namespace(kept=value)})


def test_refusing_a_call_of_values_that_repeat_themselves_names_their_type_alone():
    doubled = b"X\1\0\0\0a" + b"2\x86" * 18  # ("a", "a"), then a pair of these, ...
    content = b"\x80\x02cargparse\nNamespace\n)\x81}X\1\0\0\0b" + doubled + b"sb)R."
    with pytest.raises(UserError, match="a call of Settings") as refusal:
        restricted_pickle("a.pt").load(io.BytesIO(content))
    assert len(str(refusal.value)) < 1000


def test_an_encoding_that_repeats_itself_is_not_quoted():
    doubled = b"X\1\0\0\0a" + b"2\x86" * 18
    content = b"\x80\x02c_codecs\nencode\nX\1\0\0\0b" + doubled + b"\x86R."
    with pytest.raises(pickle.UnpicklingError, match="another encoding") as refusal:
        load_plain(content)
    assert len(str(refusal.value)) < 1000


def test_many_keys_of_texts_and_few_of_other_kinds_are_read():
    content = {
        "frequencies": {("a", str(number)): 1.0 for number in range(5000)},
        "few": {(number, number) for number in range(500)},
    }
    assert load_plain(pickle.dumps(content)) == content


def test_an_attribute_that_would_hide_a_method_of_a_state_dict_is_refused():
    content = b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x05sb."
    assert vars(pickle.loads(content)) == {"items": 5}
    with pytest.raises(UserError, match="changes of OrderedDict"):
        restricted_pickle("a.pt").load(io.BytesIO(content))


def test_reading_names_imports_nothing():
    before = set(sys.modules)
    for module in ("fairseq.no_such_module", "omegaconf.no_such", "hydra.utils"):
        restricted_pickle("a.pt").load(io.BytesIO(f"c{module}\nConfig\n)R.".encode()))
    assert set(sys.modules) == before


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no.pkl: expected a label file, found no readable file"):
        read_plain(tmp_path / "no.pkl", "a label file")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_namespace_of_every_protocol_becomes_a_dict(protocol):
    content = argparse.Namespace(arch="ofa_tiny", kind=int, inner=argparse.Namespace(a=1))
    found = to_builtins(restricted_pickle("a.pt").load(io.BytesIO(pickle.dumps(content, protocol))))
    assert found == {"arch": "ofa_tiny", "kind": "builtins.int", "inner": {"a": 1}}
