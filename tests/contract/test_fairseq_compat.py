"""One test for each place where stock fairseq is fixed."""

import argparse
import io
import os
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics

import ofa
from ofa.errors import UserError
from ofa.trainer import fairseq_compat, fairseq_optim
from ofa.trainer.fairseq_trainer import OFATrainer


@pytest.fixture(autouse=True, scope="module")
def plugin():
    ofa.register_fairseq_plugin()


def config(*flags: str):
    """A fairseq training configuration from command-line flags."""
    words = [
        "train.tsv,valid.tsv",
        "--user-dir",
        ofa.__path__[0],
        "--task",
        "caption",
        "--arch",
        "ofa_nano",
    ]
    words += [
        "--optimizer",
        "adam",
        "--criterion",
        "adjust_label_smoothed_cross_entropy",
        "--selected-cols",
        "0,4,2",
    ]
    args = options.parse_args_and_arch(options.get_training_parser(), words + list(flags))
    return convert_namespace_to_omegaconf(args)


def test_installing_twice_patches_once():
    before = distributed_utils.call_main
    fairseq_compat.install()
    assert distributed_utils.call_main is before


def test_known_warnings_are_silent():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fairseq_compat.silence_known_warnings()
        warnings.warn(
            "`torch.cuda.amp.GradScaler(args...)` is deprecated.", FutureWarning, stacklevel=1
        )
        warnings.warn(
            "\n'config' is validated against ConfigStore schema with the same name.\nThis",
            UserWarning,
            stacklevel=1,
        )
        warnings.warn("something else", FutureWarning, stacklevel=1)
    assert [str(w.message) for w in caught] == ["something else"]


def test_a_checkpoint_with_a_namespace_loads_and_takes_overrides(tmp_path):
    path = tmp_path / "old.pt"
    args = argparse.Namespace(arch="ofa_base", task="caption", patch_image_size=480)
    torch.save({"args": args, "model": {"w": torch.ones(2)}, "extra_state": {}}, path)
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"patch_image_size": 64})
    assert torch.equal(state["model"]["w"], torch.ones(2))
    assert state["cfg"].model.patch_image_size == 64


@pytest.mark.parametrize(
    "history", [{}, {"optimizer_history": []}, {"optimizer_history": [{"num_updates": 7}]}]
)
def test_a_checkpoint_without_training_state_loads(tmp_path, history):
    torch.save(
        {"cfg": {"model": {"arch": "ofa_base"}}, "model": {}, **history}, tmp_path / "stripped.pt"
    )
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "stripped.pt"))
    expected = 7 if history.get("optimizer_history") else 0
    assert (
        state["optimizer_history"][-1]["num_updates"] == expected
        and state["cfg"].model.arch == "ofa_base"
    )


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Trick:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "ran"),)

    torch.save({"model": {}, "args": Trick()}, tmp_path / "trick.pt")
    with pytest.raises(UserError, match="trick.pt.*system"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "trick.pt"))
    assert not (tmp_path / "ran").exists()


def test_objects_of_any_class_can_be_broadcast_between_ranks():
    buffer = io.BytesIO()
    torch.save(argparse.Namespace(a=1), buffer)
    buffer.seek(0)
    assert distributed_utils.torch.load(buffer, map_location="cpu").a == 1
    assert distributed_utils.torch.distributed is torch.distributed


def test_bf16_does_not_ask_for_a_tpu():
    cfg = config("--bf16")
    assert cfg.common.bf16 and not cfg.common.tpu


@pytest.mark.parametrize("flag, known", [("--arch", "ofa_base"), ("--task", "caption")])
def test_an_unknown_name_lists_the_known_ones_in_a_few_lines(flag, known, capsys):
    with pytest.raises(SystemExit) as stop:
        config(flag, "of_base")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "of_base" in message and known in message
    assert len(message.splitlines()) <= 3


def test_ddp_on_the_cpu_gets_no_device_ids():
    seen = {}

    def stock(module, device_ids=None, output_device=None):
        seen.update(device_ids=device_ids, output_device=output_device)

    wrap = fairseq_compat.drop_device_ids_on_cpu(stock)
    wrap(torch.nn.Linear(1, 1), device_ids=[0], output_device=0)
    assert seen == {"device_ids": None, "output_device": None}


