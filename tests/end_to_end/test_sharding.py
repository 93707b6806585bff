"""``--zero-sharding os`` and ``--ddp-backend fully_sharded`` on two ranks train what data
parallelism alone trains, and their checkpoints resume exactly, on any number of ranks."""

import itertools
from pathlib import Path

import pytest
import torch
from fairseq_setup import configuration
from ranks import on_rank, run_ranks, trainer_of
from training_runs import flags, make_files

from ofa.io.safe_load import load_checkpoint

pytestmark = pytest.mark.slow  # processes of their own

UPDATES = 4
PRECISIONS = {
    "fp32": ("--eval-cider", '--eval-args={"beam":2,"max_len_b":8}'),
    "bf16": ("--bf16",),
    # slow on a CPU
    "memory-efficient-fp16": ("--memory-efficient-fp16", "--fp16-init-scale=4", "--batch-size=2"),
}
SHARDINGS = {"none": (), "os": ("--zero-sharding=os",), "full": ("--ddp-backend=fully_sharded",)}
AVERAGED = ("--store-ema", "--uses-ema", "--ema-decay=0.5")
EXACT = (
    "--dropout=0",
    "--encoder-drop-path-rate=0",
    "--decoder-drop-path-rate=0",
    "--freeze-resnet",
    "--lr=1e-2",
    "--max-epoch=9",
)


def rounding(name: str, kind: str) -> float:
    """Of losses. The norm of all gradients is added up in another order where they are divided; in
    fp16 a gradient times a factor that differs in its last digit is another one now and then."""
    return 1e-3 if (name, kind) == ("memory-efficient-fp16", "full") else 1e-5


def losses_of(trainer, first: int, last: int, ranks: int) -> list[float]:
    """Of some updates. Args: ranks: a process alone takes the batches of two."""
    from fairseq.data import iterators
    from fairseq.logging import metrics

    reader = trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=True)
    groups = itertools.cycle(list(iterators.GroupedIterator(reader, 3 - ranks))[:2])
    found = []
    for samples in itertools.islice(groups, first, last):
        with metrics.aggregate(new_root=True) as figures:
            trainer.train_step(samples)
        found.append(float(figures["loss"].avg))
    return found


def validation_of(trainer) -> dict[str, float]:
    """Figures of the averaged weights."""
    from fairseq.logging import metrics

    trainer.task.load_dataset("valid")
    with metrics.aggregate(new_root=True) as figures:
        for sample in trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False):
            trainer.valid_step(sample)
    rounded = figures.get_smoothed_values()
    return {"loss": float(figures["loss"].avg), "cider": rounded.get("cider", 0)}


def save(trainer, path: Path) -> None:
    trainer.consolidate_optimizer()
    position = {"epoch": 1, "iterations_in_epoch": 2, "shuffle": True, "version": 2}
    trainer.save_checkpoint(str(path), {"train_iterator": position})


def work(configurations: dict, ranks: int, rank: int, folder: Path) -> dict:
    """What a process does. Args: configurations: (precision, sharding) -> that of a training.
    Returns: losses by name."""
    from ofa.trainer.fairseq_compat import settle_processes

    found = {}
    for (name, sharding), cfg in configurations.items():
        cfg, path = on_rank(cfg, ranks, rank), folder / f"{name}_{sharding}.pt"
        settle_processes(cfg)
        if ranks == 2:
            trainer = trainer_of(cfg)
            before = losses_of(trainer, 0, 2, ranks)
            save(trainer, path)
            torch.distributed.barrier()
            found[f"{name} {sharding}"] = before + losses_of(trainer, 2, UPDATES, ranks)
            found[f"{name} {sharding} validated"] = validation_of(trainer)
            params = list(trainer.optimizer.params)
            found[f"{name} {sharding} numbers"] = sum(param.numel() for param in params)
        resumed = trainer_of(cfg)
        resumed.load_checkpoint(str(path))
        found[f"{name} {sharding} resumed"] = losses_of(resumed, 2, UPDATES, ranks)
    return {**found, "minutes": minutes_of_groups(2)}


