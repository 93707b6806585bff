"""Losses, logged values and gradients of the criterions equal upstream's."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from golden import load, load_json

pytest.importorskip("fairseq")
import fairseq.benchmark.dummy_lm  # noqa: E402, F401
from fairseq.logging import metrics  # noqa: E402

from ofa.criterions.fairseq_label_smoothed import (
    AdjustLabelSmoothedCrossEntropyCriterion,
    AdjustLabelSmoothedEncouragingLossCriterion,
)  # noqa: E402
from ofa.errors import UserError  # noqa: E402

INPUTS = load("criterion_inputs")
CLASSES = {
    "adjust_label_smoothed_cross_entropy": AdjustLabelSmoothedCrossEntropyCriterion,
    "adjust_label_smoothed_encouraging_loss": AdjustLabelSmoothedEncouragingLossCriterion,
}
CASES = [case for case in load_json("criterion_cases")["cases"] if case["criterion"] in CLASSES]
IGNORED_OPTION = "el_drop_best_ignored"  # upstream parses --drop-best-ratio and does not use it
RIGHT = [
    c for c in CASES if "out" in c and c["out"]["loss"] != "nan" and c["name"] != IGNORED_OPTION
]
BROKEN = [case for case in CASES if case not in RIGHT]
TASK = Namespace(target_dictionary=Namespace(pad=lambda: 1, eos=lambda: 2))


class Stub(torch.nn.Module):
    """Returns the given logits, one tensor per call, and remembers what it was called with."""

    def __init__(self, *logits):
        super().__init__()
        self.logits, self.calls = list(logits), []

    def forward(self, **net_input):
        self.calls.append(net_input)
        return self.logits[len(self.calls) - 1], {}


def array(name):
    if name and name.endswith("[B:]"):
        full = array(name[:-4])
        return full[len(full) // 2 :]
    return torch.from_numpy(INPUTS[name]) if name else None


def batch(case, target_name):
    target = array(target_name)
    return {
        "id": np.arange(len(target)),
        "net_input": {"src_tokens": torch.zeros(len(target), 3, dtype=torch.long)},
        "target": target,
        "ntokens": int((target != 1).sum()),
        "nsentences": len(target),
        "conf": array(case.get("conf")),
        "constraint_masks": array(case.get("constraint_masks")),
    }


def run(case, **changes):
    """Returns the stub model, its logits (with gradient) and what the criterion returned."""
    pair = isinstance(case["logits"], list)
    logit_names, target_names = (
        (case["logits"], case["target"]) if pair else ([case["logits"]], [case["target"]])
    )
    logits = [array(name).clone().requires_grad_() for name in logit_names]
    samples = [batch(case, name) for name in target_names]
    criterion = CLASSES[case["criterion"]](TASK, **{**case["args"], **changes})
    model = Stub(*logits)
    output = criterion(model, samples if pair else samples[0], update_num=case["update_num"])
    output[0].backward()
    return model, logits, output


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case["name"])
def test_loss_log_and_gradient_equal_upstream(case):
    model, logits, (loss, sample_size, log) = run(case)
    values = {key: float(value) for key, value in log.items()}
    assert values == pytest.approx(case["out"], rel=1e-5)
    assert (loss.item(), sample_size) == pytest.approx(
        (case["out"]["loss"], case["out"]["sample_size"]), rel=1e-5
    )
    if "grad_logits" in case:
        grad = logits[0].grad
        assert float(grad.norm()) == pytest.approx(case["grad_logits"]["l2"], rel=1e-3)
        assert float(grad.abs().max()) == pytest.approx(case["grad_logits"]["max_abs"], rel=1e-3)
        if f"grad/{case['name']}" in INPUTS:
            torch.testing.assert_close(grad, array(f"grad/{case['name']}"), atol=1e-5, rtol=1e-3)
    if "sample_patch_num_seen_by_model" in case:
        assert [str(call.get("sample_patch_num")) for call in model.calls] == case[
            "sample_patch_num_seen_by_model"
        ]


@pytest.mark.parametrize(
    "case",
    [case for case in BROKEN if case["args"].get("report_accuracy")],
    ids=lambda c: c["name"],
)
def test_accuracy_is_reported_where_upstream_fails(case):
    _, _, (loss, _, log) = run(case)
    plain = run(case, report_accuracy=False)[2]
    assert torch.equal(loss, plain[0])
    logits, target = array(case["logits"]), array(case["target"])
    if case["constraint_masks"]:
        logits = logits.masked_fill(~array(case["constraint_masks"]), -torch.inf)
    if "constraint_range" in case["args"]:
        ids = torch.arange(logits.size(-1))
        logits = logits.masked_fill((ids >= 4) & (ids < 20) | (ids >= 60), -torch.inf)
    scored = target != 1
    assert log["total"] == scored.sum()
    assert log["n_correct"] == (logits.argmax(-1) == target)[scored].sum()


def test_rdrop_with_masks_equals_rdrop_over_a_smaller_vocabulary():
    """Upstream gives NaN. The same answers for every row = a vocabulary that holds only
    these."""
    (case,) = (case for case in BROKEN if case["name"] == "ce_rdrop_masks")
    allowed = torch.zeros(97, dtype=torch.bool)
    allowed[:60] = True
    logits = array("logits_rdrop").clone().requires_grad_()
    target = array("target_constrained")
    sample = {
        **batch(case, "target_constrained"),
        "constraint_masks": allowed.expand(*target.shape, 97),
    }
    loss = AdjustLabelSmoothedCrossEntropyCriterion(TASK, **case["args"])(Stub(logits), sample)[0]
    loss.backward()
    small = logits.detach()[..., :60].clone().requires_grad_()
    expected = AdjustLabelSmoothedCrossEntropyCriterion(TASK, **case["args"])(
        Stub(small), {**sample, "constraint_masks": None}
    )[0]
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(logits.grad[..., :60], small.grad, atol=1e-6, rtol=1e-4)
    assert logits.grad[..., 60:].abs().max() == 0
    assert float(run(case)[2][0]) > 0


def test_drop_best_leaves_out_the_tokens_of_smallest_cross_entropy():
    (case,) = (case for case in BROKEN if case["name"] == IGNORED_OPTION)
    logits, target = array(case["logits"]), array(case["target"])
    loss = torch.nn.functional.cross_entropy(
        logits[target != 1], target[target != 1], reduction="none", label_smoothing=0.1 * 97 / 96
    )
    hardest = loss.sort(descending=True).values[: int(17 * 0.6)]
    _, _, (_, size, log) = run(case, log_end=1.0)
    nll = torch.nn.functional.cross_entropy(
        logits[target != 1], target[target != 1], reduction="none"
    )
    assert size == len(hardest) == 10
    assert log["nll_loss"].item() == pytest.approx(nll[loss >= hardest[-1]].sum().item(), rel=1e-5)
    later = run(case, drop_best_after=10)[2]
    assert later[1] == 17


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_two_equal_passes_of_rdrop_drop_the_same_tokens_and_cost_twice_as_much(name):
    """Without dropout nothing diverges: R-Drop is the plain loss of a doubled batch, whatever is
    dropped."""
    case = next(case for case in RIGHT if case["criterion"] == name)
    options = {"drop_worst_ratio": 0.2} | (
        {"drop_best_ratio": 0.3} if name.endswith("encouraging_loss") else {}
    )
    options |= {"sentence_avg": False, "label_smoothing": 0.1}
    logits, sample = array("logits"), batch(case, "target")
    single = CLASSES[name](TASK, **options)(Stub(logits), sample, update_num=10)
    double = CLASSES[name](TASK, **options, use_rdrop=True)(
        Stub(torch.cat([logits, logits])), sample, update_num=10
    )
    assert double[0].item() == pytest.approx(2 * single[0].item(), rel=1e-5)
    assert (
        double[1]
        == 2 * single[1]
        == 2 * int(int(17 * 0.8) * (0.7 if "drop_best_ratio" in options else 1))
    )


@pytest.mark.parametrize("name", sorted(load_json("metrics_reduce")["tasks"]))
def test_reduced_metrics_equal_upstream(name):
    recorded = load_json("metrics_reduce")["tasks"][name]
    with metrics.aggregate(new_root=True) as seen:
        AdjustLabelSmoothedCrossEntropyCriterion.reduce_metrics(recorded["logging_outputs"])
    values = seen.get_smoothed_values()
    assert values == pytest.approx({key: recorded["reduced"][key] for key in values})
    assert {"loss", "nll_loss", "ppl", "ntokens", "nsentences", "sample_size"} <= values.keys()
    assert not STREAMS & values.keys(), "zeros in upstream, which has them in every run"


STREAMS = {"loss_v1", "loss_v2", "sample_size_v1", "sample_size_v2"}


def test_the_losses_of_the_streams_of_a_pretraining_are_reported():
    log = {"loss": 3, "nll_loss": 3, "ntokens": 4, "nsentences": 1, "sample_size": 1}
    streams = {"loss_v1": 6, "sample_size_v1": 2, "loss_v2": 0, "sample_size_v2": 0}
    with metrics.aggregate(new_root=True) as seen:
        AdjustLabelSmoothedCrossEntropyCriterion.reduce_metrics([log | streams])
    values = seen.get_smoothed_values()
    assert {name: values[name] for name in STREAMS} == streams | {"loss_v1": 3}


def test_a_target_that_is_not_allowed_names_the_sample_in_training_and_is_left_out_in_validation():
    case = next(case for case in RIGHT if case["name"] == "ce_masks_ls0.1")
    sample = batch(case, case["target"])
    sample["constraint_masks"] = sample["constraint_masks"].clone()
    sample["constraint_masks"][2, 0, sample["target"][2, 0]] = False
    criterion, model = (
        AdjustLabelSmoothedCrossEntropyCriterion(TASK, **case["args"]),
        Stub(*[array("logits")] * 3),
    )
    with pytest.raises(
        UserError, match=f"sample 2: target token {int(sample['target'][2, 0])} is not among"
    ):
        criterion(model, sample)
    loss, size, _ = criterion(model.eval(), sample)
    sample["target"] = sample["target"].clone()
    sample["target"][2, 0] = criterion.padding_idx
    without, smaller, _ = criterion(model, sample)
    assert loss.isfinite() and loss.item() == pytest.approx(without.item()) and size == smaller


def test_masks_work_with_a_tensor_that_needs_a_gradient_and_leave_batch_and_logits_alone():
    case = next(case for case in RIGHT if case["name"] == "ce_masks_drop_worst")
    sample, logits = batch(case, case["target"]), array("logits").clone()
    before = {
        key: value.clone() for key, value in sample.items() if isinstance(value, torch.Tensor)
    }
    AdjustLabelSmoothedCrossEntropyCriterion(TASK, **case["args"], use_rdrop=True)(
        Stub(torch.cat([logits, logits])), sample
    )
    assert torch.equal(logits, array("logits"))
    assert all(torch.equal(sample[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    "change, flag",
    [
        ({"constraint_range": "20"}, "--constraint-range"),
        ({"constraint_range": "60,20"}, "0 <= start < end"),
        ({"drop_worst_ratio": 1.0}, "--drop-worst-ratio"),
    ],
)
def test_impossible_options_are_named(change, flag):
    with pytest.raises(UserError, match=flag):
        AdjustLabelSmoothedCrossEntropyCriterion(
            TASK, sentence_avg=False, label_smoothing=0.1, **change
        )
    with pytest.raises(UserError, match="--log-end"):
        AdjustLabelSmoothedEncouragingLossCriterion(
            TASK, sentence_avg=False, label_smoothing=0.1, log_end=1.5
        )


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_criterion_is_built_from_upstreams_flags(name):
    from fairseq import criterions, options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    flags = [
        "--label-smoothing",
        "0.1",
        "--report-accuracy",
        "--ignore-prefix-size",
        "1",
        "--ignore-eos",
        "--sentence-avg",
        "--drop-worst-ratio",
        "0.2",
        "--drop-worst-after",
        "2500",
        "--use-rdrop",
        "--reg-alpha",
        "0.5",
        "--sample-patch-num",
        "100",
        "--constraint-range",
        "58457,59457",
    ]
    if CLASSES[name] is AdjustLabelSmoothedEncouragingLossCriterion:
        flags += ["--log-end", "0.5", "--drop-best-ratio", "0.05", "--drop-best-after", "7"]
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(
        parser, ["--task", "dummy_lm", "--arch", "transformer_lm", "--criterion", name, *flags]
    )
    criterion = criterions.build_criterion(convert_namespace_to_omegaconf(args).criterion, TASK)
    assert type(criterion) is CLASSES[name]
    cfg = criterion.cfg
    assert (cfg.label_smoothing, cfg.report_accuracy, cfg.ignore_prefix_size) == (0.1, True, 1)
    assert (cfg.ignore_eos, cfg.sentence_avg) == (True, True)
    assert (cfg.use_rdrop, cfg.reg_alpha) == (True, 0.5)
    assert (cfg.drop_worst_ratio, cfg.drop_worst_after) == (0.2, 2500)
    assert cfg.sample_patch_num == 100
    assert criterion.span == (58457, 59457)
    if CLASSES[name] is AdjustLabelSmoothedEncouragingLossCriterion:
        assert (cfg.log_end, cfg.drop_best_ratio, cfg.drop_best_after) == (0.5, 0.05, 7)
