"""Losses and scores of all tasks over an epoch: over every batch and every process."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from lisbet.core.errors import ModelError
from lisbet.tasks import Task
from lisbet.training.datasets.sampler import Batch

NORM = "gradient_norm"
"""Column of the history: the mean over the steps of the gradient's norm."""
MARKED = "marked."


class Scores:
    """The losses and the score of each task, and the norm of the gradient, as counts.

    Nothing waits for the device before `compute`; there the processes exchange their counts.
    Losses and the norm are counted as (sum, number of summands).
    """

    def __init__(self, tasks: dict[str, Task], device: torch.device) -> None:
        self.tasks = tasks
        # Apple's GPUs have no float64.
        real = torch.float32 if device.type == "mps" else torch.float64
        self._counts = {
            f"loss.{name}": torch.zeros(2, dtype=real, device=device) for name in tasks
        } | {
            f"score.{name}": torch.zeros(task.score_counts, dtype=torch.int64, device=device)
            for name, task in tasks.items()
        }
        self._counts["norm"] = torch.zeros(2, dtype=real, device=device)
        self._marked: dict[str, Tensor] = {}

    def losses_of(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task: (tasks,), with its graph."""
        return torch.stack(
            [task.loss(logits[name], batch[name][1]) for name, task in self.tasks.items()]
        )

    def update(self, losses: Tensor, logits: dict[str, Tensor], batch: Batch) -> None:
        """Add a batch."""
        for (name, task), loss in zip(self.tasks.items(), losses.detach(), strict=True):
            self._add(f"loss.{name}", loss)
            counted = task.count(logits[name].detach(), batch[name][1])
            self._counts[f"score.{name}"] += counted

    def update_norm(self, norm: Tensor) -> None:
        """Add the norm of a step's gradient."""
        self._add("norm", norm.detach())

    def _add(self, key: str, value: Tensor) -> None:
        counts = self._counts[key]
        counts[0] += value
        counts[1] += 1

    def compute(self, part: str) -> dict[str, float]:
        """Return the results of all processes so far, named as the columns of the history."""
        counts = torch.cat([own.to(self._counts["norm"].dtype) for own in self._counts.values()])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(counts)
        return self.of_counts(counts.cpu(), part)

    def mark(self) -> None:
        """Let `since_mark` count from here."""
        self._marked = {key: counts.clone() for key, counts in self._counts.items()}

    def since_mark(self) -> Tensor:
        """Return this process's counts since the mark: (n,), on the CPU. Waits for the device."""
        return torch.cat(
            [
                (now - self._marked[key] if key in self._marked else now).cpu().double()
                for key, now in self._counts.items()
            ]
        )

    def of_counts(self, counts: Tensor, part: str) -> dict[str, float]:
        """Return the results of counts (n,) of `since_mark`, summed over processes."""
        sizes = [len(own) for own in self._counts.values()]
        parts = dict(zip(self._counts, counts.split(sizes), strict=True))  # type: ignore[no-untyped-call]
        results = {f"{part}_loss": 0.0}
        for name, task in self.tasks.items():
            loss = _mean(parts[f"loss.{name}"])
            results[f"{part}_loss"] += loss
            results[f"{name}_{part}_loss"] = loss
            results[f"{name}_{part}_{task.score}"] = task.score_of(parts[f"score.{name}"])
        if parts["norm"][1] > 0:
            results[NORM] = _mean(parts["norm"])
        return results

    def reset(self) -> None:
        """Set all counts to zero."""
        self._marked = {}
        for counts in self._counts.values():
            counts.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counts of this process."""
        marked = {f"{MARKED}{key}": counts for key, counts in self._marked.items()}
        return {key: counts.cpu().clone() for key, counts in (self._counts | marked).items()}

    def load_state_dict(self, states: list[dict[str, Tensor]], rank: int, processes: int) -> None:
        """Continue from the counts of all processes, whose number may have been different.

        Raises
        ------
        ModelError
            If an earlier version of betman wrote them, in the middle of an epoch.
        """
        if any(not self._counts.keys() <= state.keys() for state in states):
            raise ModelError(
                "the checkpoint is of an earlier version of betman, whose scores of an unfinished "
                "epoch this version cannot read; resume it with that version"
            )
        if len(states) == processes:
            own = states[rank]
        elif rank == 0:
            own = {key: torch.stack([state[key] for state in states]).sum(0) for key in states[0]}
        else:
            return  # the first one counts for all
        for key, counts in self._counts.items():
            counts.copy_(own[key])
        self._marked = {
            key.removeprefix(MARKED): value.to(self._counts["norm"].device)
            for key, value in own.items()
            if key.startswith(MARKED)
        }


def _mean(counts: Tensor) -> float:
    total, number = counts.tolist()
    return total / number if number else math.nan
