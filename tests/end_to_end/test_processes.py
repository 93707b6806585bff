"""Two processes train what one trains, also through the ordinary launcher, and never leave each
other waiting."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from programs import interpreter
from training_runs import flags, log_lines, make_files, train

from ofa.cli.main import main
from ofa.io.safe_load import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("processes"), rows=18)


def command(files, name: str, *more: str) -> list[str]:
    """Nothing random in a step."""
    words = flags(
        files,
        files.folder / name,
        "--dropout=0",
        "--encoder-drop-path-rate=0",
        "--decoder-drop-path-rate=0",
        *more,
    )
    rewarded = any("scst_reward" in word for word in more)
    return [word for word in words if not (rewarded and word.startswith("--label-smoothing"))]


def trained(files, name: str, ranks: int, *more: str) -> str:
    """The log of a training by ``fairseq-train`` on that many ranks."""
    done = train(command(files, name, *more), ranks=ranks)
    assert done.code == 0, done.log[-3000:]
    return done.log


def start(
    files, name: str, processes: int, *more: str, python: str = sys.executable, **settings: str
) -> subprocess.Popen:
    """``ofa train`` with its log in ``<name>.log``."""
    data, *words = command(files, name, *more)
    given = [word for word in words if not word.startswith(("--user-dir", "--save-dir"))]
    environment = {
        **os.environ,
        "NPROC": str(processes),
        "OMP_NUM_THREADS": "1",
        **settings,
        "SAVE_DIR": str(files.folder / name),
    }
    program = [python, "-m", "ofa", "train", data, *given]
    with open(files.folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            program, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def log_of(files, name: str) -> str:
    return (files.folder / f"{name}.log").read_text()


def finish(files, name: str, *arguments, **settings: str) -> str:
    """The log of a run that ends well."""
    process = start(files, name, *arguments, python=interpreter(), **settings)
    assert process.wait(120) == 0, log_of(files, name)[-3000:]
    return log_of(files, name)


def figures(line: str, *names: str) -> list[str]:
    return [re.search(rf"\b{name}[ =]([^ ,]+)", line)[1] for name in names]


@pytest.fixture(scope="module")
def pair(files):
    """(log, checkpoint) after one update: of one process with 6 rows, and of two with 3 rows
    each."""
    step = (
        "--clip-norm=0",
        "--freeze-resnet",
        "--max-update=1",
        "--log-interval=1",
        "--eval-cider",
        "--batch-size-valid=3",
        '--eval-args={"beam":2,"max_len_b":8}',
    )
    runs = []
    for processes in (1, 2):
        log = finish(files, f"step{processes}", processes, *step, f"--batch-size={6 // processes}")
        runs.append((log, load_checkpoint(files.folder / f"step{processes}/checkpoint_last.pt")))
    return runs


def test_two_processes_make_the_gradient_of_one_with_the_doubled_batch(pair):
    """Adam's first moment is a tenth of the first gradient."""
    one, two = (checkpoint["last_optimizer_state"]["state"] for _, checkpoint in pair)
    assert one.keys() == two.keys() and len(one) > 50
    for parameter in one:
        torch.testing.assert_close(
            two[parameter]["exp_avg"], one[parameter]["exp_avg"], rtol=1e-4, atol=1e-7
        )
    lines = [log_lines(log)[0] for log, _ in pair]
    names = ("loss", "nll_loss", "ntokens", "nsentences", "sample_size", "gnorm")
    assert figures(lines[0], *names) == figures(lines[1], *names) and "nsentences=6" in lines[0]


def test_cider_optimization_on_two_processes_makes_the_gradient_of_one(files):
    """Both sample the same captions for the same images, earn the same rewards and share one
    loss; also where each has a part of the weights."""
    words = files.folder / "words.p"
    assert main(["cider-df", "build", "--tsv", str(files.valid), "--out", str(words)]) == 0
    assert (
        train(
            flags(
                files,
                files.folder / "stage1",
                "--max-update=40",
                "--lr=3e-3",
                "--disable-validation",
            )
        ).code
        == 0
    )
    step = (
        "--criterion=scst_reward_criterion",
        "--scst",
        '--scst-args={"beam":3,"max_len_b":6}',
        "--freeze-resnet",
        f"--scst-cider-cached-tokens={words}",
        f"--finetune-from-model={files.folder / 'stage1/checkpoint_last.pt'}",
        "--clip-norm=0",
        "--max-update=1",
        "--log-interval=1",
        "--disable-validation",
    )
    moments, lines = [], []
    for ranks, *more in ((1,), (2,), (2, "--ddp-backend=fully_sharded")):
        name, batch = f"reward{len(lines)}", f"--batch-size={6 // ranks}"
        lines += log_lines(trained(files, name, ranks, *step, batch, *more))
        state = load_checkpoint(files.folder / name / "checkpoint_last.pt")["last_optimizer_state"][
            "state"
        ]
        moments.append({parameter: values["exp_avg"] for parameter, values in state.items()})
    assert any(moment.abs().max() > 0 for moment in moments[0].values())
    for other in moments[1:]:
        for parameter, moment in moments[0].items():
            torch.testing.assert_close(other[parameter], moment, rtol=1e-3, atol=1e-7)
    names = ("loss", "score", "ntokens", "nsentences", "sample_size", "gnorm")
    alone, *others = (figures(line, *names) for line in lines)
    assert others == [alone] * 2 and "nsentences=18" in lines[0]


