"""Losses and scores of all tasks over an epoch: over every batch and every process."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from lisbet.tasks import Task
from lisbet.training.sampler import Batch


class Scores:
    """The losses and the metric of each task.

    Nothing waits for the device before `compute`; there the processes exchange their counts.
    """

    def __init__(self, tasks: dict[str, Task], device: torch.device) -> None:
        self.tasks = tasks
        self.losses = {name: MeanMetric(nan_strategy="disable").to(device) for name in tasks}
        self.metrics = {name: task.metric().to(device) for name, task in tasks.items()}

    def total_loss(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """Take in a batch; return the sum of the tasks' losses, a scalar with its graph."""
        losses = []
        for name, task in self.tasks.items():
            labels = batch[name][1]
            loss = task.loss(logits[name], labels)
            self.losses[name].update(loss.detach())
            task.update(self.metrics[name], logits[name].detach(), labels)
            losses.append(loss)
        return torch.stack(losses).sum()

    def compute(self, part: str) -> dict[str, float]:
        """Return the results since the last call, named as the columns of the history."""
        results = {f"{part}_loss": 0.0}
        for name, task in self.tasks.items():
            loss = self.losses[name].compute().item()
            results[f"{part}_loss"] += loss
            results[f"{name}_{part}_loss"] = loss
            results[f"{name}_{part}_{task.score}"] = self.metrics[name].compute().item()
        for metric in (*self.losses.values(), *self.metrics.values()):
            metric.reset()
        return results
