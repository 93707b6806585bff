"""One collate for all tasks: right padding, masks padded with True, ragged prompts kept as
lists."""

import numpy as np
import torch

from ofa.data.collate import collate


def sample(tokens: list[int], **more) -> dict:
    target = torch.tensor(tokens)
    return {
        "source": torch.tensor([0, *tokens, 2]),
        "target": target,
        "prev_output_tokens": target,
        **more,
    }


def test_short_rows_are_padded_on_the_right_and_counted_without_padding():
    batch = collate([sample([5, 6, 7, 2]), sample([8, 2])])
    assert batch["target"].tolist() == [[5, 6, 7, 2], [8, 2, 1, 1]]
    assert batch["net_input"]["src_lengths"].tolist() == [6, 4]
    assert (batch["ntokens"], batch["nsentences"]) == (6, 2)
    assert set(batch) == {"nsentences", "ntokens", "net_input", "target"}
    assert set(batch["net_input"]) == {"src_tokens", "src_lengths", "prev_output_tokens"}


def test_padding_in_front_of_a_prompted_target_is_not_counted():
    assert collate([sample([1, 1, 9, 2]), sample([1, 9, 2])])["ntokens"] == 4


def test_constraint_masks_allow_everything_at_padded_positions():
    masks = [torch.eye(4, dtype=torch.bool)[:3], torch.eye(4, dtype=torch.bool)[:1]]
    joined = collate(
        [sample([5, 6, 2], constraint_mask=masks[0]), sample([2], constraint_mask=masks[1])]
    )
    assert joined["constraint_masks"].shape == (2, 3, 4)
    assert joined["constraint_masks"][1].tolist() == [
        [True, False, False, False],
        [True] * 4,
        [True] * 4,
    ]


def test_prompts_of_one_length_are_a_matrix_and_others_lists():
    equal = collate(
        [sample([2], decoder_prompt=np.array([0])), sample([2], decoder_prompt=np.array([0]))]
    )
    assert equal["decoder_prompts"].dtype == np.int64 and equal["decoder_prompts"].tolist() == [
        [0],
        [0],
    ]
    ragged = collate([sample([2], decoder_prompt=[0, 4, 5]), sample([2], decoder_prompt=[0, 4])])
    assert ragged["decoder_prompts"].dtype == object and ragged["decoder_prompts"].tolist() == [
        [0, 4, 5],
        [0, 4],
    ]


def test_keys_of_other_tasks_keep_their_upstream_names_and_types():
    extra = dict(
        id=7,
        conf=torch.tensor([0.5]),
        ref_dict={"yes": 1.0},
        target_str="yes",
        patch_mask=torch.tensor([True]),
        patch_image=torch.zeros(3, 4, 4),
        patch_image_2=torch.ones(3, 4, 4),
        code_mask=torch.tensor([False]),
        prefix_tokens=torch.tensor([4, 5]),
        w_resize_ratio=torch.tensor(0.5),
        h_resize_ratio=torch.tensor(2.0),
        region_coord=torch.arange(4.0),
        code_image="abc",
        constraint_mask=None,
    )
    batch = collate([sample([2], **extra), sample([2], **extra)])
    assert batch["id"].tolist() == [7, 7] and batch["target_strs"].tolist() == ["yes", "yes"]
    assert batch["conf"].tolist() == [0.5, 0.5] and batch["ref_dict"].dtype == object
    assert batch["constraint_masks"] is None
    assert batch["prefix_tokens"].shape == (2, 2) and batch["region_coords"].shape == (2, 4)
    assert batch["w_resize_ratios"].tolist() == [0.5, 0.5] and batch["h_resize_ratios"].shape == (
        2,
    )
    assert batch["net_input"]["patch_images_2"].shape == (2, 3, 4, 4)
    assert batch["net_input"]["code_masks"].tolist() == [False, False]
    assert batch["code_images"].tolist() == ["abc", "abc"]


def test_no_samples_give_an_empty_batch():
    assert collate([]) == {}


def facts(*samples: dict) -> dict:
    return collate(list(samples), for_device=True)["facts"]


def with_image(tokens: list[int], shown: bool, code: bool) -> dict:
    mask = torch.tensor([shown])
    image = torch.zeros(3, 2, 2)
    return sample(tokens, patch_image=image, patch_mask=mask, code_mask=torch.tensor([code]))


def test_facts_say_where_padding_is():
    even, uneven = facts(sample([5, 2]), sample([6, 2])), facts(sample([5, 2]), sample([2]))
    assert not even["source_padding"] and not even["target_padding"]
    assert uneven["source_padding"] and uneven["target_padding"]


def test_an_image_that_is_not_there_is_padding_of_the_source():
    shown, hidden = with_image([5, 2], True, False), with_image([5, 2], False, False)
    assert not facts(shown, shown)["source_padding"]
    assert facts(shown, hidden)["source_padding"] and not facts(shown, hidden)["target_padding"]


def test_facts_say_what_kind_the_targets_are():
    text, code = with_image([5, 2], True, False), with_image([5, 2], True, True)
    kinds = [facts(*batch)["image_codes"] for batch in ([text, text], [code, code], [text, code])]
    assert kinds == [False, True, None] and facts(sample([5, 2]))["image_codes"] is False
