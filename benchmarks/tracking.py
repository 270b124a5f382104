"""What tracking costs: time of a step without it, with W&B offline, and with a server that died.

The server is the stand-in of the tests; it dies before the first step that is measured. The three
runs are in one process and take turns, round by round, so that whatever else the machine does
meets all alike. A step is a real one, of the default network; a row is logged every `--log_every`
steps, which is what an interval costs when it is short.

    python benchmarks/tracking.py [--rounds 15] [--steps 20] [--log_every 10]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from accelerate import Accelerator
from wandb_server import WandbServer

from lisbet.data.hub.sample_data import write
from lisbet.distributed.failure_watch import distributed_session
from lisbet.options import TrainOptions
from lisbet.training import run_folder
from lisbet.training.stopping import StopSignal
from lisbet.training.train import make_trainer
from lisbet.training.trainer import Trainer

OFF, OFFLINE, DEAD = "none", "W&B offline", "W&B, server died"


def ready(
    accelerator: Accelerator, folder: Path, kind: str, arguments: argparse.Namespace
) -> Trainer:
    """Make a trainer that is ready for its first step."""
    tracked = kind != OFF
    options = TrainOptions(
        data_path=(folder / "data",), run_id=kind.split()[-1], output_path=folder, epochs=10**6,
        batch_size=arguments.batch_size, window_size=arguments.window_size,
        micro_batch_size=arguments.batch_size,
        log_every=arguments.log_every if tracked else 10**9,
        wandb=tracked, wandb_mode="offline" if kind == OFFLINE else None, embedding_every=0,
    )  # fmt: skip
    trainer, _, _ = make_trainer(accelerator, options, StopSignal())
    run_folder.create(options, trainer.folder, trainer.inputs.config, trainer.config)
    trainer.logger.start(0, 0, resumed=False)
    trainer.set_train_mode()
    return trainer


def steps(trainer: Trainer, count: int) -> float:
    """Make steps as the loop does; return the time of one."""
    started = time.perf_counter()
    for _ in range(count):
        trainer.train_step()
        if trainer.logger.is_due(trainer.step):
            trainer.logger.log(trainer.step, trainer.measure())
            trainer.scores.mark()
    return (time.perf_counter() - started) / count


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--log_every", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--window_size", type=int, default=200)
    arguments = parser.parse_args()
    server = WandbServer()
    os.environ |= {
        "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "WANDB_SILENT": "true",
    }  # fmt: skip
    kinds = (OFF, OFFLINE, DEAD)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as place, distributed_session() as accelerator:
        folder = Path(place)
        write(folder / "data", [3000] * 4)
        runs = {kind: ready(accelerator, folder, kind, arguments) for kind in kinds}
        for trainer in runs.values():
            steps(trainer, 3 * arguments.log_every)
        for _ in range(300):
            if server.rows:
                break
            time.sleep(0.1)
        assert server.rows, "W&B did not start"
        server.die()
        for number in range(arguments.rounds):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                times[kind].append(steps(runs[kind], arguments.steps))
        for trainer in runs.values():
            trainer.logger.finish()
    print(
        f"\nbatch {arguments.batch_size}, W {arguments.window_size}, {arguments.rounds} rounds of "
        f"{arguments.steps} steps, a row every {arguments.log_every} steps; ratios within a round\n"
    )
    print("| tracking | step, ms | compared with none |\n|---|---|---|")
    for kind in kinds:
        ratios = [own / none for own, none in zip(times[kind], times[OFF], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"| {kind} | {1000 * statistics.median(times[kind]):.1f} | "
            f"{statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}) |"
        )


if __name__ == "__main__":
    main()