@pytest.mark.parametrize(
    ("flag", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), (None, torch.float32)]
)
def test_boxes_stay_exact_where_the_model_computes_in_half_precision(flag, dtype):
    common = SimpleNamespace(fp16=flag == "fp16", bf16=flag == "bf16")
    trainer = OFATrainer.__new__(OFATrainer)
    trainer.cfg = SimpleNamespace(common=common)
    sample = {
        "net_input": {"patch_images": torch.ones(1, 3, 2, 2)},
        "region_coords": torch.tensor([[100.25, 7.0, 639.9, 427.3]]),
    }
    converted = trainer._fp_convert_sample(sample)
    assert converted["net_input"]["patch_images"].dtype == dtype
    assert torch.equal(converted["region_coords"], torch.tensor([[100.25, 7.0, 639.9, 427.3]]))


def test_a_typo_in_the_best_metric_is_named_before_training():
    task = SimpleNamespace(metric_names=lambda: {"loss", "cider"})
    cfg = config("--best-checkpoint-metric", "cidre")
    with pytest.raises(UserError, match="cider, loss; found 'cidre'"):
        OFATrainer(cfg, task, None, None)


def test_a_missing_restore_file_is_refused_but_the_default_is_not(tmp_path):
    with pytest.raises(UserError, match="found no file"):
        fairseq_compat.settle(config("--restore-file", str(tmp_path / "x.pt")))
    fairseq_compat.settle(config())


def test_a_gpu_that_torch_cannot_use_is_refused_before_training_and_cpu_runs_ask_for_none(
    monkeypatch,
):
    def refuse(*_):
        raise UserError("no kernels")

    monkeypatch.setattr(fairseq_compat, "usable_gpus", refuse)
    fairseq_compat.settle(config("--cpu", "--bf16"))
    with pytest.raises(UserError, match="no kernels"):
        fairseq_compat.settle(config())
    monkeypatch.setattr(fairseq_compat, "usable_gpus", lambda: (1, ""))
    monkeypatch.setattr(fairseq_compat, "require_bf16", refuse)
    fairseq_compat.settle(config("--fp16"))
    with pytest.raises(UserError, match="no kernels"):
        fairseq_compat.settle(config("--bf16"))


def test_a_list_of_tsv_files_is_not_searched_for_forgotten_subsets():
    cfg = config()
    fairseq_compat.settle(cfg)
    assert cfg.dataset.ignore_unused_valid_subsets


def test_fp16_on_the_cpu_keeps_gradients_apart():
    cfg = config("--fp16", "--cpu")
    fairseq_compat.settle(cfg)
    assert cfg.common.fp16_no_flatten_grads


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ddp-backend=slowmo",), "--ddp-backend slowmo: needs fairscale.*fully_sharded"),
        (("--cpu-offload",), "--cpu-offload: needs fairscale"),
        (("--distributed-timeout=0",), "expects minutes from 1 on, found 0"),
        (("--optimizer=adam", "--fp16-adam-stats"), "--fp16-adam-stats: leave it out"),
        (("--zero-sharding=os", "--optimizer=sgd"), "expects --optimizer adam"),
        (("--zero-sharding=os", "--amp"), "--zero-sharding os: works without --amp"),
        (("--zero-sharding=os", "--use-bmuf"), "--zero-sharding os: works without --use-bmuf"),
        (("--ddp-backend=fully_sharded", "--amp"), "fully_sharded: works without --amp"),
        (("--ddp-backend=fully_sharded", "--compile"), "fully_sharded: works without --compile"),
        (
            ("--ddp-backend=fully_sharded", "--decoder-layerdrop=0.1"),
            "fully_sharded: works without --decoder-layerdrop",
        ),
        (
            (
                "--ddp-backend=fully_sharded",
                "--criterion=scst_reward_criterion",
                "--scst-kl-weight=0.1",
            ),
            "fully_sharded: works without --scst-kl-weight",
        ),
    ],
)
def test_what_is_not_offered_is_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        fairseq_compat.settle(config(*flags))


@pytest.mark.parametrize("flags", [("--fp16", "--amp"), ("--bf16", "--amp")])
def test_two_precisions_are_one_line(flags):
    with pytest.raises(UserError, match=f"found {flags[0][2:]} and amp; leave one out"):
        fairseq_compat.settle(config(*flags))


def test_fp16_with_bf16_is_an_error_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        config("--memory-efficient-fp16", "--bf16")
    assert "expected one, found fp16 and bf16; leave one out" in capsys.readouterr().err


