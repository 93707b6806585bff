"""An interpreter for tests that start programs: each is a fork of a server that has imported torch,
fairseq and ofa, which else takes 8 s of a core.

``interpreter()`` is the path of an executable to name in place of ``sys.executable``. It runs the
modules ``MODULES`` and the files ``SCRIPTS`` in forks, with the arguments, working folder,
environment and standard streams that it was given, and ends as they end; what they start by
``sys.executable`` is a fork as well. Everything else, and whatever has other packages or settings
that are read at imports, gets the interpreter itself.

What differs from a program of its own, so that tests of it name ``sys.executable``:

- All modules of ``LOADED`` are imported already: a missing import or a slow one is not noticed,
  and ``sitecustomize`` comes after them.
- Its number is not that of the process which was started, nor is its session: a signal to that one
  is passed on (SIGKILL ends both), one to the group is not; its parent is the server. A lock kept
  through ``exec`` is taken anew.
- What hydra does for each command line is shortened: see ``quick_hydra``.
- glibc has read its settings (MALLOC_...) before, and Python its hash seed.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import logging
import os
import pkgutil
import random
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "OFA_TEST_PROGRAMS"  # environment variable, for the processes of a suite
MODULES = (
    "ofa",
    "ofa.trainer.processes",
    "torch.distributed.launch",
    "fairseq_cli.train",
    "fairseq_cli.generate",
)
SCRIPTS = (
    "fairseq-train",
    "fairseq-validate",
    "fairseq-generate",
    "train.py",
    "forks.py",
    "data_wait.py",
    "gpu.py",
    "trainer_overhead.py",
)
LOADED = (
    "ofa.fairseq_plugin",
    "fairseq.trainer",
    "fairseq.logging.progress_bar",
    "hydra",
    "torch.distributed.run",
    "torch._dynamo",
    "ofa.data.augment",
    "ofa.inference.api",
    "ofa.inference.evaluate",
)
# Variables that somebody reads at import.
EARLY = tuple("OMP_ MKL_ KMP_ ONEDNN_ DNNL_ TORCH_ PYTORCH_ PYTHON LD_ LC_ LANG TZ FAIRSEQ".split())


def interpreter() -> str:
    """Its path, in the folder ``bin`` of what serves as ``OFA_VENV``; ``ofa`` lies beside it. The
    first call within a suite starts the server."""
    folder = Path(os.environ[FOLDER])
    path, ready = folder / "bin/python", folder / "ready"
    with open(folder / "starting", "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not ready.exists():
            client = Path(__file__).with_name("program_client.py").read_text()
            path.parent.mkdir()
            path.write_text(f"#!{sys.executable} -IS\n{client}")
            path.with_name("ofa").write_text(f'#!/bin/sh\nexec {path} -m ofa "$@"\n')
            for program in path.parent.iterdir():
                program.chmod(0o755)
            path.with_name("python3").symlink_to(path)
            search = [str(Path(__file__).parent), str(ROOT), *_search_path(os.environ)]
            server = subprocess.Popen(
                [sys.executable, "-c", f"import programs; programs.serve({str(folder)!r})"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            assert server.stdout is not None and server.stdout.read() == b"ready"
            ready.touch()
    return str(path)


def begin_suite() -> Path:
    """Called once, by the process that ends last: the server ends with it. Returns: a folder to
    remove."""
    folder = Path(tempfile.mkdtemp(prefix="ofa_programs_"))
    (folder / "suite").write_text(str(os.getpid()))
    os.environ[FOLDER] = str(folder)
    return folder


def _search_path(environment: Any) -> list[str]:
    return list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))


class _Start(NamedTuple):
    """How the server began."""

    environment: dict[str, str]
    installed: list[str]  # what is searched for modules behind PYTHONPATH


# --- the server -----------------------------------------------------------------------------------


def serve(folder: str) -> None:
    """Fork until the suite ends. In a fork it runs the program, and returns or raises what that
    does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    suite = os.pidfd_open(int(Path(folder, "suite").read_text()))
    given = _search_path(os.environ)
    start = _Start(dict(os.environ), [it for it in sys.path if it and it not in given])
    _load()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen(64)
        os.write(1, b"ready")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        program = _Server(listener, suite, start).loop()
    if program is None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
    _become(program, start)


def _load() -> None:
    import ofa  # before fairseq: nothing is registered and patched yet

    for name in LOADED:
        importlib.import_module(name)
    for package in (ofa.models, ofa.criterions, ofa.tasks):
        for info in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{info.name}")
    import quick_hydra
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    quick_hydra.install()  # and parse the options' defaults
    words = ["no-data", "--arch=transformer"]
    convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), words)
    )
    logging.getLogger().handlers.clear()
    gc.collect()
    gc.freeze()


