"""What the trainer costs: the same updates - forward, loss, backward, clipping, Adam - by the
trainer and by a bare loop, on batches that were read before.

They take turns in one process; the median ratio of processor times is given, which other programs
hardly change. Target: at most 10 % with ofa_nano.

``--ema ofa_base`` gives what an update of the averages of an fp16 model costs the host (--store-ema
--ema-fp32): each of its tensors has one element, so hardly any arithmetic. Target: at most 3 ms.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from frame import Args, program, random_model, seconds, trainer_of
from torch.nn.utils import clip_grad_norm_

WARM_UP = 5
RECIPE = (
    "--task=caption --arch=ofa_nano --selected-cols=0,4,2 --code-dict-size=64 --num-bins=100"
    " --criterion=adjust_label_smoothed_cross_entropy --label-smoothing=0.1"
    " --lr-scheduler=fixed --lr=1e-4"
).split()


def build(folder: Path, batch: int, pixels: int):
    """The trainer of ``ofa_nano`` with the quickstart's sizes, and some batches."""
    from caption_files import caption, make_vocabulary, write_tsv

    rows = write_tsv(folder / "train.tsv", [caption(number) for number in range(4 * batch)])
    trainer = trainer_of(
        f"{rows},{rows}",
        *RECIPE,
        f"--bpe-dir={make_vocabulary(folder / 'vocabulary')}",
        f"--patch-image-size={pixels}",
        f"--batch-size={batch}",
    )
    return trainer, list(trainer.get_train_iterator(epoch=1).next_epoch_itr())


def bare_update(model, criterion, optimizer, batch) -> None:
    """The same update written out in plain PyTorch."""
    from ofa.data.images import normalize_images

    model.train()
    loss, tokens, _ = criterion(model, normalize_images(batch))
    optimizer.zero_grad(set_to_none=True)
    (loss / tokens).backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def trainer_update(trainer, batch) -> None:
    """One turn of fairseq's loop: the update, and a log line's figures every tenth time."""
    from fairseq.logging import metrics

    with metrics.aggregate("train"), metrics.aggregate("train_inner"):
        trainer.train_step([batch])
    if trainer.get_num_updates() % 10 == 0:
        metrics.get_smoothed_values("train_inner")
        metrics.reset_meters("train_inner")


def averages(arch: str, updates: int) -> dict:
    """Processor time and operators of an update of the averages."""
    from fairseq.dataclass.configs import EMAConfig
    from torch.utils._python_dispatch import TorchDispatchMode

    import ofa
    from ofa.trainer.fairseq_weights import ModelAverages

    class Operators(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    ofa.register_fairseq_plugin()
    with torch.device("meta"):
        model = random_model(arch)
    small: dict[int, torch.nn.Parameter] = {}  # shared ones stay shared
    for module in model.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                one = torch.nn.Parameter(torch.zeros(1, dtype=torch.float16))
                module._parameters[name] = small.setdefault(id(tensor), one)
        for name, tensor in module._buffers.items():
            module._buffers[name] = torch.zeros(1, dtype=tensor.dtype)
    ema = ModelAverages(model, EMAConfig(store_ema=True, ema_fp32=True, ema_decay=0.999))
    ema.step(model, updates=1)
    times = [seconds(ema.step, model, 2, clock=time.process_time) for _ in range(updates)]
    with Operators() as operators:
        ema.step(model, updates=2)
    host = min(times) * 1000
    print(f"{arch}: averages {host:.1f} ms of the host an update, {operators.count} operators")
    return {"ema_ms": host, "ema_operators": operators.count}


@program(
    threads=1,
    updates=(100, "of each of the two"),
    batch=32,
    pixels=96,
    ema=(str, "size whose averages are measured instead"),
)
def main(args: Args) -> dict:
    if args.ema:
        return averages(args.ema, args.updates)
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = build(Path(folder), args.batch, args.pixels)
        model = trainer.get_model()
        adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)  # the fastest there is
        bare = partial(bare_update, model, trainer.get_criterion(), adam)
        works = (bare, partial(trainer_update, trainer))
        times = [
            [seconds(work, batches[turn % len(batches)], clock=time.process_time) for work in works]
            for turn in range(args.updates + WARM_UP)
        ][WARM_UP:]
    loop, whole = (statistics.median(spent) * 1000 for spent in zip(*times))
    ratio = statistics.median(whole / loop for loop, whole in times)
    print(
        f"ofa_nano, {args.batch} x {args.pixels} px, {args.threads} thread(s): bare"
        f" loop {loop:.1f} ms, trainer {whole:.1f} ms an update, overhead {(ratio - 1) * 100:.1f} %"
    )
    return {"bare_loop_ms": loop, "trainer_ms": whole, "ratio": ratio}
