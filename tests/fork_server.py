"""A Python that starts in milliseconds, for tests that start many processes of betman.

`ForkServer` starts a process that has imported everything and forks. `ForkServer.python` is an
executable that takes ``-m lisbet …`` as Python does, and leaves all else to it: it hands its words,
folder, environment and standard files to that process, passes signals on, and ends as the forked
process does. There `sys.executable` is this Python, too: a launcher's processes are forked as well.
A file that the environment variable TEST_PATCH names runs before the command: it changes what the
command calls.
"""

import array
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

CLIENT = """#!{python} -SEs
import array, json, os, signal, socket, sys
words = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if words[:2] != ["-m", "lisbet"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
order = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(order).to_bytes(8, "big")],
               [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(order)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    number = getattr(signal, name)
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: server.sendall(bytes([number])))
answer = b""
while len(answer) < 4:
    part = server.recv(4 - len(answer))
    if not part:
        os._exit(99)
    answer += part
code = int.from_bytes(answer, "big", signed=True)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class ForkServer:
    """The process that forks. To be closed."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        address = str(Path(self.folder.name) / "socket")
        self.python = Path(self.folder.name) / "python"
        self.python.write_text(CLIENT.format(python=sys.executable, address=address))
        self.python.chmod(0o755)
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("OMP_", "GOMP_"))}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, __file__, address, str(self.python)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"DS_ACCELERATOR": "cpu", "TORCH_CPP_LOG_LEVEL": "FATAL",
                               "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError("the process that forks did not start")

    def close(self) -> None:
        """End the process that forks, and all that it has forked."""
        self.process.terminate()
        self.process.communicate()
        self.folder.cleanup()


def serve(address: str, python: str) -> None:
    """Fork for each connection, until SIGTERM."""
    _import_everything()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    print("ready", flush=True)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the middle processes are not waited for
    while True:
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            _watch(connection, python)
        connection.close()


def _watch(connection: socket.socket, python: str) -> None:
    """Fork the process that is asked for, pass signals on to it, answer how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    head, extra, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    files = array.array("i")
    files.frombytes(extra[0][2])
    length, content = int.from_bytes(head, "big"), b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    words, cwd, environment = json.loads(content)
    child = os.fork()
    if not child:
        connection.close()
        _be(words, cwd, environment, files, python)
    for file in files:
        os.close(file)
    over = threading.Event()

    def pass_on() -> None:
        while numbers := connection.recv(1):
            if not over.is_set():
                os.kill(child, numbers[0])
        if not over.is_set():
            os.kill(child, signal.SIGKILL)  # whoever asked has been killed

    threading.Thread(target=pass_on, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    over.set()
    with contextlib.suppress(OSError):
        connection.sendall(code.to_bytes(4, "big", signed=True))
    os._exit(0)


def _be(words: list[str], cwd: str, environment: dict[str, str], files: array.array,
        python: str) -> None:  # fmt: skip
    """Be the process that was asked for; does not return."""
    code: object = 99
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.executable, sys.argv = python, ["betman", *words[2:]]
        assert words[:2] == ["-m", "lisbet"], words
        import torch

        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cores))
        if patch := os.environ.get("TEST_PATCH"):
            exec(compile(Path(patch).read_text(), patch, "exec"), {})
        from lisbet.cli import main

        main(words[2:])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _import_everything() -> None:
    from forked_runs import _import_everything as import_everything

    import_everything()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
