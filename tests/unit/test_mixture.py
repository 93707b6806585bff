"""Rows of several tasks as one: every row in its turn, by numbers alone; and batches of samples
of different tasks."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ofa.data.collate import collate
from ofa.data.fairseq_mixture import MixtureDataset, Part
from ofa.task.task_spec import TaskOptions


def mixture_of(
    rows: list[int],
    rates: list[float],
    shuffle: bool = True,
    seed: int = 1,
    buffer: int | None = None,
) -> MixtureDataset:
    """Files of these numbers of rows, each called by its number."""
    parts = {
        number: Part(range(count), rate, (number,))
        for number, (count, rate) in enumerate(zip(rows, rates))
    }
    builder: Any = SimpleNamespace(options=TaskOptions())
    dataset = MixtureDataset(parts, [builder], True, shuffle, buffer)
    dataset.set_seed(seed)
    return dataset


def locate(mixture: MixtureDataset, index: int, epoch: int) -> tuple[int, int]:
    mixture.set_epoch(epoch)
    return mixture.locate(index)


def order(mixture: MixtureDataset, epoch: int) -> np.ndarray:
    mixture.set_epoch(epoch)
    return mixture.ordered_indices()


def rows_of(mixture: MixtureDataset, epochs: range) -> list[Counter]:
    """How often each row of each task is shown in some epochs."""
    shown: list[Counter] = [Counter() for _ in mixture.parts]
    for epoch in epochs:
        for index in order(mixture, epoch):
            task, row = mixture.locate(index)
            shown[task][row] += 1
    return shown


@pytest.mark.parametrize("shuffle", [True, False])
def test_weights_say_how_often_the_rows_of_a_task_are_shown(shuffle):
    first, second, third = rows_of(mixture_of([10, 4, 7], [0.5, 2.0, 1.0], shuffle), range(1, 5))
    assert first == Counter({row: 2 for row in range(10)})  # in two epochs of four
    assert second == Counter({row: 8 for row in range(4)})
    assert third == Counter({row: 4 for row in range(7)})


def test_half_of_the_rows_are_shown_in_one_epoch_and_the_others_in_the_next():
    mixture = mixture_of([10], [0.5])
    one, two = (set(rows_of(mixture, range(epoch, epoch + 1))[0]) for epoch in (1, 2))
    assert len(one) == len(two) == 5 and one | two == set(range(10))


def test_the_row_of_a_sample_depends_on_seed_epoch_and_index_alone():
    mixture, again, other = (mixture_of([9, 5], [1.0, 1.0], seed=seed) for seed in (3, 3, 4))
    found = {index: locate(mixture, index, 2) for index in reversed(range(14))}
    assert found == {index: locate(again, index, 2) for index in range(14)}
    assert found != {index: locate(mixture, index, 3) for index in range(14)}
    assert found != {index: locate(other, index, 2) for index in range(14)}
    assert not np.array_equal(order(mixture, 1), order(mixture, 2))


def test_the_order_is_the_one_that_earlier_checkpoints_are_in_the_middle_of():
    """Recorded before joint training and pretraining were one data set."""
    mixture = mixture_of([5, 3], [1.0, 2.0], seed=7)
    located = [locate(mixture, index, 2) for index in order(mixture, 2)]
    assert [row for task, row in located if task == 0] == [3, 1, 0, 2, 4]
    assert [row for task, row in located if task == 1] == [1, 2, 1, 2, 0, 0]
    assert [task for task, _ in located] == [0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1]


def test_without_shuffling_tasks_are_evenly_spread_and_rows_stay_in_their_order():
    mixture = mixture_of([6, 3], [1.0, 1.0], shuffle=False)
    located = [mixture.locate(index) for index in order(mixture, 1)]
    assert [task for task, _ in located] == [0, 1, 0, 0, 1, 0, 0, 1, 0]
    assert [row for task, row in located if task == 0] == list(range(6))


def test_a_small_weight_shows_a_row_at_least():
    assert mixture_of([10, 3], [1.0, 0.01]).counts() == {0: 10, 1: 1}


def test_rows_of_a_shuffle_buffer_are_read_near_one_another():
    mixture = mixture_of([400, 100], [1.0, 2.0], buffer=10)
    assert rows_of(mixture, range(1, 3)) == [
        Counter({row: 2 for row in range(400)}),
        Counter({row: 4 for row in range(100)}),
    ]
    found = [mixture.locate(index) for index in order(mixture, 1)]
    first = [row for task, row in found if task == 0]
    blocks = [len({row // 10 for row in first[start : start + 40]}) for start in range(0, 400, 40)]
    assert np.mean(blocks) < 15  # of 40; rows in any order are of 25
    assert {task for task, _ in found[:20]} == {0, 1}


def sample(tokens: list[int], **more) -> dict:
    target = torch.tensor(tokens)
    return {
        "source": torch.tensor([0, 2]),
        "target": target,
        "prev_output_tokens": torch.tensor([0, *tokens[:-1]]),
        **more,
    }


def test_what_only_some_samples_of_a_batch_have_changes_nothing_for_the_others():
    image = torch.ones(3, 2, 2)
    mask = torch.eye(4, dtype=torch.bool)[:2]
    question = sample(
        [3, 2],
        id=7,
        patch_image=image,
        patch_mask=torch.tensor([True]),
        conf=torch.tensor([0.6]),
        ref_dict={"yes": 0.6},
        constraint_mask=mask,
        decoder_prompt=np.array([0, 5]),
        prefix_tokens=torch.tensor([5]),
        w_resize_ratio=torch.tensor(2.0),
        region_coord=torch.ones(4),
    )
    text = sample([3, 3, 2])
    batch = collate([text, question])
    assert batch["conf"].tolist() == pytest.approx([1.0, 0.6])
    assert batch["constraint_masks"].shape == (2, 3, 4)  # as the targets
    assert batch["constraint_masks"][0].all() and batch["constraint_masks"][1, :2].equal(mask)
    assert batch["net_input"]["patch_masks"].tolist() == [False, True]
    assert not batch["net_input"]["patch_images"][0].any() and batch["net_input"]["patch_images"][
        1
    ].equal(image)
    assert batch["decoder_prompts"].tolist() == [[0], [0, 5]] and batch[
        "prefix_tokens"
    ].tolist() == [[1], [5]]
    assert batch["ref_dict"].tolist() == [{}, {"yes": 0.6}]
    assert batch["w_resize_ratios"].tolist() == [1.0, 2.0]


def test_one_and_two_images_cannot_lie_in_one_batch():
    image = torch.ones(3, 2, 2)
    with pytest.raises(ValueError, match="patch_image_2"):
        collate(
            [sample([2], patch_image=image), sample([2], patch_image=image, patch_image_2=image)]
        )
