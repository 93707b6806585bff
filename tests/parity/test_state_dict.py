"""Names, order, shapes, types and constant tables of upstream's models' state dicts."""

import hashlib

import pytest
import torch
from golden import load_json, names
from recorded_model import VOCAB_SIZE, recorded_config

from ofa.models.ofa_model import OFAModel
from ofa.models.peft import freeze

CASES = names("state_dict_*")


@pytest.fixture(params=CASES, scope="module")
def recorded(request):
    return load_json(request.param)


@pytest.fixture(scope="module")
def model(recorded):
    config = recorded_config(recorded["arch"], recorded["flags"])
    # Upstream left the backbone of --adapter trainable; here that is a flag of its own.
    config.adapter_train_backbone = config.adapter
    with torch.device("meta"):
        model = OFAModel(config, VOCAB_SIZE)
    freeze(model)
    for name, shape in recorded["heads"]:
        model.register_classification_head(name, **shape)
    return model


def test_every_tensor_has_the_recorded_name_order_shape_and_type(recorded, model):
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = [
        [
            name,
            list(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            int(name not in parameters),
            int(name in parameters and parameters[name].requires_grad),
        ]
        for name, tensor in model.state_dict().items()
    ]
    assert found == recorded["keys"]


def test_parameters_are_trained_in_the_recorded_order(recorded, model):
    """An optimizer's state is stored by the number of the parameter."""
    tied = {name for group in recorded["tied"] for name in group[1:]}
    expected = [
        name
        for name, _, _, is_buffer, trains in recorded["keys"]
        if trains and not is_buffer and name not in tied
    ]
    assert [
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    ] == expected


def test_parameters_are_as_many_and_shared_as_recorded(recorded, model):
    assert sum(p.numel() for p in model.parameters()) == recorded["n_params"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recorded["n_trainable"]
    by_id: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), []).append(name)
    assert [group for group in by_id.values() if len(group) > 1] == recorded["tied"]


def test_defaults_equal_the_recorded_arguments(recorded, model):
    config = vars(model.config)
    expected = {name: value for name, value in recorded["resolved_args"].items() if name in config}
    assert len(expected) > 50
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize(
    "case", ["state_dict_ofa_tiny", "state_dict_ofa_tiny_code256", "state_dict_ofa_tiny_vit"]
)
def test_constant_tables_have_the_recorded_bytes(case):
    recorded = load_json(case)
    config = recorded_config(recorded["arch"], [*recorded["flags"], "--resnet-type=resnet18"])
    tensors = OFAModel(config, vocab_size=10).state_dict()
    for name, expected in recorded["buffers"].items():
        data = tensors[name].numpy()
        assert list(data.shape) == expected["shape"]
        assert hashlib.sha256(data.tobytes()).hexdigest() == expected["sha256"], name
