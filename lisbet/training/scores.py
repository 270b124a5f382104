"""Losses and scores of all tasks over an epoch: over every batch and every process."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lisbet.tasks import Task
from lisbet.training.sampler import Batch

NORM = "gradient_norm"
"""Column of the history: the mean over the steps of the gradient's norm."""
MARKED = "marked."


class Scores:
    """The losses and the metric of each task, and the norm of the gradient.

    Nothing waits for the device before `compute`; there the processes exchange their counts.
    """

    def __init__(self, tasks: dict[str, Task], device: torch.device) -> None:
        def mean() -> MeanMetric:
            return MeanMetric(nan_strategy="disable").to(device)

        self.tasks = tasks
        self.losses = {name: mean() for name in tasks}
        self.metrics = {name: task.metric().to(device) for name, task in tasks.items()}
        self.norm, self.norms = mean(), 0
        # Given as a number, it would be copied to the device, which training would wait for.
        self._weight = torch.ones((), device=device)
        self._marked: dict[str, Tensor] = {}

    def losses_of(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task: (tasks,), with its graph."""
        return torch.stack(
            [task.loss(logits[name], batch[name][1]) for name, task in self.tasks.items()]
        )

    def take(self, losses: Tensor, logits: dict[str, Tensor], batch: Batch) -> None:
        """Take in a batch."""
        for (name, task), loss in zip(self.tasks.items(), losses.detach(), strict=True):
            self.losses[name].update(loss, self._weight)
            task.update(self.metrics[name], logits[name].detach(), batch[name][1])

    def take_norm(self, norm: Tensor) -> None:
        """Take in the norm of a step's gradient."""
        self.norm.update(norm.detach(), self._weight)
        self.norms += 1

    def compute(self, part: str) -> dict[str, float]:
        """Return the results so far, named as the columns of the history."""
        results = {f"{part}_loss": 0.0}
        for name, task in self.tasks.items():
            loss = self.losses[name].compute().item()
            results[f"{part}_loss"] += loss
            results[f"{name}_{part}_loss"] = loss
            results[f"{name}_{part}_{task.score}"] = self.metrics[name].compute().item()
        if self.norms:
            results[NORM] = self.norm.compute().item()
        return results

    def mark(self) -> None:
        """Let `since_mark` count from here."""
        self._marked = self._counts()

    def since_mark(self) -> Tensor:
        """Return this process's counts since the mark: (n,), on the CPU. Waits for the device."""
        return torch.cat(
            [
                (now.double() - self._marked[key].double() if key in self._marked else now.double())
                .reshape(-1)
                for key, now in self._counts().items()
            ]
        ).cpu()  # fmt: skip

    def of_counts(self, counts: Tensor, part: str) -> dict[str, float]:
        """Return the results of counts (n,) of `since_mark`, summed over processes."""
        other = Scores(self.tasks, torch.device("cpu"))
        parts, place = other._parts(), 0
        for key, now in self._counts().items():
            name, _, field = key.rpartition(".")
            own = counts[place : place + now.numel()].reshape(now.shape).to(now.dtype)
            setattr(parts[name], field, own)
            place += now.numel()
        for metric in parts.values():
            metric._update_count = 1
            metric._to_sync = False  # the counts are of all processes already
        other.norms = int(other.norm.weight > 0)
        return other.compute(part)

    def reset(self) -> None:
        """Start anew."""
        self._marked = {}
        self.norms = 0
        for metric in self._parts().values():
            metric.reset()

    def state(self) -> dict[str, Tensor]:
        """Return the counts of this process, to go on from."""
        counts = {key: value.cpu() for key, value in self._counts().items()}
        marked = {f"{MARKED}{key}": value.cpu() for key, value in self._marked.items()}
        return counts | marked | {"norms": torch.tensor(self.norms)}

    def load(self, states: list[dict[str, Tensor]], rank: int, processes: int) -> None:
        """Go on from the counts of all processes, of which there may have been another number."""
        self.norms = int(states[0]["norms"])
        if len(states) == processes:
            own = states[rank]
        elif rank == 0:
            own = {key: torch.stack([state[key] for state in states]).sum(0) for key in states[0]}
        else:
            return  # the first one counts for all
        for name, metric in self._parts().items():
            for key in metric._defaults:
                setattr(metric, key, own[f"{name}.{key}"].to(metric.device))
            metric._update_count = 1
        device = self.norm.device
        self._marked = {
            key.removeprefix(MARKED): value.to(device)
            for key, value in own.items()
            if key.startswith(MARKED)
        }

    def _counts(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": getattr(metric, key).detach().clone()
            for name, metric in self._parts().items()
            for key in metric._defaults
        }

    def _parts(self) -> dict[str, Metric]:
        parts: dict[str, Metric] = {f"loss.{name}": m for name, m in self.losses.items()}
        return parts | {f"score.{n}": m for n, m in self.metrics.items()} | {"norm": self.norm}
