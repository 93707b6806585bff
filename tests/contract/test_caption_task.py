"""The caption task through fairseq's own doors: upstream flags in, batches and scores out."""

import pickle
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from caption_files import caption, caption_flags, make_vocabulary, write_tsv
from fairseq_setup import configuration, task_with_data
from golden import load_json

ROWS = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    captions = [caption(number) for number in range(ROWS)]
    return SimpleNamespace(
        folder=folder,
        vocabulary=make_vocabulary(folder / "vocabulary"),
        train=write_tsv(folder / "train.tsv", captions),
        second=write_tsv(folder / "second.tsv", captions[:3]),
        valid=write_tsv(folder / "valid.tsv", captions, joined=True),
    )


def configure(files, *more: str, data: str = ""):
    """Configuration of upstream's stage-1 flags as fairseq parses them."""
    return configuration(
        caption_flags(data or f"{files.train},{files.valid}", files.vocabulary, *more)
    )


@pytest.fixture(scope="module")
def ready(files):
    """Configuration and task of the plain flags, for tests that change neither."""
    return set_up(files)


@pytest.fixture(scope="module")
def network(ready):
    """Model and criterion of the plain flags."""
    cfg, task = ready
    return task.build_model(cfg.model).eval(), task.build_criterion(cfg.criterion)


def set_up(files, *more: str, data: str = ""):
    """Task with both files loaded."""
    cfg = configure(files, *more, data=data)
    return cfg, task_with_data(cfg)


def rows_of(task, split: str, epoch: int = 1, **options) -> list[list[str]]:
    """Ids of the batches that one rank gets in an epoch."""
    iterator = task.get_batch_iterator(task.dataset(split), max_sentences=2, epoch=epoch, **options)
    batches = iterator.next_epoch_itr(shuffle=split == "train")
    return [batch["id"].tolist() for batch in batches if batch]


def test_upstream_flags_build_task_model_and_criterion(files):
    cfg, task = set_up(files, "--arch=ofa_tiny")
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    dictionary = task.source_dictionary
    assert dictionary is task.target_dictionary and len(dictionary) == len(task.vocabulary)
    assert (dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk()) == (0, 1, 2, 3)
    assert dictionary.index("<bin_0>") == task.vocabulary.bins[0]
    batch = task.datasets["train"].collater([task.datasets["train"][row] for row in range(3)])
    loss, sample_size, _ = criterion(model, batch, update_num=0)
    assert torch.isfinite(loss) and sample_size == batch["ntokens"]
    logits, _ = model(**batch["net_input"])
    assert logits.shape == (*batch["target"].shape, len(dictionary))


def test_text_survives_the_bpe_of_the_task(ready):
    _, task = ready
    text = " A red cube on a table"
    assert task.bpe.decode(task.bpe.encode(text)) == text
    tokens = task.target_dictionary.encode_line(task.bpe.encode(text), add_if_not_exist=False)
    assert task.decode(tokens) == text


def test_datasets_and_configuration_can_be_sent_to_another_process(ready):
    cfg, task = ready
    dataset = pickle.loads(pickle.dumps(task.datasets["train"]))
    assert torch.equal(dataset[3]["target"], task.datasets["train"][3]["target"])
    assert pickle.loads(pickle.dumps(cfg)).task.eval_args == cfg.task.eval_args


@pytest.mark.parametrize("split", ("train", "valid"))
def test_item_i_is_row_i_of_the_file(ready, split):
    _, task = ready
    dataset = task.datasets[split]
    assert len(dataset) == ROWS
    assert [dataset[row]["id"] for row in (6, 0, 3)] == ["6_0", "0_0", "3_0"]


@pytest.mark.parametrize("ranks, workers", [(1, 0), (2, 0), (3, 0), (2, 2)])
def test_ranks_and_workers_read_every_row_exactly_once(ready, ranks, workers):
    _, task = ready
    expected = sorted(f"{row}_0" for row in range(ROWS))
    for split in ("train", "valid"):
        batches = [
            batch
            for rank in range(ranks)
            for batch in rows_of(task, split, num_shards=ranks, shard_id=rank, num_workers=workers)
        ]
        assert sorted(row for batch in batches for row in batch) == expected


def test_every_epoch_has_its_own_order_and_a_seed_repeats_it(files, ready):
    _, task = ready
    first, second = rows_of(task, "train", 1, seed=5), rows_of(task, "train", 2, seed=5)
    assert first != second and rows_of(task, "train", 1, seed=6) != first
    assert sorted(map(sorted, first)) != sorted(map(sorted, second)), (
        "other batches, not only in another order"
    )
    assert rows_of(set_up(files)[1], "train", 2, seed=5, num_workers=1) == second