def test_moments_that_are_divided_keep_gradients_apart():
    cfg = config("--zero-sharding=os", "--fp16")
    fairseq_compat.settle(cfg)
    assert cfg.common.fp16_no_flatten_grads


def test_torchrun_on_the_cpu_makes_one_run_of_all_processes(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    cfg = config("--cpu").distributed_training
    whole = config("--cpu")
    fairseq_compat.settle(whole)
    settings = whole.distributed_training
    assert cfg.distributed_world_size != 2 and settings.distributed_world_size == 2
    assert (settings.distributed_rank, settings.device_id, settings.distributed_backend) == (
        1,
        0,
        "gloo",
    )
    assert settings.distributed_no_spawn and settings.distributed_init_method == "env://"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_user_error_ends_in_one_line_and_status_2(wrapped, capsys):
    error = UserError("a.tsv:3: expects 5 columns, found 4; check the row")
    if wrapped:  # as torch's data loader re-raises the error of a worker
        error = UserError(
            "Caught UserError in DataLoader worker process 0.\nTraceback:\nofa.errors.UserError:"
            f" {error}\n"
        )
    with pytest.raises(SystemExit) as stop, fairseq_compat.errors_in_one_line():
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: a.tsv:3: expects 5 columns, found 4; check the row\n"


def test_a_user_error_behind_a_vaguer_one_is_the_one_shown(capsys):
    with pytest.raises(SystemExit), fairseq_compat.errors_in_one_line():
        try:
            raise UserError("the checkpoint needs --arch=ofa_base")
        except UserError:
            raise Exception("Cannot load model parameters")  # noqa: B904 (as fairseq does)
    assert capsys.readouterr().err == "error: the checkpoint needs --arch=ofa_base\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(KeyError), fairseq_compat.errors_in_one_line():
        raise KeyError("a bug of ours")
    assert pickle.loads(pickle.dumps(UserError("travels"))).args == ("travels",)


def test_figures_without_a_value_are_left_out_of_the_log():
    with metrics.aggregate(new_root=True) as figures:
        for name in ("loss", "qa_loss", "loss"):
            metrics.log_scalar(name, 2.0)
        metrics.log_derived("ppl", lambda meters: 2 ** meters["loss"].avg)
        figures.reset()  # as after every line of the log
        metrics.log_scalar("loss", 3.0)
    assert dict(figures.get_smoothed_values()) == {"loss": 3.0, "ppl": 8.0}


def separate_states(params) -> dict:
    """State of Adam for all parameters but the last, which never had a gradient."""
    return {
        number: {
            "step": 7,
            "exp_avg": torch.full_like(param, 1.0 + number),
            "exp_avg_sq": torch.full_like(param, 0.5),
        }
        for number, param in enumerate(params[:-1])
    }


def test_moments_of_one_flat_tensor_and_of_each_parameter_become_each_other():
    params = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1, 2)]
    flat = {"state": separate_states(params), "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}
    fairseq_optim.fit_state(flat, [torch.zeros(12)], params)
    assert flat["param_groups"] == [{"lr": 0.1, "params": [0]}] and flat["state"][0]["step"] == 7
    assert flat["state"][0]["exp_avg"].tolist() == [1.0] * 6 + [2.0] * 4 + [0.0] * 2
    fairseq_optim.fit_state(flat, params, params)
    for number, before in separate_states(params).items():
        assert all(
            torch.equal(torch.as_tensor(before[name]), torch.as_tensor(flat["state"][number][name]))
            for name in before
        )


def test_updates_that_apex_counts_per_group_count_for_each_parameter():
    params = [torch.zeros(2), torch.zeros(3)]
    state = {
        "state": {0: {"exp_avg": torch.ones(2)}},
        "param_groups": [{"step": 9, "params": [0, 1]}],
    }
    fairseq_optim.fit_state(state, params, params)
    assert state["state"][0]["step"] == 9


@pytest.mark.parametrize(
    "shapes", [[(2, 3), (4,)], [(2, 3), (4,), (2, 1)], [(3, 2), (4,), (1, 2)], [(13,)]]
)
def test_moments_of_other_parameters_are_refused(shapes):
    params = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1, 2)]
    state = {"state": separate_states([*params, None]), "param_groups": [{"params": [0, 1, 2]}]}
    with pytest.raises(UserError, match="--reset-optimizer"):
        fairseq_optim.fit_state(state, [torch.zeros(shape) for shape in shapes], params)
