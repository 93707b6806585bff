"""GLUE and summaries through fairseq's own doors: upstream flags in, batches and figures out,
and no image anywhere."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from fairseq_setup import configuration, task_with_data
from golden import load_json
from language_files import (
    METRICS,
    TASKS,
    flags,
    make_vocabulary,
    row,
    unlabeled,
    write_file,
    write_rows,
)

from ofa.tasks import spec_of

COUNT = 7
EVERY = tuple(TASKS)
KINDS = ("cola", "mnli", "gigaword")  # one text, two texts and three answers, a summary


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    for task in EVERY:
        write_file(folder / f"{task}.tsv", task, "train", COUNT)
    return SimpleNamespace(folder=folder, vocabulary=make_vocabulary(folder / "vocabulary"))


def set_up(files, task: str, *more: str, data: str = ""):
    """Configuration and task of upstream's flags, its files loaded."""
    cfg = configuration(flags(task, data or f"{files.folder}/{task}.tsv", files.vocabulary, *more))
    return cfg, task_with_data(cfg)


@pytest.fixture(scope="module", params=KINDS)
def ready(request, files):
    cfg, task = set_up(files, request.param)
    return SimpleNamespace(
        name=request.param,
        task=task,
        cfg=cfg,
        model=task.build_model(cfg.model).eval(),
        criterion=task.build_criterion(cfg.criterion),
    )


def batch_of(task, split: str = "valid", rows=range(3)) -> dict:
    return task.datasets[split].collater([task.datasets[split][number] for number in rows])


def test_a_batch_without_images_trains_the_model(ready):
    batch = batch_of(ready.task, "train")
    assert "patch_images" not in batch["net_input"]
    loss, sample_size, _ = ready.criterion(ready.model, batch, update_num=0)
    loss.backward()
    assert torch.isfinite(loss) and sample_size == batch["ntokens"]
    assert ready.model.decoder.embed_tokens.weight.grad.abs().sum() > 0
    ready.model.zero_grad()


def test_the_figure_of_upstreams_scripts_is_there(ready):
    assert METRICS.get(ready.name, "acc") in ready.task.metric_names()


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

    whole = validate(1, COUNT)
    names = [metric.name for metric in ready.task.spec.metrics.figures]
    assert names and all(-1 <= whole[name] <= 1 for name in names)
    parts = validate(2, 2)
    assert {name: parts[name] for name in names} == {name: whole[name] for name in names}
    assert parts["loss"] == pytest.approx(whole["loss"], abs=2e-3)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "gigaword"])
def test_summed_counts_become_the_recorded_figures(name):
    recorded = load_json("metrics_reduce")["tasks"][name]
    logs = recorded["logging_outputs"]
    counts = {key: sum(log[key] for log in logs) for key in logs[0]}
    found = {metric.name: metric.value(counts) for metric in spec_of(name).metrics.figures}
    assert found == {
        key: recorded["reduced"][key] for key in ("acc", "F1", "mcc") if key in recorded["reduced"]
    }


def test_the_best_answer_is_the_likeliest_token_behind_the_prompt(ready):
    """As upstream validates: the logits behind the last given token, among the answers."""
    if ready.name == "gigaword":
        pytest.skip("it generates")
    batch, task = batch_of(ready.task), ready.task
    firsts = {answer: tokens[0] for answer, tokens in zip(task.answers.texts, task.answers.tokens)}
    assert len(set(firsts.values())) == len(firsts)
    with torch.no_grad():
        logits = ready.model(**batch["net_input"])[0]
    places = batch["target"].ne(1).int().argmax(1)
    best = [
        max(firsts, key=lambda answer: logits[number, place, firsts[answer]])
        for number, place in enumerate(places)
    ]
    found = task.predict(batch, [ready.model], task.sequence_generator, task.decoding)
    assert [one.text for one in found] == best


