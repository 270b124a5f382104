"""``--wandb``: one W&B run for each run, however often it is interrupted.

Everything that W&B does happens in a thread of its own: a slow server does not delay training, and
a failure is reported once and training continues.
"""

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import requests
import wandb

from lisbet.core.json_types import JsonDict
from lisbet.core.redact import redacted, redacted_values
from lisbet.options import TrainOptions
from lisbet.training.loggers import Start
from lisbet.training.loggers import _wandb_files as wandb_files
from lisbet.training.run_folder import update_config

log = logging.getLogger(__name__)

INIT_S, FINISH_S, FAIL_S, PROBE_S = 20.0, 30.0, 10.0, 5.0
"""Time that W&B has to start, to end, to end a run that stops, and to answer a first question."""
STOPPED = 75
NOT_IN_ARTIFACT = {"checkpoints", "wandb", "tensorboard", "status.json"}


class WandbLogger:
    """Sends what is logged to W&B.

    Parameters
    ----------
    options : TrainOptions
        Project, entity and so on.
    start : Start
        The run.
    """

    def __init__(self, options: TrainOptions, start: Start) -> None:
        self.options, self.begin = options, start
        self.id = str(start.config["tracking"]["wandb_id"])
        # W&B's own program resolves what is relative against another folder.
        self.place = Path(os.environ.get("WANDB_DIR") or start.folder).absolute()
        self.run: Any = None
        self._known = -1
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log(self, row: JsonDict, pictures: dict[str, Path]) -> None:
        """Queue a row; the thread sends it."""
        self._tasks.put((dict(row), dict(pictures)))

    def finish(self, code: int) -> None:
        """End the W&B run. What was not sent stays in its files; a warning says how to send it."""
        self._tasks.put(code)
        limit = FINISH_S if code == 0 else FAIL_S
        self._thread.join(limit)
        late = self._thread.is_alive()
        if late:
            _end_service()  # it would keep trying, and delay the end of this process
            self._thread.join(1)
        left = wandb_files.not_synced(self.place, self.id)
        if late:
            left = wandb_files.files_of(self.place, self.id)
        if left:
            log.warning(
                "W&B has not received everything; with a network connection, run: %s",
                self._advice(),
            )

    def _advice(self) -> str:
        return f"wandb sync --include-online {self.place}/wandb/*run-*-{self.id}*"

    # In the thread --------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._start()
            for row in self.begin.rows:
                self._send(row, {})
            while not isinstance(task := self._tasks.get(), int):
                self._send(*task)
            self._end(task)
        except BaseException as error:  # not even a SystemExit of W&B may end training
            log.warning(
                "W&B failed (%s: %s); training continues without it, events.jsonl has the metrics",
                type(error).__name__,
                " ".join(str(error).split())[:300],
            )

    def _start(self) -> None:
        mode = self._mode()
        inherited = wandb.env.SERVICE in os.environ
        try:
            try:
                self.run = self._init(mode)
            except Exception:
                if not inherited:
                    raise
                _end_service()  # it was started earlier, and may have ended since
                self.run = self._init(mode)
        except Exception as error:
            if mode != "online":
                raise
            log.warning("W&B: %s; continuing offline", " ".join(str(error).split())[:200])
            _end_service()  # it holds the id
            mode, self.run = "offline", self._init("offline")
        if self.run.id != self.id:  # where W&B was started decides, such as SageMaker
            self._take_id(str(self.run.id))
        if mode == "online":
            self._known = self.run.step - 1 if self.run.resumed else -1
            print(f"W&B: {self.run.url}", flush=True)
        elif self.begin.resumed:  # the file of this start has no rows yet
            self._known = wandb_files.last_step(self.place, self.id)

    def _take_id(self, run_id: str) -> None:
        """Record the id that W&B uses, for a resume."""
        self.id = run_id
        self.begin.config["tracking"]["wandb_id"] = run_id  # the next checkpoint has it, too
        update_config(self.begin.folder, self.begin.config)

    def _init(self, mode: str) -> Any:
        options, env = self.options, os.environ
        config = {**self.begin.config, "data": {**self.begin.config["data"]}}
        config["data"].pop("preparation", None)
        sys.argv[:] = map(redacted, sys.argv)  # W&B keeps the command line
        return wandb.init(
            id=self.id,
            name=redacted(env.get("WANDB_NAME") or self.begin.run_id),
            resume="allow",
            project=options.wandb_project or env.get("WANDB_PROJECT") or "lisbet",
            entity=options.wandb_entity or env.get("WANDB_ENTITY"),
            group=redacted_values(options.wandb_group or env.get("WANDB_RUN_GROUP")),
            tags=redacted_values(options.wandb_tags and list(options.wandb_tags)),
            notes=redacted_values(options.wandb_notes or env.get("WANDB_NOTES")),
            dir=str(self.place),
            mode=mode,  # type: ignore[arg-type]
            config=config,
            settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_S),
        )

    def _mode(self) -> str:
        """Decide between online and offline, and say why."""
        wanted = self.options.wandb_mode or os.environ.get("WANDB_MODE")
        if wanted and wanted != "online":
            return wanted
        reason = offline_reason(probe=not wanted)
        if reason is None and not wanted and (left := wandb_files.not_synced(self.place, self.id)):
            reason = f"{len(left)} earlier parts of this run are not synced yet"
        if reason is None:
            return "online"
        log.warning("W&B: %s: offline. Later, where there is a network: %s", reason, self._advice())
        return "offline"

    def _send(self, row: JsonDict, pictures: dict[str, Path]) -> None:
        if row["step"] <= self._known:
            return  # W&B has it: the step was repeated after a kill
        values: JsonDict = {
            name: value for name, value in row.items() if isinstance(value, int | float)
        }
        values |= {name: wandb.Image(str(path)) for name, path in pictures.items()}
        self.run.log(values, step=row["step"], commit=True)

    def _end(self, code: int) -> None:
        if self.options.wandb_artifact and code == 0:
            artifact = wandb.Artifact(self.begin.run_id, type="model")
            for path in sorted(self.begin.folder.iterdir()):
                if path.name in NOT_IN_ARTIFACT or path.name.startswith("."):
                    continue
                add = artifact.add_dir if path.is_dir() else artifact.add_file
                add(str(path), name=path.name)
            self.run.log_artifact(artifact)
        if code == STOPPED:
            self.run.mark_preempting()  # W&B then shows it as preempted, not as crashed
        self.run.finish(exit_code=code)


def offline_reason(*, probe: bool = True) -> str | None:
    """Say why W&B cannot be reached, or return None if it can; `probe` asks its server."""
    if not (os.environ.get("WANDB_API_KEY") or _has_login()):
        return "no login (wandb login, or WANDB_API_KEY)"
    if not probe:
        return None
    url = wandb.setup().settings.base_url
    try:
        answer = requests.get(f"{url}/healthz", timeout=PROBE_S)
    except requests.RequestException as error:
        return f"{url} does not answer ({type(error).__name__})"
    if answer.status_code >= 500:
        return f"{url} answers {answer.status_code}"
    return None


def _has_login() -> bool:
    import netrc
    from urllib.parse import urlparse

    host = urlparse(wandb.setup().settings.base_url).hostname or ""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(str(path)).authenticators(host) is not None
    return False


def _end_service() -> None:
    """End the program that W&B started for this process, and let W&B start another."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "wandb-core" in child.name() and child.is_running():
                child.terminate()
                time.sleep(0.2)
                child.kill()
    with contextlib.suppress(Exception):
        wandb.teardown()  # it finds the program gone; at the end of this process it would say so
    os.environ.pop(wandb.env.SERVICE, None)


LOGGER = WandbLogger
