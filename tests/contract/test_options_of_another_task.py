"""What the stored options of a checkpoint mean for another task than the one it was trained on."""

import pytest

pytest.importorskip("fairseq")

STORED = {
    "_name": "vqa_gen",
    "patch_image_size": 64,
    "bpe_dir": "vocab",
    "selected_cols": "0,5,2,3,4",
    "data": "vqa.tsv",
    "ans2label_file": "answers.json",
    "prompt_type": "none",
    "max_image_size": 64,
}


@pytest.fixture(scope="module")
def options_for():
    import ofa

    ofa.register_fairseq_plugin()
    from ofa.inference.fairseq_loading import options_for

    return options_for


@pytest.mark.parametrize("name", [None, "vqa_gen"])
def test_its_own_task_keeps_them_all(options_for, name):
    assert options_for(name, STORED) == STORED


@pytest.mark.parametrize("name", ["snli_ve", "refcoco", "caption"])
def test_another_task_takes_what_all_tasks_share(options_for, name):
    assert options_for(name, STORED) == {
        "patch_image_size": 64,
        "bpe_dir": "vocab",
        "max_image_size": 64,
    }


def test_a_task_derived_from_it_keeps_the_answers_but_not_the_columns(options_for):
    found = options_for("grounded_qa", STORED)
    assert (
        found["ans2label_file"] == "answers.json"
        and "selected_cols" not in found
        and "data" not in found
    )


def test_a_task_that_nobody_knows_any_more_shares_too(options_for):
    assert options_for("caption", {**STORED, "_name": "some_fork"}) == {
        "patch_image_size": 64,
        "bpe_dir": "vocab",
        "max_image_size": 64,
    }


LINE = "[image] what is [text:thing]? -> [label:answer]"
TEMPLATE = {**STORED, "_name": "template", "template": LINE}


@pytest.mark.parametrize("name", [None, LINE, LINE.replace(" ", "  ")])
def test_a_task_in_one_line_keeps_them_where_the_line_is_the_same(options_for, name):
    assert options_for(name, TEMPLATE) == TEMPLATE


def test_another_line_has_other_columns_and_answers(options_for):
    assert options_for("[image] what is it? -> [label]", TEMPLATE) == {
        "patch_image_size": 64,
        "bpe_dir": "vocab",
        "max_image_size": 64,
    }


@pytest.mark.parametrize("stored", [None, 7, ["[text] -> [text:a]"], "[image", "[text]" * 10**6])
def test_a_stored_line_that_is_none_is_named_with_its_file(options_for, stored):
    with pytest.raises(ValueError, match=r"^a\.pt: stored template: expected "):
        options_for(None, {**TEMPLATE, "template": stored}, "a.pt")


def test_a_stored_name_that_is_a_broken_line_is_named_with_its_file(options_for):
    with pytest.raises(ValueError, match=r"^a\.pt: stored task: expected a slot such as "):
        options_for("caption", {**STORED, "_name": "[image"}, "a.pt")
