"""Run betman commands in processes that are forked from one that has imported everything.

A forked process has the state of Accelerate and PyTorch as it is after the imports, and starts in
milliseconds. The process that forks runs this file; `ForkedRuns` starts it and talks to it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_S = 240
"""A command that takes longer has stopped making progress, and is killed."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: the largest exit code of its processes, and all that they printed."""

    code: int
    output: str
    seconds: float


class ForkedRuns:
    """The process that forks. To be closed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu",
                              "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(
        self,
        words: list[str],
        cwd: Path,
        *,
        processes: int = 1,
        environment: dict[str, str] | None = None,
        stop_after: int | None = None,
    ) -> Ended:
        """Run a command.

        Parameters
        ----------
        words : list of str
            The command line, without the program's name.
        cwd : Path
            The working directory; the output is kept there in files `output0`, `output1`, ….
        processes : int
            How many processes run it, as a launcher would start them.
        environment : dict of str
            Variables of these processes.
        stop_after : int, optional
            Send SIGTERM to the first process when it has trained so many steps.
        """
        order = {"words": words, "cwd": str(cwd), "processes": processes,
                 "environment": environment or {}, "stop_after": stop_after}  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that forks has ended"
        return Ended(**json.loads(answer))

    def close(self) -> None:
        """End the process that forks."""
        self.process.communicate("", timeout=60)


def _import_everything() -> None:
    import accelerate  # noqa: F401
    import deepspeed  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import movement.io  # noqa: F401
    import tensorboard.compat.proto.summary_pb2  # noqa: F401
    import torch._dynamo
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.utils.tensorboard
    import wandb  # noqa: F401

    import lisbet.data.readers.movement
    import lisbet.data.readers.zarr
    import lisbet.training.train  # noqa: F401

    torch.set_num_threads(1)


def _serve() -> None:
    """Run each command that standard input names, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    for line in sys.stdin:
        order = json.loads(line)
        started = time.monotonic()
        ended = _run(order) | {"seconds": round(time.monotonic() - started, 2)}
        print(json.dumps(ended), file=answers, flush=True)
    os._exit(0)  # taking everything apart that was imported takes seconds


def _run(order: dict[str, Any]) -> dict[str, Any]:
    count, cwd = order["processes"], Path(order["cwd"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            environment = order["environment"]
            if count > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank),
                                "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
            _be_one(order["words"], cwd, rank, environment, order["stop_after"])
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    output = "".join((cwd / f"output{rank}").read_text() for rank in range(count))
    return {"code": max(codes, key=abs), "output": output}


def _be_one(
    words: list[str], cwd: Path, rank: int, environment: dict[str, str], stop_after: int | None
) -> None:
    """Be one process of a command; does not return."""
    code: Any = 99
    try:
        signal.alarm(LONGEST_S)
        os.chdir(cwd)
        os.dup2(os.open(f"output{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        os.dup2(2, 1)
        os.environ |= environment
        if stop_after is not None and rank == 0:
            _send_sigterm_after(stop_after)
        from lisbet.cli import main

        main(words)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        if "--wandb" in words:
            import wandb

            wandb.teardown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _send_sigterm_after(steps: int) -> None:
    """Let this process get a SIGTERM when it has trained so many steps."""
    from lisbet.training.trainer import Trainer

    train_step = Trainer.train_step

    def counted(self: Trainer) -> None:
        train_step(self)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    Trainer.train_step = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    _serve()
