"""One model, several tasks: batches of all of them, each validated by its own metric, the order
a matter of numbers."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from caption_files import caption, caption_flags, make_vocabulary, write_tsv
from fairseq_setup import configuration, task_with_data

from ofa.errors import UserError

ROWS = 7
# options of one task are in the file
OWN = ("--selected-cols", "--eval-cider", "--eval-args", "--task")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    import ofa

    ofa.register_fairseq_plugin()
    from ofa.tasks.caption import SPEC
    from ofa.tasks.fairseq_task import register_spec

    # A second task of the same rows: metrics and ids collide with those of the first.
    register_spec(replace(SPEC, name="caption_again"))
    folder = tmp_path_factory.mktemp("joint")
    captions = [caption(number) for number in range(ROWS)]
    write_tsv(folder / "train.tsv", captions)
    write_tsv(folder / "second.tsv", captions[:3])
    write_tsv(folder / "valid.tsv", captions, joined=True)
    write_tsv(folder / "short.tsv", captions[:3], joined=True)
    return SimpleNamespace(folder=folder, vocabulary=make_vocabulary(folder / "vocabulary"))


def task_entry(**more) -> dict:
    return {
        "data": "train.tsv,valid.tsv",
        "selected_cols": "0,4,2",
        "eval_cider": True,
        "eval_args": {"beam": 2, "max_len_b": 6},
        **more,
    }


TWO = {
    "caption": task_entry(),
    "caption_again": task_entry(data="second.tsv,short.tsv", weight=2, eval_bleu=True),
}


def flags_of(files) -> list[str]:
    flags = caption_flags(str(files.folder / "tasks.json"), files.vocabulary)
    return [*(flag for flag in flags if not flag.startswith(OWN)), "--task=joint"]


def configure(files, members: dict, *more: str):
    (files.folder / "tasks.json").write_text(json.dumps(members))
    return configuration([*flags_of(files), *more])


def set_up(files, members: dict = TWO, *more: str):
    cfg = configure(files, members, *more)
    return cfg, task_with_data(cfg)


@pytest.fixture(scope="module")
def ready(files):
    return set_up(files)


@pytest.fixture(scope="module")
def network(ready):
    cfg, task = ready
    return task.build_model(cfg.model).eval(), task.build_criterion(cfg.criterion)


def targets_of(task, split: str = "train", epoch: int = 1, skip: int = 0, **options) -> list[list]:
    """What the batches of one rank hold, from the given batch on."""
    iterator = task.get_batch_iterator(task.dataset(split), max_sentences=2, epoch=epoch, **options)
    batches = iterator.next_epoch_itr(shuffle=split == "train")
    return [batch["target"].tolist() for batch in list(batches)[skip:] if batch]


def test_an_epoch_shows_the_rows_of_each_task_by_its_weight(ready):
    dataset = ready[1].datasets["train"]
    names = [dataset[index]["task"] for index in range(len(dataset))]
    assert names.count("caption") == ROWS and names.count("caption_again") == 2 * 3


def test_training_batches_mix_tasks_and_go_through_the_criterion(ready, network):
    _, task = ready
    dataset = task.datasets["train"]
    dataset.set_epoch(1)
    batch = dataset.collater([dataset[0], dataset[len(dataset) - 1]])
    assert "task" not in batch and len(batch["id"]) == 2
    loss, sample_size, _ = network[1](network[0], batch)
    assert torch.isfinite(loss) and sample_size == batch["ntokens"]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(ready, workers):
    _, task = ready
    for epoch in (1, 3):
        assert targets_of(task, epoch=epoch, seed=5, num_workers=workers) == targets_of(
            task, epoch=epoch, seed=5
        )


def test_ranks_share_the_batches_of_one_process(ready):
    _, task = ready
    whole = targets_of(task, seed=5)
    ranks = [targets_of(task, seed=5, num_shards=2, shard_id=rank) for rank in range(2)]
    assert [batch for pair in zip(*ranks) for batch in pair] == whole[: 2 * min(map(len, ranks))]


def test_every_epoch_has_its_own_order_and_a_seed_repeats_it(files, ready):
    _, task = ready
    first, second = targets_of(task, epoch=1, seed=5), targets_of(task, epoch=2, seed=5)
    assert first != second and targets_of(task, epoch=1, seed=6) != first
    assert targets_of(set_up(files)[1], epoch=2, seed=5) == second


def test_an_interrupted_epoch_continues_with_the_batches_that_are_left(files, ready):
    _, task = ready
    whole = task.get_batch_iterator(task.dataset("train"), max_sentences=2, epoch=4, seed=3)
    reader = whole.next_epoch_itr(shuffle=True)
    next(reader)
    next(reader)
    state, rest = whole.state_dict(), [batch["target"].tolist() for batch in reader]
    resumed = set_up(files)[1]  # a new process
    again = resumed.get_batch_iterator(
        resumed.dataset("train"), max_sentences=2, epoch=state["epoch"], seed=3
    )
    again.load_state_dict(state)
    assert [batch["target"].tolist() for batch in again.next_epoch_itr(shuffle=True)] == rest


def test_validation_batches_hold_rows_of_one_task_each(ready):
    _, task = ready
    dataset = task.datasets["valid"]
    batches = [
        dataset.collater([dataset[row] for row in rows])
        for rows in dataset.batch_by_size(dataset.ordered_indices(), max_sentences=4)
    ]
    assert [(batch["task"], batch["nsentences"]) for batch in batches] == [
        ("caption", 4),
        ("caption", 3),
        ("caption_again", 3),
    ]


def validate(task, model, criterion, ranks: int, size: int) -> dict:
    """Figures of a validation whose logging outputs are summed over ranks as fairseq does."""
    from fairseq.logging import metrics

    batches = [
        [
            batch
            for batch in task.get_batch_iterator(
                task.dataset("valid"), max_sentences=size, num_shards=ranks, shard_id=rank
            ).next_epoch_itr(shuffle=False)
            if batch
        ]
        for rank in range(ranks)
    ]
    with metrics.aggregate(new_root=True) as aggregator, torch.no_grad():
        for step in range(max(map(len, batches))):
            own = [
                task.valid_step(rank[step], model, criterion)[2]
                for rank in batches
                if step < len(rank)
            ]
            assert len({tuple(log) for log in own}) == 1  # fairseq sums them key by key
            task.reduce_metrics([{key: sum(log[key] for log in own) for key in own[0]}], criterion)
    return aggregator.get_smoothed_values()


def test_each_task_has_its_own_metric_with_names_that_do_not_collide(ready, network):
    cfg, task = ready
    assert task.metric_names()[-3:] == ["caption_cider", "caption_again_cider", "bleu"]
    found = validate(task, *network, ranks=1, size=3)
    other = validate(task, *network, ranks=2, size=2)
    for name in ("caption_cider", "caption_again_cider", "bleu"):
        assert found[name] == pytest.approx(other[name], abs=0.002)


def test_figures_are_those_of_the_tasks_on_their_own(ready, network):
    _, task = ready
    together = validate(task, *network, ranks=1, size=3)
    for name in ("caption", "caption_again"):
        alone = validate(task.tasks[name], *network, ranks=1, size=3)
        assert together[f"{name}_cider"] == alone["cider"]


def test_a_filler_of_mixed_samples_is_validated_without_a_task(ready, network):
    _, task = ready
    dataset = task.datasets["train"]
    filler = dataset.collater([dataset[0], dataset[len(dataset) - 1]])
    real = task.datasets["valid"].collater([task.datasets["valid"][0]])
    with torch.no_grad():
        logs = [task.valid_step(batch, *network)[2] for batch in (filler, real)]
    assert (
        set(logs[0]) == set(logs[1])
        and logs[0]["_caption_cider_cnt"] == 0 != logs[1]["_caption_cider_cnt"]
    )


def test_options_of_the_command_line_hold_for_every_task_unless_the_file_says_otherwise(files):
    _, task = set_up(
        files,
        {"caption": task_entry(), "caption_again": task_entry(max_src_length=9)},
        "--max-src-length=15",
    )
    assert (
        task.tasks["caption"].cfg.max_src_length == 15
        and task.tasks["caption_again"].cfg.max_src_length == 9
    )
    assert all(
        one.cfg.num_bins == 20 and one.cfg.patch_image_size == 32 for one in task.tasks.values()
    )


def test_a_line_names_the_tasks_and_one_of_them_may_be_a_line_itself(files):
    template = "[image] what is it? -> [text:caption]"
    from fairseq.tasks import setup_task

    line = f'caption={files.folder}/train.tsv*2, "{template}"={files.folder}/second.tsv'
    flags = ["" if flag.endswith("tasks.json") else flag for flag in flags_of(files)]
    cfg = configuration([*filter(None, flags), f"--mixture={line}"])
    task = setup_task(cfg.task)
    assert {name: one.cfg._name for name, one in task.tasks.items()} == {
        "caption": "caption",
        "template": "template",
    }
    assert task.weights == {"caption": 2.0, "template": 1.0}
    assert task.tasks["template"].spec.name == template
    assert loaded(task).options(template)["template"] == template
    with pytest.raises(UserError, match="expects a JSON file or --mixture, found neither"):
        setup_task(configuration([*filter(None, flags)]).task)


def test_each_task_shows_its_samples_under_its_own_name(ready):
    assert [task.validation_samples.name for task in ready[1].tasks.values()] == [
        "caption sample",
        "caption_again sample",
    ]


def test_several_training_files_take_turns_by_epoch(files):
    _, task = set_up(files, {"caption": task_entry(data="train.tsv,second.tsv,valid.tsv")})
    assert task.has_sharded_data("train") and not task.has_sharded_data("valid")
    assert len(task.datasets["train"]) == ROWS
    task.load_dataset("train", epoch=2)
    assert len(task.datasets["train"]) == 3


def loaded(task):
    """What a checkpoint of a joint training is read as."""
    from ofa.checkpoints.read import Checkpoint
    from ofa.inference.fairseq_loading import LoadedCheckpoint

    state = json.loads(json.dumps(task.state_dict()))  # plain data
    checkpoint = LoadedCheckpoint.__new__(LoadedCheckpoint)
    checkpoint.path, checkpoint.overrides = "a.pt", {}
    stored = {"_name": "joint", "patch_image_size": 32}
    content = {"cfg": {"task": stored, "model": {}}, "task_state": state}
    checkpoint._read_options(Checkpoint("a.pt", content))
    return checkpoint


def test_checkpoints_keep_the_options_of_each_task(ready):
    checkpoint = loaded(ready[1])
    assert checkpoint.options("caption_again")["eval_bleu"] is True
    with pytest.raises(
        UserError, match="a.pt: one model for caption, caption_again, and not for 'refcoco'.*--task"
    ):
        checkpoint.evaluated("refcoco")
