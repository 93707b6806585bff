"""Stands where a test names an interpreter: lets the server of ``programs`` run what is to be run,
or becomes the interpreter itself. ``programs`` makes an executable file of this text; it is started
without site-packages, in 20 ms."""

import contextlib
import json
import os
import signal
import socket
import struct
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    words = sys.argv[1:]
    ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    pending: list[int] = []
    for number in {*SIGNALS} - {*ignored}:
        signal.signal(number, lambda number, _: pending.append(number))
    server = socket.socket(socket.AF_UNIX)
    request = {
        "words": words,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": ignored,
        "executable": os.path.abspath(__file__),
    }
    content = json.dumps(request, ensure_ascii=True).encode()
    try:
        server.connect(os.path.abspath(f"{__file__}/../../socket"))
        socket.send_fds(server, [struct.pack("I", len(content))], [0, 1, 2])
        server.sendall(content)
        process = int(server.makefile().readline() or 0)
    except OSError:
        process = 0
    if not process:
        for number in {*SIGNALS} - {*ignored}:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *words])

    def pass_on(number: int, _: object = None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    for number in {*SIGNALS} - {*ignored}:
        signal.signal(number, pass_on)
    for number in pending:
        pass_on(number)
    # A lock that was kept through exec is given up here, for the process that now works.
    os.closerange(3, server.fileno())
    os.closerange(server.fileno() + 1, 256)
    status = server.recv(16)
    if not status:
        os._exit(70)  # the server is gone
    code = int(status)
    if code < 0:
        with contextlib.suppress(OSError):  # KILL and STOP have no handlers
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