def test_validation_and_no_shuffle_keep_the_order_of_the_file(files):
    _, task = set_up(files, "--no-shuffle")
    in_order = [["0_0", "1_0"], ["2_0", "3_0"], ["4_0", "5_0"], ["6_0"]]
    assert (
        rows_of(task, "valid") == rows_of(task, "train", 1) == rows_of(task, "train", 3) == in_order
    )


def test_an_interrupted_epoch_continues_with_the_batches_that_are_left(files, ready):
    _, task = ready
    whole = task.get_batch_iterator(task.dataset("train"), max_sentences=2, epoch=4, seed=3)
    reader = whole.next_epoch_itr(shuffle=True)
    next(reader)
    state, rest = whole.state_dict(), [batch["id"].tolist() for batch in reader]
    resumed = set_up(files)[1]  # a new process
    again = resumed.get_batch_iterator(
        resumed.dataset("train"), max_sentences=2, epoch=state["epoch"], seed=3
    )
    again.load_state_dict(state)
    assert [batch["id"].tolist() for batch in again.next_epoch_itr(shuffle=True)] == rest


def test_several_training_files_take_turns_by_epoch(files):
    _, task = set_up(files, data=f"{files.train},{files.second},{files.valid}")
    assert task.has_sharded_data("train") and not task.has_sharded_data("valid")
    lengths = []
    for epoch in (1, 2, 3, 4):
        task.load_dataset("train", epoch=epoch)
        lengths.append(len(task.datasets["train"]))
    assert lengths == [ROWS, 3, ROWS, 3]
    assert len(task.datasets["valid"]) == ROWS


def test_batches_have_exactly_the_size_that_was_asked_for(ready):
    _, task = ready
    dataset = task.datasets["valid"]
    sizes = [
        len(batch) for batch in dataset.batch_by_size(dataset.ordered_indices(), max_sentences=3)
    ]
    assert sizes == [3, 3, 1]
    tokens = dataset.num_tokens(0) * 2
    sizes = [
        len(batch) for batch in dataset.batch_by_size(dataset.ordered_indices(), max_tokens=tokens)
    ]
    assert sizes == [2, 2, 2, 1]


def test_generation_follows_the_namespace(ready, network):
    task, model = ready[1], network[0]
    batch = task.datasets["valid"].collater([task.datasets["valid"][row] for row in range(2)])
    generator = task.build_generator([model], Namespace(beam=3, max_len_b=4, min_len=2))
    found = generator.generate([model], batch)
    assert len(found) == 2 and len(found[0]) == 3
    assert all(2 <= len(best[0]["tokens"]) <= 5 for best in found)
    assert isinstance(task.hypothesis(found[0][0]["tokens"]).text, str)


def validate(task, model, criterion, ranks: int, size: int) -> dict:
    """Smoothed values of a validation whose logging outputs are summed over ranks as fairseq
    does."""
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
    with metrics.aggregate(new_root=True) as aggregator:
        for step in range(max(map(len, batches))):
            own = [
                task.valid_step(rank[step], model, criterion)[2]
                for rank in batches
                if step < len(rank)
            ]
            task.reduce_metrics([{key: sum(log[key] for log in own) for key in own[0]}], criterion)
    return aggregator.get_smoothed_values()


def test_validation_figures_do_not_depend_on_ranks_or_batch_size(files, network):
    _, task = set_up(files, "--eval-bleu")
    model, criterion = network
    spoken = [
        " A red cube on the lake",
        " There is a green cube at night",
        " A white cube on a table",
    ]
    hypotheses = [task.vocabulary.ids(task.bpe.encode(text)) for text in spoken]

    def speak(generator, models, sample, prefix_tokens=None, constraints=None):
        numbers = [int(row_id.split("_")[0]) % 3 for row_id in sample["id"]]
        return [
            [{"tokens": torch.tensor([*hypotheses[number], task.vocabulary.eos])}]
            for number in numbers
        ]

    task.inference_step = speak
    whole = validate(task, model, criterion, ranks=1, size=ROWS)
    assert whole["cider"] > 0 and whole["bleu"] > 0
    for ranks, size in ((1, 2), (2, 2), (3, 3)):
        parts = validate(task, model, criterion, ranks, size)
        assert (parts["cider"], parts["bleu"]) == (whole["cider"], whole["bleu"])