def test_rows_without_labels_can_be_predicted(ready, files):
    path = write_rows(
        files.folder / "unlabeled.tsv", [unlabeled(ready.name, number) for number in range(3)]
    )
    dataset = ready.task.open_file(str(path), "test")
    labeled = ready.task.open_file(
        str(
            write_rows(
                files.folder / "labeled.tsv",
                [row(ready.name, 1, "test", number) for number in range(3)],
            )
        ),
        "test",
    )
    batches = [one.collater([one[number] for number in range(3)]) for one in (dataset, labeled)]
    found = [
        ready.task.predict(batch, [ready.model], ready.task.sequence_generator, ready.task.decoding)
        for batch in batches
    ]
    assert [one.text for one in found[0]] == [one.text for one in found[1]]
    assert ready.task.spec.row_references(dataset.rows[0]) in ({}, [])
    counts = ready.task.counts(found[0], ready.task.rows(batches[0]))
    assert counts.get("_score_cnt", 0) == 0


def test_datasets_can_be_sent_to_another_process(ready):
    dataset = pickle.loads(pickle.dumps(ready.task.datasets["train"]))
    first, again = dataset[3], ready.task.datasets["train"][3]
    assert torch.equal(first["prev_output_tokens"], again["prev_output_tokens"]) and torch.equal(
        first["source"], again["source"]
    )


def test_noise_is_new_in_every_epoch_the_same_again_and_only_in_training(files):
    _, task = set_up(files, "gigaword", "--noise-ratio=0.5")
    dataset = task.datasets["train"]
    read, target = dataset[2]["prev_output_tokens"], dataset[2]["target"]
    assert torch.equal(read, dataset[2]["prev_output_tokens"]) and torch.equal(
        target, task.datasets["valid"][2]["target"]
    )
    dataset.set_epoch(2)
    assert not torch.equal(read, dataset[2]["prev_output_tokens"])
    assert torch.equal(task.datasets["valid"][2]["prev_output_tokens"][1:], target[:-1])


def test_about_the_asked_part_is_noise_and_all_of_it_is_text(files):
    from ofa.data.sample import replaced

    tokens = torch.full((20000,), 7)
    found = replaced(tokens, 0.2, 4, 50, torch.Generator().manual_seed(1))
    assert (
        0.18 < (found != 7).float().mean() < 0.22
        and found.min() >= 4
        and found.max() == 49
        and tokens.eq(7).all()
    )


# --- bad input: one message each
# ---------------------------------------------------------------------------


def with_label(task: str, label: str) -> tuple[str, ...]:
    return (*row(task, 1, "train", 0)[:-1], label)


@pytest.mark.parametrize(
    "task, found, words",
    [
        ("cola", with_label("cola", "yes"), ("bad.tsv:1", "'cola'", "0, 1", "'yes'")),
        ("mnli", with_label("mnli", "entailment"), ("bad.tsv:1", "0, 1, 2", "ofa prepare glue")),
        ("rte", with_label("rte", "1"), ("bad.tsv:1", "entailment", "'1'")),
        ("qnli", with_label("qnli", ""), ("bad.tsv:1", "entailment")),
        ("sst2", (" ", "1"), ("bad.tsv:1", "'sst2'", "empty text")),
        ("qqp", ("0", "1", "2", "what ?", "", "1"), ("bad.tsv:1", "'text2'", "empty text")),
        ("rte", ("0", "a", "entailment"), ("bad.tsv", "column 3")),
        ("gigaword", ("", "a summary"), ("bad.tsv:1", "text to summarize")),
        ("gigaword", ("a text", ""), ("bad.tsv:1", "expects a summary")),
    ],
)
def test_a_wrong_row_is_named_with_what_is_expected(files, task, found, words):
    from ofa.errors import UserError

    path = write_rows(files.folder / "bad.tsv", [found])
    with pytest.raises(UserError) as raised:
        set_up(files, task, data=str(path))[1].datasets["train"][0]
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    "task, flag, words",
    [
        ("cola", "--prompt-type=both", ("--prompt-type", "none, src, prev_output")),
        ("gigaword", "--noise-ratio=1.5", ("--noise-ratio", "1.5")),
        ("mnli", '--ans2label-dict={"no": 0, "yes": 1}', ("'maybe'", "--ans2label-dict")),
    ],
)
def test_a_wrong_flag_is_answered_by_one_sentence(files, task, flag, words):
    from ofa.errors import UserError

    with pytest.raises(UserError) as raised:
        set_up(files, task, flag)
    assert all(word in str(raised.value) for word in words), raised.value
