"""Question answering, entailment and classes through fairseq's own doors: upstream flags in,
batches and scores out."""

import json
import pickle
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from answer_files import (
    ANSWERS,
    ROWS,
    TASKS,
    class_row,
    flags,
    make_vocabulary,
    snli_row,
    vqa_row,
    write_rows,
)
from golden import load_json

COUNT = 7
METRICS = {"vqa_gen": "vqa_score", "snli_ve": "snli_score", "image_classify": "score"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    found = SimpleNamespace(folder=folder, vocabulary=make_vocabulary(folder / "vocabulary"))
    for task in TASKS:
        write_rows(folder / f"{task}.tsv", map(ROWS[task], range(COUNT)))
    return found


def set_up(files, task: str, *more: str, data: str = "", splits=("train", "valid")):
    """Configuration and task of upstream's flags, its files loaded."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import ofa

    ofa.register_fairseq_plugin()
    words = flags(task, data or f"{files.folder}/{task}.tsv", files.vocabulary, *more)
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )
    found = tasks.setup_task(cfg.task)
    for split in splits:
        found.load_dataset(split)
    return cfg, found


@pytest.fixture(scope="module", params=TASKS)
def ready(request, files):
    """Task, model and criterion."""
    cfg, task = set_up(files, request.param)
    return SimpleNamespace(
        name=request.param,
        task=task,
        model=task.build_model(cfg.model).eval(),
        criterion=task.build_criterion(cfg.criterion),
    )


def batch_of(task, split: str = "valid", rows=range(3)) -> dict:
    return task.datasets[split].collater([task.datasets[split][row] for row in rows])


def test_a_batch_trains_a_model_among_its_answers(ready):
    batch = batch_of(ready.task, "train")
    loss, sample_size, _ = ready.criterion(ready.model, batch, update_num=0)
    assert torch.isfinite(loss) and sample_size == batch["ntokens"]
    masks, target = batch["constraint_masks"], batch["target"]
    scored = target.ne(1)
    assert masks.shape == (*target.shape, len(ready.task.vocabulary)) and masks.dtype == torch.bool
    assert masks.gather(2, target[..., None])[..., 0][scored].all(), "every target is allowed"
    assert masks[scored].sum(1).max() <= len(ready.task.answers) + 1, "and little else"


def test_validation_figures_do_not_depend_on_ranks_or_batch_size(ready):
    from fairseq.logging import metrics

    def validate(ranks: int, size: int) -> dict:
        with metrics.aggregate(new_root=True) as aggregator:
            shards = [
                [
                    batch
                    for batch in ready.task.get_batch_iterator(
                        ready.task.dataset("valid"),
                        max_sentences=size,
                        num_shards=ranks,
                        shard_id=rank,
                    ).next_epoch_itr(shuffle=False)
                    if batch
                ]
                for rank in range(ranks)
            ]
            for step in range(max(map(len, shards))):
                batches = [own[step] for own in shards if step < len(own)]
                logs = [
                    ready.task.valid_step(batch, ready.model, ready.criterion)[2]
                    for batch in batches
                ]
                ready.task.reduce_metrics(
                    [{key: sum(log[key] for log in logs) for key in logs[0]}], ready.criterion
                )
        return aggregator.get_smoothed_values()

    whole, name = validate(1, COUNT), METRICS[ready.name]
    assert 0 <= whole[name] <= 1 and name in ready.task.metric_names()
    for ranks, size in ((1, 2), (2, 2)):
        parts = validate(ranks, size)
        assert parts[name] == whole[name] and parts["loss"] == pytest.approx(
            whole["loss"], abs=2e-3
        )


def test_summed_counts_become_the_recorded_figure(ready):
    from fairseq.logging import metrics

    recorded = load_json("metrics_reduce")["tasks"][ready.name]
    with metrics.aggregate(new_root=True) as aggregator:
        ready.task.reduce_metrics(recorded["logging_outputs"], ready.criterion)
    name = METRICS[ready.name]
    assert aggregator.get_smoothed_values()[name] == recorded["reduced"][name]


def test_answers_are_those_of_the_set_however_they_are_found(ready):
    from ofa.task.task_spec import Decoding

    batch, task = batch_of(ready.task), ready.task
    generator = task.generator_for([ready.model], Namespace(beam=3, unnormalized=True), Decoding())
    searched = task.predict(batch, [ready.model], generator, Decoding(), count=2)
    ranked = task.predict(batch, [ready.model], generator, Decoding(rank=True), count=3)
    for by_search, by_rank in zip(searched, ranked):
        assert by_search.text in task.answers.texts and by_rank.text in task.answers.texts
        scores = [by_rank.score, *(other.score for other in by_rank.others)]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        if by_search.text == by_rank.text and ready.name == "snli_ve":
            assert by_search.score == pytest.approx(by_rank.score, abs=1e-3)


def test_the_generator_has_the_trie_and_both_attributes_can_be_changed(ready):
    generator = ready.task.build_generator([ready.model], Namespace(beam=2))
    assert generator.constraint_trie is ready.task.answers.trie and generator.zero_shot is False
    generator.zero_shot, generator.constraint_trie = True, None
    batch = batch_of(ready.task)
    found = generator.generate([ready.model], batch, prefix_tokens=ready.task.prefix_tokens(batch))
    assert len(found) == 3 and generator.zero_shot and generator.constraint_trie is None


def test_datasets_can_be_sent_to_another_process(ready):
    dataset = pickle.loads(pickle.dumps(ready.task.datasets["train"]))
    assert torch.equal(dataset[3]["patch_image"], ready.task.datasets["train"][3]["patch_image"])


def test_training_images_of_classes_change_with_the_epoch_and_are_the_same_again(files):
    dataset = set_up(files, "image_classify", splits=["train"])[1].datasets["train"]
    first, again = dataset[2]["patch_image"], dataset[2]["patch_image"]
    dataset.set_epoch(2)
    assert torch.equal(first, again) and not torch.equal(first, dataset[2]["patch_image"])


@pytest.mark.parametrize(
    "prompt_type, lengths", [("none", {1}), ("src", {14, 15}), ("prev_output", {13, 14})]
)
def test_prompts_may_be_ragged(files, prompt_type, lengths):
    rows = [
        (*row[:2], row[2] + (" now" if number else ""), *row[3:])
        for number, row in enumerate(map(vqa_row, range(2)))
    ]
    path = write_rows(files.folder / "ragged.tsv", rows)
    batch = batch_of(
        set_up(files, "vqa_gen", f"--prompt-type={prompt_type}", data=str(path))[1], rows=range(2)
    )
    prompts = batch["decoder_prompts"]
    found = {len(prompt) for prompt in prompts}
    assert len(found) == len(lengths) and prompts.dtype == (object if len(found) > 1 else np.int64)
    assert batch["prefix_tokens"].shape == (2, max(found) - 1)
    assert batch["net_input"]["prev_output_tokens"].shape == batch["target"].shape


@pytest.mark.parametrize(
    "given, wanted",
    [
        (["--val-inference-type=beamsearch"], (False, True)),
        (["--unconstrained-training"], (False, True)),
        ([], (True, True)),
    ],
)
def test_validation_ranks_or_searches_as_told(files, given, wanted):
    _, task = set_up(files, "vqa_gen", *given, splits=["valid"])
    decoding = task.spec.decoding(task.options(), False)
    assert (decoding.rank, decoding.constrained) == wanted
    assert (task.answers is None) == ("--unconstrained-training" in given)
    zero_shot = task.spec.decoding(task.options(), True)
    assert zero_shot.zero_shot and not zero_shot.rank and not zero_shot.constrained


def test_a_sixth_column_is_passed_over(files):
    plain, more = (
        set_up(files, "vqa_gen", f"--selected-cols={columns}")[1]
        for columns in ("0,5,2,3,4", "0,5,2,3,4,1")
    )
    assert torch.equal(plain.datasets["valid"][2]["target"], more.datasets["valid"][2]["target"])


def test_rows_without_answers_can_be_predicted_and_are_not_scored(files):
    path = write_rows(
        files.folder / "test.tsv", [vqa_row(number, answers="") for number in range(3)]
    )
    cfg, task = set_up(files, "vqa_gen", data=str(path), splits=["test"])
    model = task.build_model(cfg.model).eval()
    batch = batch_of(task, "test")
    _, _, log = task.valid_step(batch, model, task.build_criterion(cfg.criterion))
    assert log["_vqa_cnt"] == 0 and log["_vqa_score_sum"] == 0 and np.isfinite(float(log["loss"]))
    assert (task.rows_validated, task.rows_without_reference) == (3, 3)


# --- bad input: one message each
# ---------------------------------------------------------------------------


def refused(files, task: str, rows, *more: str, split: str = "train") -> str:
    """What is said about a file."""
    from ofa.errors import UserError

    path = write_rows(files.folder / "bad.tsv", rows)
    with pytest.raises(UserError) as raised:
        _, found = set_up(files, task, *more, data=str(path), splits=[split])
        for row in range(len(found.datasets[split])):
            found.datasets[split][row]
    return str(raised.value)


def test_every_training_answer_outside_the_set_is_listed_with_its_place(files):
    rows = [
        vqa_row(0),
        vqa_row(1, "1.0|!+a giraffe"),
        vqa_row(2, "0.6|!+purple rain"),
        vqa_row(3, "1.0|!+a giraffe"),
    ]
    message = refused(files, "vqa_gen", rows)
    assert "3 of 4 rows" in message and f"the {len(ANSWERS)} answers of --ans2label-dict" in message
    assert (
        "'a giraffe': 2 rows, first" in message
        and "bad.tsv:2" in message
        and "'purple rain': 1 row, first" in message
    )
    assert (
        message.index("giraffe") < message.index("purple rain") and "ofa answers build" in message
    )
    assert "--unconstrained-training" in message


def test_the_training_files_of_later_epochs_are_looked_at_before_the_first(files):
    from ofa.errors import UserError

    first = write_rows(files.folder / "first.tsv", [vqa_row(0)])
    second = write_rows(files.folder / "second.tsv", [vqa_row(0), vqa_row(1, "1.0|!+a giraffe")])
    with pytest.raises(
        UserError, match="1 of 3 rows.*\n.*'a giraffe': 1 row, first .*second.tsv:2"
    ):
        set_up(
            files, "vqa_gen", data=f"{first},{second},{files.folder}/vqa_gen.tsv", splits=["train"]
        )


def test_an_answer_longer_than_targets_is_missing_too(files):
    message = refused(
        files, "vqa_gen", [vqa_row(0), vqa_row(1, "1.0|!+dark red")], "--max-tgt-length=1"
    )
    assert "'dark red' (too long): 1 row" in message and "--max-tgt-length" in message


def test_without_a_set_every_answer_is_learned(files):
    path = write_rows(files.folder / "free.tsv", [vqa_row(0, "1.0|!+a giraffe")])
    _, task = set_up(files, "vqa_gen", "--unconstrained-training", data=str(path))
    assert task.datasets["train"][0]["constraint_mask"] is None


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_label_file_of_another_dataset_is_recognized(files, split):
    labels = files.folder / "animals.json"
    labels.write_text(json.dumps({"golden retriever": 0, "tabby cat": 1}))
    message = refused(
        files, "image_classify", map(class_row, range(3)), f"--ans2label-file={labels}", split=split
    )
    assert (
        "animals.json" in message
        and "label file of another dataset" in message
        and "'red': 1 row" in message
    )


@pytest.mark.parametrize(
    "task, row, words",
    [
        ("vqa_gen", (*vqa_row(0)[:5], ""), ("bad.tsv:1", "image with every question")),
        (
            "vqa_gen",
            vqa_row(0, "often|!+yes"),
            ("bad.tsv:1", "'often|!+yes'", "number such as 0.6"),
        ),
        ("vqa_gen", vqa_row(0, "1.0|!+"), ("bad.tsv:1", "'1.0|!+'")),
        ("vqa_gen", vqa_row(0, "1.0|!+yes&&"), ("bad.tsv:1", "''")),
        ("vqa_gen", vqa_row(0, "nan|!+yes"), ("bad.tsv:1", "'nan|!+yes'")),
        ("vqa_gen", vqa_row(0, ""), ("bad.tsv:1", "expects answers")),
        ("snli_ve", snli_row(0, "perhaps"), ("bad.tsv:1", "'perhaps'", "entailment")),
        ("snli_ve", snli_row(0, ""), ("bad.tsv:1", "entailment")),
    ],
)
def test_a_wrong_row_is_named_with_what_is_expected(files, task, row, words):
    message = refused(files, task, [row])
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--prompt-type=both", ("--prompt-type", "none, src, prev_output")),
        ("--val-inference-type=best", ("--val-inference-type", "allcand")),
        ("--ans2label-dict={yes}", ("--ans2label-dict", "JSON")),
        ("--ans2label-dict={}", ("--ans2label-dict", "ofa answers build")),
        ("--ans2label-file=nowhere.pkl", ("nowhere.pkl", "label file")),
        ("--valid-batch-size=0", ("--valid-batch-size", "at least 1")),
    ],
)
def test_a_wrong_flag_is_answered_by_one_sentence(files, flag, words):
    message = refused(files, "vqa_gen", [vqa_row(0)], flag)
    assert all(word in message for word in words), message