class _Server:
    """Forks, and tells each client how its program ended."""

    def __init__(self, listener: socket.socket, suite: int, start: "_Start") -> None:
        self.listener, self.suite, self.start = listener, suite, start
        self.clients: dict[int, socket.socket] = {}  # by number of the process
        self.ends: dict[int, int] = {}  # descriptor of a process -> its number

    def loop(self) -> dict[str, Any] | None:
        """None at the end of the suite; in a fork its request."""
        while True:
            waiting: list[Any] = [self.listener, self.suite, *self.clients.values(), *self.ends]
            ready, _, _ = select.select(waiting, [], [])
            if self.suite in ready:
                for process in self.clients:
                    _kill(process)
                return None
            for end in set(self.ends) & {it for it in ready if isinstance(it, int)}:
                self.tell_end(end)
            for process, client in list(self.clients.items()):
                if client in ready and client.fileno() >= 0:  # the client is gone
                    _kill(process)
                    self.clients.pop(process).close()
            if self.listener in ready and (request := self.begin()):
                return request

    def tell_end(self, end: int) -> None:
        process = self.ends.pop(end)
        os.close(end)
        _, status = os.waitpid(process, 0)
        if client := self.clients.pop(process, None):
            with client, contextlib.suppress(OSError):
                client.sendall(str(os.waitstatus_to_exitcode(status)).encode())

    def begin(self) -> dict[str, Any] | None:
        """Fork for the next client. Returns: in the fork the request."""
        client, _ = self.listener.accept()
        request = _receive(client)
        process = os.fork() if _is_served(request, self.start) else -1
        if process == 0:
            for other in (*self.clients.values(), client):
                other.close()
            for end in (*self.ends, self.suite):
                os.close(end)
            return request
        for stream in request["streams"]:
            os.close(stream)
        if process < 0:
            client.sendall(b"0\n")
            client.close()
            return None
        self.clients[process] = client
        self.ends[os.pidfd_open(process)] = process
        client.sendall(f"{process}\n".encode())
        return None


def _receive(client: socket.socket) -> dict[str, Any]:
    start, streams, _, _ = socket.recv_fds(client, 4, 3)
    (length,) = struct.unpack("I", start)
    content = b""
    while len(content) < length:
        content += client.recv(length - len(content))
    request = {**json.loads(content), "streams": streams}
    request["given"] = request["words"]
    request["through"] = "PYTHONUNBUFFERED" in request["environment"]
    if request["words"][:1] == ["-u"]:  # as torchrun starts its processes
        request["words"], request["through"] = request["words"][1:], True
    return request


def _kill(process: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not lead its group yet
        with contextlib.suppress(ProcessLookupError):
            kill(process, signal.SIGKILL)


def _is_served(request: dict, start: _Start) -> bool:
    """Whether a fork does what the interpreter itself would do."""
    words, environment = request["words"], request["environment"]
    module = words[1] if words[:1] == ["-m"] else None
    if module not in MODULES and not (words and Path(words[0]).name in SCRIPTS):
        return False
    early = {name for name in {*start.environment, *environment} if name.startswith(EARLY)}
    early -= {"PYTHONPATH", "TORCH_NCCL_ASYNC_ERROR_HANDLING"}  # the latter by torchrun
    for name in early:  # some are set by what is imported
        if environment.get(name) not in (start.environment.get(name), os.environ.get(name)):
            return False
    importlib.invalidate_caches()
    search = _where_to_search(request, start)
    if "sitecustomize" in sys.modules and not _is_loaded("sitecustomize", search):
        return False
    names = ("ofa", "fairseq", "torch", "torchvision", "numpy", "PIL")
    return all(_is_loaded(name, search) for name in names)


def _is_loaded(name: str, search: list[str]) -> bool:
    """Whether here is imported what a program would import, if anything."""
    found, loaded = _find(name, search), sys.modules.get(name)
    return (found and found.origin) == (loaded and loaded.__file__)


def _find(name: str, search: list[str]) -> Any:
    """As an import does; what is installed to be edited has a finder of its own."""
    for finder in sys.meta_path:
        if found := finder.find_spec(name, search if finder is PathFinder else None):
            return found
    return None


def _where_to_search(request: dict, start: _Start) -> list[str]:
    """``sys.path`` of the program."""
    folder, (first, *_) = Path(request["folder"]), request["words"]
    first = folder if first == "-m" else (folder / first).parent
    given = [folder / it for it in _search_path(request["environment"])]
    return [*map(str, (first, *given)), *start.installed]


def _become(request: dict[str, Any], start: _Start) -> None:
    """Run the program of a request in this process."""
    os.setsid()
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        through = request["through"] and mode == "w"
        buffered: Any = open(number, f"{mode}b", 0 if through else -1, closefd=False)
        how = {"errors": "backslashreplace"} if number == 2 else {}
        lines = number == 2 or os.isatty(number)
        text = io.TextIOWrapper(
            buffered, "utf-8", line_buffering=lines, write_through=through, **how
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:] = _where_to_search(request, start)
    sys.executable = request["executable"]
    random.seed()
    numpy: Any = sys.modules["numpy"]
    numpy.random.seed()
    first, *words = request["words"]
    module = words.pop(0) if first == "-m" else None
    sys.argv = [first, *words]
    sys.orig_argv = [sys.executable, *request["given"]]
    if not _is_loaded("sitecustomize", sys.path):
        importlib.import_module("sitecustomize")
    del sys.modules["programs"], vars(sys.modules["__main__"])["programs"]
    os._exit(_status_of(module, first))


def _status_of(module: str | None, path: str) -> int:
    """Run a module, or a file, as the interpreter does. Returns: the status to exit with.

    All that an interpreter does at its end is done then, but to take itself apart: that would copy
    what forks share, for a second.
    """
    code: Any = None
    try:
        if module is None:
            runpy.run_path(path, run_name="__main__")
        else:
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return (code or 0) & 255
