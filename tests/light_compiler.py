"""torch.compile on a CPU in a fraction of its time: without vector instructions, which take a
minute more to look for and to compile, and with one source file for all kernels of a program."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def compile_lightly(folder: str) -> None:
    """From now on. Args: folder: for files of the compiler."""
    from torch._inductor import config, cpu_vec_isa

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    config.cpp_wrapper = True
    cpu_vec_isa.valid_vec_isa_list = list


@contextmanager
def compiled_lightly(folder: str) -> Iterator[None]:
    """The same for a while."""
    from torch._inductor import config, cpu_vec_isa

    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, config.patch(cpp_wrapper=config.cpp_wrapper):
        patch.setattr(cpu_vec_isa, "valid_vec_isa_list", cpu_vec_isa.valid_vec_isa_list)
        try:
            compile_lightly(folder)
            yield
        finally:  # the compiler leaves settings as well
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)