def minutes_of_groups(wanted: float) -> list[float]:
    """How long processes wait for each other with ``--distributed-timeout``, in every group."""
    from fairseq.distributed import utils as distributed_utils

    from ofa.trainer.fairseq_distributed import wait_at_most

    wait_at_most(wanted)
    if not torch.distributed.is_initialized():
        return []
    groups = [torch.distributed.group.WORLD, distributed_utils.get_data_parallel_group()]
    backends = [group._get_backend(torch.device("cpu")) for group in groups]
    return [backend.options._timeout.total_seconds() / 60 for backend in backends]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def found(folder):
    """Ranks -> losses by name: of two ranks, and of one that resumes what they have saved."""
    files = make_files(folder)
    kinds = {
        (name, sharding): [*PRECISIONS[name], *SHARDINGS[sharding]]
        for name, sharding in itertools.product(PRECISIONS, SHARDINGS)
    }
    configurations = {
        kind: configuration(flags(files, folder, *EXACT, *AVERAGED, *words))
        for kind, words in kinds.items()
    }
    return {ranks: run_ranks(work, configurations, ranks, folder) for ranks in (2, 1)}


each = pytest.mark.parametrize("kind", ("os", "full"))
precise = pytest.mark.parametrize("name", PRECISIONS)


@precise
@each
def test_parts_train_what_whole_tensors_do(found, name, kind):
    assert len(set(found[2][f"{name} none"])) == UPDATES
    assert found[2][f"{name} {kind}"] == pytest.approx(
        found[2][f"{name} none"], rel=rounding(name, kind)
    )


@precise
@each
def test_parts_generate_and_validate_as_whole_tensors_do(found, name, kind):
    expected = found[2][f"{name} none validated"]
    assert found[2][f"{name} {kind} validated"] == pytest.approx(expected, rel=rounding(name, kind))


@precise
def test_each_process_has_half_of_the_weights(found, name):
    whole, part = (found[2][f"{name} {kind} numbers"] for kind in ("none", "full"))
    assert part == pytest.approx(whole / 2, rel=0.02)  # an odd row is one more for the first


@precise
@each
def test_a_sharded_run_resumes_exactly(found, name, kind):
    assert found[2][f"{name} {kind} resumed"] == found[2][f"{name} {kind}"][2:]


@precise
@each
def test_one_process_resumes_what_two_have_sharded(found, name, kind):
    expected = found[1][f"{name} none resumed"]
    assert found[1][f"{name} {kind} resumed"] == pytest.approx(expected, rel=rounding(name, kind))


@precise
@each
def test_a_checkpoint_is_that_of_whole_tensors(found, folder, name, kind):
    whole, sharded = (load_checkpoint(folder / f"{name}_{one}.pt") for one in ("none", kind))
    bound = 10 * rounding(name, kind)
    one, other = whole["last_optimizer_state"], sharded["last_optimizer_state"]
    assert one["param_groups"] == other["param_groups"]
    assert list(one["state"]) == list(other["state"])
    for index, state in one["state"].items():
        assert state.keys() == other["state"][index].keys()
        torch.testing.assert_close(other["state"][index], state, rtol=bound, atol=bound / 1e4)
    averages = whole["extra_state"]["ema"], sharded["extra_state"]["ema"]
    for expected, tensors in ((whole["model"], sharded["model"]), averages):
        assert list(tensors) == list(expected)
        torch.testing.assert_close(dict(tensors), dict(expected), rtol=bound, atol=bound / 1e2)
    sizes = [(folder / f"{name}_{one}.pt").stat().st_size for one in ("none", kind)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_the_time_to_wait_for_another_process_holds_for_every_group(found):
    assert found[2]["minutes"] == [2, 2] and found[1]["minutes"] == []
