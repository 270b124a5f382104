"""Tasks: one file is one task. A module holds ``TASK``, a subclass of Task."""

from lisbet.core.registry import Registry
from lisbet.tasks._supervised import SupervisedTask
from lisbet.tasks._task import SelfSupervisedTask, Task

TASKS: Registry[type[Task]] = Registry("task", __name__, "TASK", "lisbet.tasks", Task)

__all__ = ["TASKS", "SelfSupervisedTask", "SupervisedTask", "Task"]
