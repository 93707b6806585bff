"""What an update of fairseq's trainer waits for on a GPU: once for the losses and once for the log,
beside what fairseq itself asks; and no operator mixes devices."""

from types import SimpleNamespace

import answer_files
import caption_files
import pretraining_files
import pytest
from pretend_graph import pretend_graphs
from pretend_training import train

from ofa.cli.main import main

OURS = 2  # whether losses are finite; the figures of the log
FAIRSEQS = 1  # whether the norm of the gradients is finite
LONGEST = 6  # tokens of a sampled caption, without </s>
GENERATED = LONGEST + 2  # whether the search continues, after each token; its tokens; their scores


def make_words(folder, captions):
    words = folder / "words.p"
    data = caption_files.write_tsv(folder / "references.tsv", captions, joined=True)
    assert main(["cider-df", "build", "--tsv", str(data), "--out", str(words)]) == 0
    return words


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    captions = [caption_files.caption(number) for number in range(12)]
    answers = map(answer_files.vqa_row, range(8))
    return SimpleNamespace(
        captions=caption_files.write_tsv(folder / "captions.tsv", captions),
        caption_vocabulary=caption_files.make_vocabulary(folder / "caption_vocabulary"),
        answers=answer_files.write_rows(folder / "answers.tsv", answers),
        answer_vocabulary=answer_files.make_vocabulary(folder / "answer_vocabulary"),
        pretraining=pretraining_files.make_files(folder / "pretraining"),
        words=make_words(folder, captions),
    )


def caption_flags(files, *more: str, without: tuple[str, ...] = ("--fp16",)) -> list[str]:
    data, vocabulary = f"{files.captions},{files.captions}", files.caption_vocabulary
    flags = caption_files.caption_flags(data, vocabulary, "--update-freq=1", *more)
    return [flag for flag in flags if not flag.startswith(without)]


def answer_flags(files, *more: str) -> list[str]:
    data, vocabulary = f"{files.answers},{files.answers}", files.answer_vocabulary
    return answer_files.flags("vqa_gen", data, vocabulary, *more)


def scst_flags(files, *more: str) -> list[str]:
    return caption_flags(
        files,
        f"--scst-cider-cached-tokens={files.words}",
        "--criterion=scst_reward_criterion",
        "--scst",
        f'--scst-args={{"beam":3,"max_len_b":{LONGEST},"no_repeat_ngram_size":3}}',
        *more,
        without=("--fp16", "--drop-worst", "--label-smoothing"),
    )


def pretraining_flags(files) -> list[str]:
    flags = pretraining_files.pretraining_flags(files.pretraining)
    return [flag for flag in flags if not flag.startswith("--fp16")]


RUNS = {
    "captions": caption_flags,
    "two batches of captions": lambda files: caption_flags(files, "--update-freq=2"),
    "R-Drop": lambda files: caption_flags(files, "--use-rdrop"),
    "worst tokens dropped": lambda files: caption_flags(files, "--drop-worst-after=0"),
    "accuracy": lambda files: caption_flags(files, "--report-accuracy", "--ignore-eos"),
    "LoRA": lambda files: caption_flags(files, "--lora-rank=2", "--bf16"),
    "answers": answer_flags,
    "pretraining": pretraining_flags,
}


@pytest.mark.parametrize("run", RUNS)
def test_an_update_waits_for_the_losses_and_the_log_alone(monkeypatch, tmp_path, files, run):
    update, _ = train(monkeypatch, tmp_path, RUNS[run](files))
    assert not update.mixed
    assert sum(update.own_waits.values()) <= OURS, update.own_waits
    assert sum(update.waits.values()) <= OURS + FAIRSEQS, update.waits


@pytest.mark.parametrize("more, searches", [((), 1), (("--scst-baseline=greedy",), 2)])
def test_an_update_of_cider_optimization_waits_for_tokens_too(
    monkeypatch, tmp_path, files, more, searches
):
    pretend_graphs(monkeypatch)
    update, _ = train(monkeypatch, tmp_path, scst_flags(files, *more))
    assert not update.mixed
    figures = 1  # of another type than the loss
    most = searches * GENERATED + OURS + figures
    assert sum(update.own_waits.values()) <= most, update.own_waits
    assert sum(update.waits.values()) <= most + FAIRSEQS, update.waits


def test_a_loss_scaler_of_fairseq_adds_its_own_waits_alone(monkeypatch, tmp_path, files):
    update, _ = train(monkeypatch, tmp_path, caption_flags(files, without=()))
    assert not update.mixed
    assert sum(update.own_waits.values()) <= OURS, update.own_waits


def test_a_batch_of_a_validation_by_loss_waits_twice(monkeypatch, tmp_path, files):
    _, batch = train(monkeypatch, tmp_path, pretraining_flags(files), updates=1, validates=True)
    assert not batch.mixed
    assert sum(batch.waits.values()) <= OURS, batch.waits
