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
