"""Pretraining: what a batch holds is a matter of numbers, every task can be left out, and each
has figures of its own."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq_setup import configuration, task_with_data
from pretraining_files import ROWS, make_files, pair, pretraining_flags, write_rows
from pretraining_files import objects as objects_row

from ofa.errors import UserError
from ofa.task.pretraining_tasks import EXTRA_TASKS, PAIR_TASKS, TASKS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("pretraining"))


def set_up(files, *more: str, without: tuple[str, ...] = ()):
    """Configuration and task, its files loaded. Args: without: flags that are left out."""
    flags = (
        [flag for flag in pretraining_flags(files, *more) if not flag.startswith(without)]
        if without
        else pretraining_flags(files, *more)
    )
    cfg = configuration(flags)
    return cfg, task_with_data(cfg)


@pytest.fixture(scope="module")
def ready(files):
    return set_up(files)


@pytest.fixture(scope="module")
def network(ready):
    cfg, task = ready
    torch.manual_seed(3)
    return task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def epoch_of(task, epoch: int = 1, **options) -> list:
    """Batches of an epoch, as one rank reads them."""
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_sentences=4, epoch=epoch, seed=5, **options
    )
    return [batch for batch in iterator.next_epoch_itr(shuffle=True) if batch]


def test_the_earlier_name_of_the_flag_for_plain_images_is_accepted(files):
    for flag in ("--plain-images", "--plain-pictures"):
        assert configuration(pretraining_flags(files, flag)).task.plain_images
    assert not configuration(pretraining_flags(files)).task.plain_images


def groups_of(batch) -> tuple[dict, dict]:
    return batch if isinstance(batch, tuple) else (batch, {})


def content(batch) -> list:
    """All of a batch as plain values."""
    return [
        (
            part["id"].tolist(),
            part["target"].tolist(),
            part["net_input"]["src_tokens"].tolist(),
            part["net_input"]["patch_images"].double().sum().item(),
        )
        for part in groups_of(batch)
        if part
    ]


def counts_of(batches) -> Counter:
    """Samples of each task."""
    return Counter(
        TASKS[number]
        for batch in batches
        for part in groups_of(batch)
        if part
        for number in part["tasks"].tolist()
    )


def test_every_eighth_row_in_the_order_of_reading_brings_a_group(ready):
    dataset = ready[1].datasets["train"]
    dataset.set_epoch(3)
    for place, index in enumerate(dataset.ordered_indices()):
        pairs, extras = dataset[index]
        assert len(pairs) == 2
        expected = (
            ["text_infilling"] * 2 + ["image_infilling", "detection"] if place % 8 == 7 else []
        )
        assert [sample["task"] for sample in extras] == expected
    dataset.set_epoch(1)


def test_pairs_come_in_the_order_that_earlier_checkpoints_are_in_the_middle_of(ready):
    """Recorded before joint training and pretraining were one data set."""
    batches = epoch_of(ready[1])[:3]
    names = [name for batch in batches for name in groups_of(batch)[0]["id"][::2]]
    assert names == [f"p{row}" for row in (12, 18, 9, 11, 2, 17, 19, 3, 5, 0, 22, 13)]


def test_an_epoch_shows_the_mixture_of_upstream(ready):
    assert counts_of(epoch_of(ready[1])) == {
        "caption": 8,
        "qa": 8,
        "visual_grounding": 8,
        "grounded_captioning": 8,
        "image_text_matching": 16,
        "text_infilling": 6,
        "image_infilling": 3,
        "detection": 3,
    }


def test_extra_rows_come_in_turn_and_go_on_in_the_next_epoch(ready):
    names = [
        name
        for epoch in (1, 2, 3, 4, 5)
        for batch in epoch_of(ready[1], epoch)
        for name in groups_of(batch)[1].get("id", [])
    ]
    texts = [name for name in names if name.startswith("t")]
    assert all(
        sorted(texts[start : start + 5]) == [f"t{number}" for number in range(5)]
        for start in range(0, 30, 5)
    )


def test_a_group_of_pairs_has_no_code_mask_and_one_of_extra_rows_has(ready):
    pairs, extras = next(batch for batch in epoch_of(ready[1]) if isinstance(batch, tuple))
    assert pairs["net_input"]["code_masks"] is None and pairs["net_input"]["patch_images"].shape[
        1:
    ] == (3, 32, 32)
    assert extras["net_input"]["code_masks"].tolist() == [False, False, True, False]
    assert (
        extras["net_input"]["patch_masks"].tolist() == [False, False, True, True]
        and extras["conf"].tolist() == [2.0] * 4
    )


def test_a_batch_says_which_samples_show_the_same_image(ready):
    for pairs, extras in (batch for batch in epoch_of(ready[1]) if isinstance(batch, tuple)):
        for part in (pairs, extras):
            shown = part["net_input"]["patch_masks"]
            images, rows = part["net_input"]["patch_images"][shown], part["image_rows"]
            assert shown[rows].all() or not shown.any()
            torch.testing.assert_close(
                part["net_input"]["patch_images"][rows][shown], images, rtol=0, atol=0
            )
        assert set(Counter(pairs["image_rows"].tolist()).values()) == {2}
        assert len(extras["image_rows"].unique()) == max(
            1, int(extras["net_input"]["patch_masks"].sum())
        )


def test_a_row_is_the_same_sample_whenever_it_is_read(files, ready):
    one, other = ready[1].datasets["train"], set_up(files)[1].datasets["train"]
    for dataset in (one, other):
        dataset.set_seed(5)
        dataset.set_epoch(2)
        dataset.ordered_indices()
    found = [
        [content(dataset.collater([dataset[index]])) for index in order]
        for dataset, order in ((one, range(ROWS)), (other, reversed(range(ROWS))))
    ]
    assert found[0] == found[1][::-1]
    one.set_epoch(3)
    assert [content(one.collater([one[index]])) for index in range(ROWS)] != found[0]
    one.set_epoch(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(ready, workers):
    for epoch in (1, 2):
        assert list(map(content, epoch_of(ready[1], epoch, num_workers=workers))) == list(
            map(content, epoch_of(ready[1], epoch))
        )


def test_ranks_share_the_batches_of_one_process(ready):
    whole = list(map(content, epoch_of(ready[1])))
    ranks = [
        list(map(content, epoch_of(ready[1], num_shards=2, shard_id=rank))) for rank in range(2)
    ]
    assert [batch for pair in zip(*ranks) for batch in pair] == whole


def test_an_interrupted_epoch_continues_with_the_batches_that_are_left(files, ready):
    _, task = ready
    whole = task.get_batch_iterator(task.dataset("train"), max_sentences=4, epoch=4, seed=3)
    reader = whole.next_epoch_itr(shuffle=True)
    next(reader), next(reader)
    state, rest = whole.state_dict(), list(map(content, reader))
    resumed = set_up(files)[1]  # a new process
    again = resumed.get_batch_iterator(resumed.dataset("train"), max_sentences=4, epoch=4, seed=3)
    again.load_state_dict(state)
    assert list(map(content, again.next_epoch_itr(shuffle=True))) == rest and len(rest) == 4


def test_the_seeds_change_what_is_drawn(files, ready):
    other = set_up(files, "--pretrain-seed=8")[1]
    assert list(map(content, epoch_of(other))) != list(map(content, epoch_of(ready[1])))


# --- weights
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights, expected",
    [
        (
            "qa=2,image_text_matching=0,detection=3",
            {
                "caption": 8,
                "qa": 16,
                "visual_grounding": 8,
                "grounded_captioning": 8,
                "text_infilling": 6,
                "image_infilling": 3,
                "detection": 9,
            },
        ),
        (
            '{"text_infilling": 0.5, "image_infilling": 0}',
            {
                "caption": 8,
                "qa": 8,
                "visual_grounding": 8,
                "grounded_captioning": 8,
                "image_text_matching": 16,
                "text_infilling": 3,
                "detection": 3,
            },
        ),
    ],
)
def test_weights_say_how_often_a_task_is_trained(files, weights, expected):
    assert counts_of(epoch_of(set_up(files, f"--task-weights={weights}")[1])) == expected


def test_fractions_of_a_weight_hold_on_average(files):
    task = set_up(
        files,
        "--task-weights=caption=0.25,qa=0.5,visual_grounding=1.5,image_text_matching=0,grounded_captioning=0",
    )[1]
    found = sum((counts_of(epoch_of(task, epoch)) for epoch in range(1, 41)), Counter())
    whole = found["visual_grounding"]
    assert found["caption"] / whole == pytest.approx(0.25 / 1.5, rel=0.2)
    assert found["qa"] / whole == pytest.approx(0.5 / 1.5, rel=0.2)
    # a third of the rows are boxes
    assert found["text_infilling"] / whole == pytest.approx(2 / 8 / 0.5, rel=0.2)


def test_rows_of_tasks_that_are_left_out_give_way_to_others(files):
    task = set_up(
        files,
        "--task-weights=" + ",".join(f"{name}=0" for name in TASKS if name != "qa"),
        without=("--neg-sample-dir",),
    )[1]
    batches = epoch_of(task)
    assert counts_of(batches) == {"qa": ROWS} and {batch["nsentences"] for batch in batches} == {4}


@pytest.mark.parametrize("share, kept", [(40, 1), (1, 0.02)])
def test_rare_rows_and_small_weights_end_no_run_and_bring_few_groups(files, tmp_path, share, kept):
    """One row in ``share`` has a task that is trained, ``kept`` times on average."""
    rows = [line.split("\t") for line in (files.folder / "pairs.tsv").read_text().splitlines()]
    mixed = write_rows(tmp_path / "mixed.tsv", rows[:1] + [rows[1 if share > 1 else 0]] * 399)
    rare = SimpleNamespace(**{**vars(files), "pairs": f"{mixed},{files.pairs.split(',')[1]}"})
    others = ",".join(f"{name}=0" for name in PAIR_TASKS if name != "caption")
    task = set_up(
        rare,
        f"--task-weights=caption={kept},{others}",
        without=("--neg-sample-dir", "--image-data", "--detection-data"),
    )[1]
    dataset = task.datasets["train"]
    dataset.ordered_indices()
    found = [dataset[index] for index in range(0, 400, 50)]
    assert {sample["task"] for pairs, _ in found for sample in pairs} == {"caption"}
    assert max(len(extras) for _, extras in found) <= 2 * (12 + 1)


def test_a_validation_leaves_out_rows_of_tasks_that_are_not_trained(files, network):
    weights = "--task-weights=" + ",".join(
        f"{name}=0" for name in TASKS if name not in ("qa", "detection")
    )
    task = set_up(files, weights, without=("--neg-sample-dir",))[1]
    batches = list(
        task.get_batch_iterator(task.dataset("valid"), max_sentences=1).next_epoch_itr(
            shuffle=False
        )
    )
    # fairseq puts a training batch in place of an empty one
    assert all(batches) and counts_of(batches) == {"qa": 2, "detection": 2}
    none = SimpleNamespace(
        **{
            **vars(files),
            "pairs": (
                f"{files.folder / 'pairs.tsv'},{write_rows(files.folder / 'box.tsv', [pair(2)])}"
            ),
        }
    )
    task = set_up(
        none,
        weights.replace("detection", "qa"),
        "--task-weights=qa=1,detection=0," + weights.split("=", 1)[1],
        without=("--neg-sample-dir",),
    )[1]
    with pytest.raises(
        UserError, match="box.tsv: expects rows of the tasks .*, found none to evaluate"
    ):
        task.dataset("valid").ordered_indices()


@pytest.mark.parametrize("name", EXTRA_TASKS)
def test_a_missing_file_leaves_its_task_out(files, name):
    flag = f"--{name.split('_')[0]}-data"
    assert set(counts_of(epoch_of(set_up(files, without=(flag,))[1]))) == set(TASKS) - {name}


def test_texts_alone_can_be_trained_without_pairs_and_negatives(files):
    none = SimpleNamespace(**{**vars(files), "pairs": "none"})
    cfg, task = set_up(none, without=("--image-data", "--detection-data", "--neg-sample-dir"))
    batches = epoch_of(task)
    assert counts_of(batches) == {"text_infilling": 6}  # 5 rows by two
    assert all(batch[0] == {} for batch in batches)
    loss, size, log = task.build_criterion(cfg.criterion)(
        task.build_model(cfg.model).train(), batches[0]
    )
    assert (
        size == 1
        and loss.item() == pytest.approx(log["loss_v2"].item() / log["sample_size_v2"])
        and log["sample_size_v1"] == 0
    )


@pytest.mark.parametrize(
    "weights, message",
    [
        ("speech=1", "unknown task 'speech'; known: caption, qa, visual_grounding"),
        ("qa=-1", r"a weight is a number from 0 to 1e\+06, found qa=-1"),
        ("qa=many", "found qa=many"),
        ("qa", "--task-weights expects 'qa=2,detection=0' or JSON, found 'qa'"),
        ("{qa: 2}", "or JSON, found"),
        (
            ",".join(f"{name}=0" for name in TASKS),
            "expects files of at least one task whose weight is not 0, found none",
        ),
    ],
)
def test_wrong_weights_are_refused(files, weights, message):
    with pytest.raises(UserError, match=message):
        set_up(files, f"--task-weights={weights}")


def test_images_that_workers_crop_are_not_decoded_on_the_device(files):
    with pytest.raises(UserError, match="--decode-on-device: expects a task that shows whole"):
        set_up(files, "--decode-on-device")


# --- steps
# --------------------------------------------------------------------------------------------------


def test_a_step_averages_each_group_and_counts_once(ready, network):
    _, task = ready
    model, criterion = network
    model.eval()  # no dropout
    batches = epoch_of(task)
    both, alone = (
        next(batch for batch in batches if isinstance(batch, tuple) == pair)
        for pair in (True, False)
    )
    plain = [criterion(model, part) for part in (*both, alone)]
    seen = []
    task.train_step(
        alone,
        model,
        lambda model, sample, update_num: seen.append(sample) or (torch.zeros(()), 1, {}),
        Optimizer(),
        0,
    )
    # averaged as well, and not weighed by its tokens
    assert [set(part) for part in seen[0]] == [set(alone)]
    criterion.cfg.sample_patch_num = 0
    loss, size, log = criterion(without_dropout(model), both)
    assert size == log["sample_size"] == 1
    torch.testing.assert_close(
        loss, plain[0][0] / plain[0][1] + plain[1][0] / plain[1][1], rtol=1e-4, atol=1e-4
    )
    loss, size, other = criterion(model, seen[0])
    torch.testing.assert_close(loss, plain[2][0] / plain[2][1], rtol=1e-4, atol=1e-4)
    assert size == 1 and list(other) == list(log)  # ranks add them up key by key


class Optimizer:
    def backward(self, loss):
        pass


def without_dropout(model):
    """The model in training, but with nothing random and with batch norms at rest."""
    for module in model.modules():
        if (
            isinstance(module, (torch.nn.Dropout, torch.nn.BatchNorm2d))
            or "drop" in type(module).__name__.lower()
        ):
            module.eval()
    return model


def test_only_pairs_are_seen_by_some_of_their_patches(ready, network):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, **net_input):
            seen.append(net_input.get("sample_patch_num"))
            return torch.zeros(*net_input["prev_output_tokens"].shape, len(ready[1].vocabulary)), {}

    criterion = ready[1].build_criterion(ready[0].criterion)
    both = next(batch for batch in epoch_of(ready[1]) if isinstance(batch, tuple))
    criterion(Spy().train(), both)
    criterion(Spy().eval(), both)
    criterion(Spy().train(), ({}, both[1]))
    assert seen == [3, None, None, None, None]


def test_figures_of_the_tasks_add_up_to_those_of_the_batch(ready, network):
    _, task = ready
    both = next(batch for batch in epoch_of(task) if isinstance(batch, tuple))
    for part in both:
        _, _, log = network[1](network[0].eval(), {**part, "conf": torch.ones(len(part["conf"]))})
        assert sum(log[f"_{name}_tokens"] for name in TASKS) == log["ntokens"]
        assert sum(log[f"_{name}_nll"].item() for name in TASKS) == pytest.approx(
            log["nll_loss"].item(), rel=1e-5
        )
    # auxiliary rows weigh twice, their figures do not
    doubled = network[1](network[0].eval(), both[1])[2]
    assert sum(doubled[f"_{name}_nll"].item() for name in TASKS) == pytest.approx(
        doubled["nll_loss"].item() / 2, rel=1e-5
    )


def reduced(task, criterion, logs: list[dict]) -> dict:
    from fairseq.logging import metrics

    with metrics.aggregate(new_root=True) as aggregator:
        for log in logs:
            task.reduce_metrics([log], criterion)
    return aggregator.get_smoothed_values()


def test_perplexity_is_that_of_a_token(ready, network):
    both = next(batch for batch in epoch_of(ready[1]) if isinstance(batch, tuple))
    log = network[1](network[0].train(), both)[2]
    tokens, nll = (
        sum(float(log[f"_{name}_{count}"]) for name in TASKS) for count in ("tokens", "nll")
    )
    found = reduced(ready[1], network[1], [log, log])
    assert (
        found["ppl"] == pytest.approx(np.exp(nll / tokens), rel=1e-3)
        and found["nll_loss"] > 1.5 * nll / tokens
    )


def validate(task, network, ranks: int, size: int) -> dict:
    model, criterion = network
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
    with torch.no_grad():
        return reduced(
            task,
            criterion,
            [
                task.valid_step(batch, model.eval(), criterion)[2]
                for rank in batches
                for batch in rank
            ],
        )


def test_validation_has_every_task_and_does_not_depend_on_batches_and_ranks(ready, network):
    _, task = ready
    found, other = validate(task, network, 1, 4), validate(task, network, 2, 3)
    names = [f"{name}_{figure}" for name in TASKS for figure in ("loss", "acc")]
    assert set(names) <= set(found) and set(names) <= set(task.metric_names())
    assert {name: found[name] for name in ("loss", *names)} == pytest.approx(
        {name: other[name] for name in ("loss", *names)}, abs=2e-3
    )


def test_in_evaluation_splits_an_index_is_a_row_and_nothing_is_random(ready):
    dataset = ready[1].datasets["valid"]
    assert len(dataset) == 6 + 2 + 2 + 2
    first = [content(dataset.collater([dataset[index]])) for index in range(len(dataset))]
    assert [part[0][0][0] for part in first] == [f"p{n}" for n in range(100, 106)] + [
        f"{kind}{n}" for kind in "tid" for n in (100, 101)
    ]
    dataset.set_epoch(2)
    assert [content(dataset.collater([dataset[index]])) for index in range(len(dataset))] == first
    dataset.set_epoch(1)


def test_a_single_file_of_extra_rows_is_for_training_alone(files):
    _, task = set_up(files, f"--text-data={files.folder / 'texts.tsv'}")
    assert (
        "text_infilling" in task.datasets["train"].extras
        and "text_infilling" not in task.datasets["valid"].extras
    )


def test_without_validation_every_file_is_for_training_in_turn(files):
    cfg = configuration(pretraining_flags(files, "--disable-validation"))
    from fairseq import tasks

    task = tasks.setup_task(cfg.task)
    lengths = []
    for epoch in (1, 2, 3):
        task.load_dataset("train", epoch)
        lengths.append(len(task.datasets["train"]))
    assert task.has_sharded_data("train") and lengths == [ROWS, 6, ROWS]


# --- bad input
# --------------------------------------------------------------------------------------------------


def broken(files, tmp_path, name: str, row: list[str], place: int = 1):
    """The files with one row replaced: namespace as ``files``."""
    path = tmp_path / f"{name}.tsv"
    lines = (files.folder / f"{name}.tsv").read_text().splitlines()
    write_rows(
        path, [line.split("\t") if number != place else row for number, line in enumerate(lines)]
    )
    return SimpleNamespace(**{**vars(files), name: f"{path},{getattr(files, name).split(',')[1]}"})


PAIR = ["x", "IMAGE", "a cube", "", "5,4,30,25", "cube", "coco", "visual_grounding"]
IMAGE_32 = "IMAGE_32"
WRONG_ROWS = {
    "unknown type": (
        "pairs",
        [*PAIR[:7], "speech"],
        r"pairs.tsv:2: .*one of caption, qa, visual_grounding; found 'speech'",
    ),
    "no caption": (
        "pairs",
        [*PAIR[:2], " ", "", "", "", "coco", "caption"],
        "pairs.tsv:2: type 'caption' expects caption with at least one word, found ' '",
    ),
    "no answer": (
        "pairs",
        [*PAIR[:2], "", "who?", "", "", "vqa", "qa"],
        "pairs.tsv:2: type 'qa' expects answers with at least one word, found ''",
    ),
    "no box": (
        "pairs",
        [*PAIR[:4], "1,2,3", "", "vg", "visual_grounding"],
        "pairs.tsv:2: expects a box",
    ),
    "no image": ("pairs", ["x", "????", *PAIR[2:]], "pairs.tsv:2: expects an image"),
    "empty text": (
        "texts",
        ["t", " "],
        "texts.tsv:2: type 'text' expects text with at least one word, found ' '",
    ),
    "size of image": (
        "images",
        ["i", "IMAGE", "1 2 3 4"],
        r"images.tsv:2: .* 32 x 32 pixels, .* found 40 x 30.*ofa tokenizer encode",
    ),
    "number of codes": (
        "images",
        ["i", IMAGE_32, "1 2 3"],
        r"images.tsv:2: expects 4 image codes \(2 x 2\), found 3",
    ),
    "code out of range": (
        "images",
        ["i", IMAGE_32, "1 2 3 16"],
        "images.tsv:2: expects image codes from 0 to 15, found 16",
    ),
    "code no number": (
        "images",
        ["i", IMAGE_32, "1 2 3 x"],
        "images.tsv:2: expects image codes, integers",
    ),
    "objects": (
        "objects",
        ["d", "IMAGE", "1,2,3,4,dog"],
        "objects.tsv:2: detection expects objects",
    ),
    "object outside": (
        "objects",
        ["d", "IMAGE", "50,2,80,20,1,dog"],
        "objects.tsv:2: expects a box inside the image",
    ),
}


def with_images(row: list[str]) -> list[str]:
    from caption_files import make_image

    return [
        {"IMAGE": make_image("red"), IMAGE_32: make_image("red", (32, 32))}.get(field, field)
        for field in row
    ]


def read_all(dataset) -> None:
    for name, rows in dataset.files.items():
        for row in range(len(rows)):
            dataset.samples(name, row, dataset.builder.streams(1, row, "test"))


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_wrong_row_is_named_with_what_is_wrong(files, tmp_path, case):
    name, row, message = WRONG_ROWS[case]
    wrong = broken(files, tmp_path, name, with_images(row))
    with pytest.raises(UserError, match=message):
        read_all(set_up(wrong)[1].datasets["train"])


def test_the_spelling_of_upstreams_readme_is_understood(files, tmp_path):
    row = with_images([*PAIR[:7], "visual gronunding"])
    dataset = set_up(broken(files, tmp_path, "pairs", row))[1].datasets["train"]
    assert [sample["task"] for sample in dataset[1][0]] == [
        "visual_grounding",
        "grounded_captioning",
    ]


def test_broken_rows_are_passed_over_as_often_as_allowed_and_named(files, tmp_path, caplog):
    wrong = broken(files, tmp_path, "pairs", ["x", "????", *PAIR[2:]])
    wrong = broken(wrong, tmp_path, "objects", objects_row(1)[:2] + ["nonsense"])
    task = set_up(wrong, "--skip-bad-rows=2")[1]
    dataset = task.datasets["train"]
    for _ in range(2):  # a row counts once
        read_all(dataset)
    named = [record.message for record in caplog.records if "skipped broken row" in record.message]
    assert (
        len(named) == 2
        and "1 of at most 2: " in named[0]
        and "pairs.tsv:2: expects an image" in named[0]
        and "objects.tsv:2" in named[1]
    )
    # the replacement too
    assert list(map(content, epoch_of(task))) == list(map(content, epoch_of(task, num_workers=2)))
    with pytest.raises(
        UserError,
        match="objects.tsv:2: .*; this is broken row 2, and --skip-bad-rows 1 skips 1: fix",
    ):
        read_all(set_up(wrong, "--skip-bad-rows=1")[1].datasets["train"])


def test_a_file_of_broken_rows_ends_the_run_however_many_are_allowed(files, tmp_path):
    nothing = write_rows(tmp_path / "nothing.tsv", [["t", " "]] * 3)
    wrong = SimpleNamespace(**{**vars(files), "texts": f"{nothing},{files.texts.split(',')[1]}"})
    with pytest.raises(
        UserError, match=r"nothing.tsv:\d: type 'text' expects text.*; 100 rows in turn were broken"
    ):
        read_all(set_up(wrong, "--skip-bad-rows=10")[1].datasets["train"])


def test_equal_rows_of_two_files_are_two_broken_rows(files, tmp_path, caplog):
    names = []
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        names.append(
            broken(files, tmp_path / part, "pairs", ["x", "????", *PAIR[2:]]).pairs.split(",")[0]
        )
    both = SimpleNamespace(**{**vars(files), "pairs": ",".join(names)})
    from fairseq import tasks

    task = tasks.setup_task(
        configuration(pretraining_flags(both, "--disable-validation", "--skip-bad-rows=2")).task
    )
    for epoch in (1, 2):
        task.load_dataset("train", epoch)
        read_all(task.datasets["train"])
    named = [record.message for record in caplog.records if "skipped broken row" in record.message]
    assert len(named) == 2 and f"{names[0]}:2: " in named[0] and f"{names[1]}:2: " in named[1]


def test_a_run_that_goes_on_takes_its_broken_rows_along(files, tmp_path, caplog):
    wrong = broken(files, tmp_path, "pairs", ["x", "????", *PAIR[2:]])
    first, resumed = (set_up(wrong, "--skip-bad-rows=1")[1] for _ in range(2))
    read_all(first.datasets["train"])
    resumed.load_run_state(first.run_state())
    caplog.clear()
    read_all(resumed.datasets["train"])
    assert not [record for record in caplog.records if "skipped broken row" in record.message]


def test_processes_tell_one_another_of_broken_rows_at_the_beginning_of_an_epoch(
    files, tmp_path, monkeypatch
):
    task = set_up(broken(files, tmp_path, "pairs", ["x", "????", *PAIR[2:]]), "--skip-bad-rows=1")[
        1
    ]
    read_all(task.datasets["train"])
    task.begin_epoch(2, None)
    monkeypatch.setattr("ofa.tasks.fairseq_mixture.of_all_ranks", lambda names: [names, [17]])
    with pytest.raises(UserError, match="all processes together met 2 broken rows"):
        task.begin_epoch(3, None)


@pytest.mark.parametrize(
    "more, without, message",
    [
        (
            (),
            ("--neg-sample-dir",),
            (
                "--neg-sample-dir: expects the folder of all_captions.txt.*ofa negatives"
                " build.*image_text_matching=0"
            ),
        ),
        (
            ("--neg-sample-dir=FOLDER",),
            (),
            "all_captions.txt and object.txt and type2ans.json is missing",
        ),
        (
            ("--text-data=FOLDER/empty.tsv",),
            (),
            "empty.tsv: expected rows of tab-separated columns, found an empty file",
        ),
        (("--text-data=FOLDER/none.tsv",), (), "none.tsv: expected a TSV file, No such file"),
        (
            ("--selected-cols=0,1,2",),
            (),
            "--selected-cols: task 'vision_language' expects 8 columns .*, found 3",
        ),
        (("--detection-selected-cols=0,1",), (), "--detection-selected-cols: .* expects 3 columns"),
        (("--image-selected-cols=0,1,7",), (), "asks for column 7, found 3 columns"),
        (("--patch-image-size=96",), (), "larger than --max-image-size 64"),
        (("--max-resize=16",), (), "--max-resize 16: expects at least --patch-image-size 32"),
        (("--code-image-size=24",), (), "--code-image-size 24: expects a multiple of 16"),
        (
            ("--code-image-size=256", "--max-image-size=512"),
            (),
            "1024 codes and the end do not fit",
        ),
        (("--skip-bad-rows=-1",), (), "--skip-bad-rows expects a non-negative number of rows"),
        (("--mask-length=sentence",), (), "--mask-length expects one of"),
    ],
)
def test_wrong_options_and_files_are_refused_in_one_message(
    files, tmp_path, more, without, message
):
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(UserError, match=message):
        set_up(files, *(flag.replace("FOLDER", str(tmp_path)) for flag in more), without=without)


def test_the_upstream_flags_are_all_known(files):
    """Those of run_scripts/pretraining of upstream; what has no meaning on a CPU is parsed
    all the same."""
    upstream = (
        "--freeze-resnet",
        "--disable-validation",
        "--keep-last-epochs=15",
        "--save-interval=1",
        "--save-interval-updates=6000",
        "--fp16",
        "--fp16-scale-window=128",
        "--max-epoch=50",
        "--lr=1e-4",
        "--warmup-ratio=0.01",
        "--batch-size=4",
        "--update-freq=1",
        "--reset-optimizer",
        "--reset-dataloader",
        "--reset-meters",
        "--max-src-length=80",
        "--max-tgt-length=30",
        "--patch-image-size=384",
        "--max-image-size=512",
        "--sample-patch-num=196",
        "--fixed-validation-seed=7",
        "--pretrain-seed=7",
        "--mask-ratio=0.3",
        "--random-ratio=0.0",
        "--keep-ratio=0.0",
        "--mask-length=span-poisson",
        "--poisson-lambda=3.0",
        "--replace-length=1",
        "--code-image-size=128",
    )
    cfg = configuration(pretraining_flags(files, *upstream))
    assert (cfg.task.max_image_size, cfg.task.code_image_size, cfg.model.code_image_size) == (
        512,
        128,
        128,
    )
    assert cfg.criterion.sample_patch_num == 196 and cfg.task.disable_validation


def test_images_are_enlarged_as_in_upstream_where_it_had_that_size():
    from ofa.task.pretraining_tasks import PretrainingOptions

    assert [PretrainingOptions(patch_image_size=size).enlargement for size in (384, 256, 64)] == [
        (480, 672),
        (480, 672),
        (80, 112),
    ]


def test_pair_tasks_and_extra_tasks_are_the_eight():
    assert len(TASKS) == 8 and not set(PAIR_TASKS) & set(EXTRA_TASKS)
    assert np.unique(TASKS).size == 8