def test_validation_generates_with_the_model(ready, network):
    task = ready[1]
    model, criterion = network
    batch = task.datasets["valid"].collater([task.datasets["valid"][row] for row in range(2)])
    _, _, log = task.valid_step(batch, model, criterion)
    assert log["_cider_cnt"] == 2 and log["_cider_score_sum"] >= 0


def test_summed_counts_become_the_recorded_figure(ready, network):
    from fairseq.logging import metrics

    recorded = load_json("metrics_reduce")["tasks"]["caption"]
    with metrics.aggregate(new_root=True) as aggregator:
        ready[1].reduce_metrics(recorded["logging_outputs"], network[1])
    smoothed = aggregator.get_smoothed_values()
    for name in ("loss", "nll_loss", "ppl", "cider", "bsz"):
        assert smoothed[name] == pytest.approx(recorded["reduced"][name], abs=1e-3)


def test_known_metrics_are_those_of_the_run(files, ready):
    assert {"loss", "nll_loss", "ppl", "cider"} <= set(ready[1].metric_names())
    assert "bleu" not in ready[1].metric_names()
    assert "bleu" in set_up(files, "--eval-bleu")[1].metric_names()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--eval-args={beam:5}"], "--eval-args: expects JSON"),
        (['--eval-args={"bean":5}'], "--eval-args: .*found 'bean'; did you mean beam"),
        (["--scst", '--scst-args={"bean":5}'], "--scst-args: .*did you mean beam"),
        (["--eval-args=[1]"], "--eval-args: expects a JSON object"),
        (["--selected-cols=0,4"], "expects 3 columns .id, image, caption., found 2"),
        (["--selected-cols=0,4,9"], "asks for column 9, found 5"),
        (["--bpe=gpt2"], "gpt2"),
        (["--bpe-dir="], "--bpe-dir expects a vocabulary folder"),
    ],
)
def test_a_wrong_flag_is_answered_by_one_sentence(files, flags, message):
    from ofa.errors import UserError

    with pytest.raises(UserError, match=message):
        cfg, task = set_up(files, *flags)
        task.build_model(cfg.model)


def test_a_missing_file_is_named(files):
    from ofa.errors import UserError

    with pytest.raises(UserError, match="nowhere.tsv"):
        set_up(files, data=f"nowhere.tsv,{files.valid}")


@pytest.mark.parametrize("workers", (0, 1))
def test_an_empty_caption_is_refused_with_file_and_row_from_any_worker(files, workers):
    from ofa.errors import UserError

    broken = write_tsv(files.folder / "broken.tsv", [caption(0), "", caption(2)])
    _, task = set_up(files, data=f"{broken},{files.valid}")
    with pytest.raises(UserError, match=r"broken\.tsv:2: .*at least one word"):
        rows_of(task, "train", num_workers=workers)


@pytest.mark.parametrize(
    "flag, known", [("--arch=ofa_gigantic", "ofa_tiny"), ("--task=captions", "caption")]
)
def test_an_unknown_architecture_or_task_lists_the_known_ones(files, flag, known, capsys):
    with pytest.raises(SystemExit) as stopped:
        configure(files, flag)
    assert stopped.value.code not in (0, None)
    message = capsys.readouterr().err
    assert known in message and len(message) < 1000, "pages of options hide what is wrong"


def test_a_new_declaration_is_a_new_task(files, ready):
    from ofa.tasks import fairseq_task

    spec = replace(
        fairseq_task.CaptionTask.spec,
        name="toy_captions",
        columns=tuple(
            fairseq_task.CaptionTask.spec.column(name) for name in ("image", "id", "caption")
        ),
    )
    fairseq_task.register_spec(spec)
    _, task = set_up(files, "--task=toy_captions", "--selected-cols=4,0,2")
    assert task.spec is spec
    assert torch.equal(task.datasets["train"][5]["target"], ready[1].datasets["train"][5]["target"])


def test_two_files_with_one_task_name_are_refused(files, monkeypatch):
    configure(files)
    from ofa import tasks as declarations
    from ofa.errors import UserError
    from ofa.tasks import fairseq_task

    twins = [SimpleNamespace(name=name) for name in ("caption", "captions_again")]
    again = SimpleNamespace(SPEC=fairseq_task.CaptionTask.spec)
    monkeypatch.setattr(declarations.pkgutil, "iter_modules", lambda path: twins)
    monkeypatch.setattr(declarations.importlib, "import_module", lambda name: again)
    with pytest.raises(
        UserError,
        match="tasks/captions_again.py: task 'caption' is already declared by tasks/caption.py",
    ):
        declarations.declared_specs()
    with pytest.raises(UserError, match="fairseq has a task of this name"):
        fairseq_task.register_spec(again.SPEC)
