"""What can go wrong with the files of a training: a kill or a full disk while one is written,
damage afterwards."""

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

KILL, FULL = "killed", "disk full"


class Instead:
    """A module in which some functions are replaced."""

    def __init__(self, module, **functions):
        self.__dict__.update(functions, module=module)

    def __getattr__(self, name: str):
        return getattr(self.module, name)


class WriteFault:
    """Strikes while a checkpoint is written; called in the process of the training.

    Args:
        what: KILL (the process ends at once) or FULL (writing fails with ENOSPC).
        file: which checkpoint file, copies included; the first that the run writes is 1.
        moment: "open", "write" (after ``after`` bytes), "sync", "rename" (before it) or "renamed"
            (right after it).
    """

    def __init__(self, what: str, file: int, moment: str, after: int = 0):
        self.what, self.file, self.moment, self.after = what, file, moment, after
        self.opened = 0

    def __call__(self) -> None:
        from ofa.io import atomic

        atomic.os = Instead(
            os, open=self.open, fdopen=self.fdopen, fsync=self.fsync, replace=self.replace
        )

    def strike(self, moment: str) -> None:
        if (self.opened, moment) != (self.file, self.moment):
            return
        if self.what == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path: str, *arguments) -> int:
        self.opened += Path(path).name.startswith(".checkpoint")
        self.strike("open")
        return os.open(path, *arguments)

    def fdopen(self, *arguments, **options):
        file = os.fdopen(*arguments, **options)
        write = file.write

        def write_and_strike(data) -> int:
            done = write(data)
            if file.tell() > self.after:
                self.strike("write")
            return done

        return CountedFile(file, write_and_strike)

    def fsync(self, handle: int) -> None:
        self.strike("sync")
        os.fsync(handle)

    def replace(self, source, target) -> None:
        self.strike("rename")
        os.replace(source, target)
        self.strike("renamed")


class CountedFile(Instead):
    """An open file with another ``write``."""

    def __init__(self, file, write: Callable[[bytes], int]):
        super().__init__(file, write=write)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.module.__exit__(*error)


def cut(share: float, more: int = 0) -> Callable[[Path], None]:
    """Truncate a file to a share of its bytes, and some more."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        rewrite(path, content[: int(share * len(content)) + more])

    return damage


def overwrite(start: float, data: bytes) -> Callable[[Path], None]:
    """Put other bytes into a file, from a share of its length on; at its end for 1."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        first = min(int(start * len(content)), len(content) - len(data))
        content[first : first + len(data)] = data
        rewrite(path, bytes(content))

    return damage


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    rewrite(path, bytes(content))


def become(content: bytes) -> Callable[[Path], None]:
    """Another file under the name."""
    return lambda path: rewrite(path, content)


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # it may be a hard link to a file that has to stay
    path.write_bytes(content)


NOISE = random.Random(0).randbytes(300)


class KilledWorker:
    """The first data worker is killed while it makes a sample, as the kernel does when memory is
    short."""

    def __call__(self) -> None:
        import torch

        from ofa.data.fairseq_dataset import OFADataset

        stock = OFADataset.__getitem__

        def get(dataset, index: int):
            if torch.utils.data.get_worker_info() is not None and dataset.builder.split == "train":
                os.kill(os.getpid(), signal.SIGKILL)
            return stock(dataset, index)

        OFADataset.__getitem__ = get


class InUpdate:
    """Something happens at the beginning of an update. Args: happen: called with the trainer."""

    def __init__(self, update: int, happen: Callable):
        self.update, self.happen = update, happen

    def __call__(self) -> None:
        from fairseq.trainer import Trainer

        stock = Trainer.train_step

        def train_step(trainer, *args, **kwargs):
            if trainer.get_num_updates() + 1 == self.update:
                self.happen(trainer)
            return stock(trainer, *args, **kwargs)

        Trainer.train_step = train_step


def lose_folder(trainer) -> None:
    """The save folder vanishes, and cannot be made again."""
    folder = Path(trainer.cfg.checkpoint.save_dir)
    shutil.rmtree(folder)
    folder.write_text("")


def lose_memory(trainer) -> None:
    raise MemoryError


def lose_gpu_memory(trainer) -> None:
    import torch

    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB"
        " of which ..."
    )


class LittleSpace:
    """A disk with that many free bytes."""

    def __init__(self, free: int):
        self.free = free

    def __call__(self) -> None:
        from ofa.trainer import fairseq_checkpoint

        usage = shutil.disk_usage("/")._replace(free=self.free)
        fairseq_checkpoint.shutil = Instead(shutil, disk_usage=lambda path: usage)
