"""Tasks: one file is one task. A module holds ``TASK``, a subclass of Task."""

from lisbet.core.registry import Registry
from lisbet.tasks._supervised import SupervisedTask
from lisbet.tasks._task import Task

TASKS: Registry[type[Task]] = Registry("task", __name__, "TASK")

__all__ = ["TASKS", "SupervisedTask", "Task"]