def test_validation_is_the_same_when_one_rank_runs_out_of_batches(pair):
    """Seven rows in batches of three: the second rank has one batch less."""
    first, second = (
        figures(log_lines(log, "valid")[0], "loss", "nll_loss", "ppl", "cider") for log, _ in pair
    )
    assert first == second


@pytest.mark.parametrize("update_freq", [1, 2])
def test_training_counts_every_row_once_when_ranks_have_unequal_data(files, update_freq):
    """18 rows in batches of 4: five batches, so that the second rank has two and a filler in its
    last update."""
    log = trained(
        files,
        f"unequal{update_freq}",
        2,
        f"--update-freq={update_freq}",
        "--max-epoch=1",
        "--log-interval=1",
        "--disable-validation",
    )
    rows = [int(figures(line, "nsentences")[0]) for line in log_lines(log)]
    assert (
        len(rows) == {1: 3, 2: 2}[update_freq] and sum(rows) == 18 and max(rows) <= 8 * update_freq
    )


def test_a_signal_to_the_launcher_saves_on_both_ranks_and_ends_cleanly(files):
    process = start(
        files,
        "stopped",
        2,
        "--max-epoch=1000",
        "--log-interval=1",
        "--disable-validation",
        "--no-save-optimizer-state",
        python=interpreter(),
    )
    wait_for(files, "stopped", "num_updates=3", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, log_of(files, "stopped")[-3000:]
    log = log_of(files, "stopped")
    stopped = int(re.search(r"stopped as asked after update (\d+)", log)[1])
    assert "Traceback" not in log and "error" not in log and stopped >= 3
    assert (
        load_checkpoint(files.folder / "stopped/checkpoint_last.pt")["optimizer_history"][-1][
            "num_updates"
        ]
        == stopped
    )


def wait_for(files, name: str, words: str, process: subprocess.Popen) -> None:
    for _ in range(600):
        if words in log_of(files, name):
            return
        assert process.poll() is None, log_of(files, name)[-3000:]
        time.sleep(0.1)
    raise AssertionError(log_of(files, name)[-3000:])


def test_a_failing_rank_ends_the_run_with_its_own_traceback_first(files, tmp_path):
    """The second rank breaks in its third update, while the first one waits for its gradients."""
    (tmp_path / "sitecustomize.py").write_text(BREAK_SECOND_RANK)
    started = time.monotonic()
    settings = {"python": interpreter(), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = start(files, "broken", 2, "--max-epoch=5", "--disable-validation", **settings)
    assert process.wait(100) != 0
    log = log_of(files, "broken")
    assert time.monotonic() - started < 60 + 30  # 30 seconds for the start on a busy machine
    assert "Traceback" in log and "ArithmeticError: the second rank breaks" in log
    assert "ArithmeticError" in log[log.index("Traceback") :].split("Traceback")[1]


BREAK_SECOND_RANK = """
import os
if os.environ.get("RANK") == "1":
    import torch
    backward, calls = torch.Tensor.backward, []
    def breaking(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise ArithmeticError("the second rank breaks")
        return backward(*args, **kwargs)
    torch.Tensor.backward = breaking
"""


@pytest.fixture(scope="module")
def iterator(files):
    """Function: ranks, rank, rows per batch -> fairseq's iterator over the second epoch of 18
    rows."""
    import ofa

    ofa.register_fairseq_plugin()
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    words = flags(files, files.folder / "none")
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")

    def of(ranks: int, rank: int, rows: int = 4):
        return task.get_batch_iterator(
            task.datasets["train"],
            max_sentences=rows,
            seed=1,
            num_shards=ranks,
            shard_id=rank,
            epoch=2,
        )

    return of


def batches(iterator) -> list[list[str]]:
    return [
        [str(name) for name in batch["id"]] if batch else [] for batch in iterator.next_epoch_itr()
    ]


def test_every_row_is_read_once_by_one_of_the_ranks(iterator):
    """The batches of 1, 2 and 3 ranks together are the same, in the order in which one process
    reads them."""
    alone = batches(iterator(1, 0))
    assert sorted(name for batch in alone for name in batch) == sorted(
        f"{row}_0" for row in range(18)
    )
    for ranks in (2, 3):
        dealt = [batches(iterator(ranks, rank)) for rank in range(ranks)]
        assert len({len(own) for own in dealt}) == 1
        assert [batch for together in zip(*dealt) for batch in together if batch] == alone


@pytest.mark.parametrize(
    "ranks, rows, again", [(2, 4, 0), (1, 4, 0), (4, 2, 0), (1, 3, 2), (3, 4, 8)]
)
def test_a_run_goes_on_at_the_same_row_with_other_ranks_and_batches(iterator, ranks, rows, again):
    """Two ranks have read one batch of four rows each; at most one step of the new kind is read
    again."""
    before = iterator(2, 0)
    order = [name for batch in batches(iterator(1, 0)) for name in batch]
    next(before.next_epoch_itr())
    rest = []
    for rank in range(ranks):
        after = iterator(ranks, rank, rows)
        after.load_state_dict(before.state_dict())
        rest.append(batches(after))
    assert [name for together in zip(*rest) for batch in together for name in batch] == order[
        8 - again :
    ]
