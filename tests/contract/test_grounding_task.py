"""The grounding task through fairseq's own doors: upstream flags in, batches, boxes and figures
out."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from caption_files import caption_flags, make_vocabulary
from fairseq_setup import configuration, task_with_data
from golden import load_json
from grounding_files import scene, write_rows
from test_caption_task import validate

ROWS = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounding")
    return SimpleNamespace(
        vocabulary=make_vocabulary(folder / "vocabulary"),
        train=write_rows(folder / "train.tsv", range(ROWS)),
        valid=write_rows(folder / "valid.tsv", range(ROWS)),
    )


def set_up(files, *more: str):
    """Configuration and task of upstream's grounding flags, both files loaded."""
    left_out = ("--eval-", "--label-smoothing", "--drop-worst")
    flags = [
        flag
        for flag in caption_flags(f"{files.train},{files.valid}", files.vocabulary)
        if not flag.startswith(left_out)
    ]
    flags += [
        "--task=refcoco",
        "--selected-cols=0,4,2,3",
        "--max-image-size=64",
        "--patch-image-size=64",
        "--num-bins=50",
        "--eval-acc",
        '--eval-args={"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}',
        "--best-checkpoint-metric=score",
        *more,
    ]
    cfg = configuration(flags)
    return cfg, task_with_data(cfg)


@pytest.fixture(scope="module")
def ready(files):
    return set_up(files)


@pytest.fixture(scope="module")
def network(ready):
    cfg, task = ready
    return task.build_model(cfg.model).eval(), task.build_criterion(cfg.criterion)


def batch_of(task, count: int) -> dict:
    return task.datasets["valid"].collater([task.datasets["valid"][row] for row in range(count)])


def test_upstream_flags_build_task_model_and_criterion(ready, network):
    task, (model, criterion) = ready[1], network
    batch = batch_of(task, 3)
    loss, sample_size, _ = criterion(model, batch, update_num=0)
    assert torch.isfinite(loss) and sample_size == batch["ntokens"] == 15
    assert batch["region_coords"].tolist() == [list(scene(row)[2]) for row in range(3)]
    assert "score" in task.metric_names()


def test_every_prediction_of_a_validation_is_four_bins(ready, network):
    task, (model, _) = ready[1], network
    found = task.predict(batch_of(task, 3), [model], task.sequence_generator, task.decoding, 5)
    boxes = [box for one in found for box in (one, *one.others)]
    assert len(boxes) == 15 and all(len(box.bins) == 4 for box in boxes)


def test_generation_is_only_restricted_where_the_task_answers(ready, network):
    """A generator that is built by hand follows its own options alone, as upstream; so may
    validation."""
    task, (model, _) = ready[1], network
    bins = task.vocabulary.bins
    assert task.sequence_generator.options.only_range == (bins.start, bins.stop)
    by_hand = task.build_generator([model], Namespace(beam=5, min_len=4, max_len_a=0, max_len_b=4))
    assert by_hand.options.only_range is None and by_hand.options.constraint_range is None
    switched_off = task.generator_for([model], Namespace(only_range=""), task.decoding)
    assert switched_off.options.only_range is None and switched_off.options.max_len_b == 4


def test_restriction_to_bins_leaves_scores_of_boxes_as_they_are(ready, network):
    """The score of a restricted hypothesis is the mean of the whole network's log-probabilities."""
    task, (model, _) = ready[1], network
    batch = batch_of(task, 2)
    found = task.sequence_generator.generate([model], batch)
    for row, best in enumerate(found):
        tokens = best[0]["tokens"]
        previous = torch.cat([tokens.new_tensor([task.vocabulary.bos]), tokens[:-1]])[None]
        inputs = {key: value[row : row + 1] for key, value in batch["net_input"].items()}
        logits, _ = model(**{**inputs, "prev_output_tokens": previous})
        expected = logits.log_softmax(-1)[0].gather(1, tokens[:, None]).mean()
        assert best[0]["score"].item() == pytest.approx(expected.item(), abs=1e-4)


def test_accuracy_does_not_depend_on_ranks_or_batch_size(ready, network):
    _, task = ready
    model, criterion = network
    stock = task.inference_step

    def point(generator, models, sample, prefix_tokens=None, constraints=None):
        """The true box of every row, but for rows 1 and 4."""
        rows = [int(name.split("_")[0]) for name in sample["id"]]
        wrong = torch.tensor([*([task.vocabulary.bins[0]] * 4), task.vocabulary.eos])
        return [
            [{"tokens": wrong if row in (1, 4) else sample["target"][i]}]
            for i, row in enumerate(rows)
        ]

    task.inference_step = point
    try:
        for ranks, size in ((1, ROWS), (1, 2), (2, 2), (3, 3)):
            assert validate(task, model, criterion, ranks, size)["score"] == round(5 / 7, 4)
    finally:
        task.inference_step = stock


def test_summed_counts_become_the_recorded_figure(ready, network):
    from fairseq.logging import metrics

    recorded = load_json("metrics_reduce")["tasks"]["refcoco"]
    with metrics.aggregate(new_root=True) as aggregator:
        ready[1].reduce_metrics(recorded["logging_outputs"], network[1])
    smoothed = aggregator.get_smoothed_values()
    for name in ("loss", "nll_loss", "ppl", "score", "bsz"):
        assert smoothed[name] == pytest.approx(recorded["reduced"][name], abs=1e-3)


def test_without_eval_acc_nothing_is_generated(files):
    cfg, task = set_up(files, "--best-checkpoint-metric=loss")
    task.cfg.eval_acc = False
    task.build_model(cfg.model)
    assert task.sequence_generator is None and "score" not in task.metric_names()


def test_sampled_boxes_earn_their_overlap(files):
    """Self-critical training: no document frequencies are needed, the reward is the mean overlap
    of the samples."""
    from ofa.tokens.boxes import box_overlap

    cfg, task = set_up(
        files,
        "--criterion=scst_reward_criterion",
        "--scst",
        '--scst-args={"beam":3}',
        "--freeze-resnet",
    )
    torch.manual_seed(1)
    model = task.build_model(cfg.model)
    criterion, batch = task.build_criterion(cfg.criterion), batch_of(task, 2)
    loss, sample_size, log = criterion(model, batch)
    rows = task.rows(batch)
    with torch.no_grad():
        found = task.scst_generator.generate([model], batch)
    boxes = [
        task.spec.prediction(task.hypothesis(one["tokens"]), row, task.cfg)
        for row, best in zip(rows, found)
        for one in best
    ]
    expected = box_overlap(
        [box.decoded_box or box.box for box in boxes],
        [row.region_coord for row in rows for _ in range(3)],
    )
    assert all(len(box.bins) == 4 for box in boxes) and torch.isfinite(loss) and sample_size == 30
    assert log["score"] == pytest.approx(expected.sum().item(), abs=1e-5) and log["nsentences"] == 6
