"""The files that applying a model leaves: checked before long work, written while it goes on."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from accelerate import Accelerator

from lisbet.commands.applying.sidecar import SIDECAR, ResultModel, require_one_model
from lisbet.core.errors import OutputError
from lisbet.core.json_types import JsonDict
from lisbet.core.storage import write_log
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.data.files.sources import find_sources
from lisbet.data.files.versions import FileChoice
from lisbet.data.inference import Recordings
from lisbet.data.preparation.compatibility import preparation_of
from lisbet.data.readers import dataset_reader
from lisbet.models.multitask import ModelConfig
from lisbet.options import AnnotateOptions, InferenceOptions
from lisbet.options._preparation import plain
from lisbet.tasks import TASKS

MOST_PENDING = 2
"""Recordings whose files wait to be written while the next one is computed."""


def settings_of(options: InferenceOptions, config: ModelConfig) -> JsonDict:
    """Return the options that change results, where they differ from what is done without them."""
    found: JsonDict = {}
    if options.uses_bf16:
        found["mixed_precision"] = options.mixed_precision
    if isinstance(options, AnnotateOptions):
        supervised = [name for name in config.out_heads if name in TASKS and TASKS[name].supervised]
        if options.task is not None and len(supervised) > 1:
            found["task"] = options.task
        if options.threshold not in (None, 0.5):
            found["threshold"] = options.threshold
    return found


class Results:
    """The files that a command writes, the same for each recording.

    Parameters
    ----------
    folder : Path
        Holds a folder for each recording; its log notes the files.
    names : sequence of str
        Names of the files.
    known : sequence of str
        Names of all files that results of this kind may have.
    overwrite : bool
        Whether files that betman wrote before are replaced.
    accelerator : Accelerator
        Only the main process checks, and notes the model in `SIDECAR`; if it fails, all processes
        end.
    settings : dict
        Options that change the results, where they are not the defaults; noted there, too.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        known: Sequence[str],
        *,
        overwrite: bool,
        accelerator: Accelerator,
        settings: JsonDict,
    ) -> None:
        self.model: ResultModel | None = None
        """What writes the files, once it is known."""
        self.folder, self.names, self.known, self.overwrite = folder, names, known, overwrite
        self.settings = settings
        self.is_main_process = accelerator.is_main_process
        self.notes = write_log.WriteLog(folder)
        self._writer = ThreadPoolExecutor(1, "write results")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(cancel_futures=True)

    def require_before_reading(self, options: InferenceOptions, config: ModelConfig) -> None:
        """Check what can be checked before weights and recordings are read.

        Raises
        ------
        OutputError
            If the folder cannot be written, or there are tables that must not be replaced, or of
            another model.
        """
        require_writable(self.folder)
        if self.is_main_process and options.weights_path.is_file():
            self.model = ResultModel.of(config.model_id, options.weights_path, self.settings)
            if not options.override_preparation and config.preparation is not None:
                remembered = {"preparation": plain(config.preparation)}
                self.model = self.model.model_copy(update=remembered)
        # The ids of a Zarr store stand in the store; they are checked when it was opened.
        if self.is_main_process and dataset_reader(options.dataset) is None:
            sources = find_sources(options.dataset, options.filters, FileChoice.of(options))
            self.require_writable([source.id for source in sources])
        elif self.model is not None and not self.overwrite:
            require_one_model(self.folder, self.model, self.names, self.known, (), overwrite=False)

    def require_writable(self, record_ids: Sequence[str]) -> tuple[str, ...]:
        """Check the places of the tables of these recordings.

        Returns
        -------
        tuple of str
            Recordings whose tables are of another model, and are going to be replaced.

        Raises
        ------
        OutputError
            If there are tables that must not be replaced, or of another model.
        """
        if self.is_main_process:
            paths = [
                self.folder / record_id / name for record_id in record_ids for name in self.names
            ]
            require_result_files(paths, root=self.folder, overwrite=self.overwrite)
            if self.model is not None:
                return require_one_model(
                    self.folder, self.model, self.names, self.known, record_ids,
                    overwrite=self.overwrite,
                )  # fmt: skip
        return ()

    def begin(self, bank: Recordings, options: InferenceOptions) -> None:
        """Check once more, now that the recordings are known, and note the model.

        Raises
        ------
        OutputError
            See `require_writable`.
        """
        if not self.is_main_process:
            return
        assert self.model is not None
        if self.model.preparation is None:
            applied = preparation_of(list(bank.records), options)
            applied.pop("fps", None)  # a fact about these recordings
            self.model = self.model.model_copy(update={"preparation": plain(applied)})
        replaced = self.require_writable(bank.ids)
        self.model = self.model.model_copy(update={"unfinished": replaced})
        self.model.write(self.folder)

    def finish(self) -> None:
        """Note that all tables are written, where those of another model were replaced."""
        if self.is_main_process and self.model is not None and self.model.unfinished:
            self.model = self.model.model_copy(update={"unfinished": ()})
            self.model.write(self.folder)

    def write(self, record_id: str, writers: Sequence[Callable[[Path], None]]) -> None:
        """Write the files of a recording while this thread goes on; see `wait`.

        Each writer writes one of them, in the order of their names. At most `MOST_PENDING`
        recordings wait in memory.

        Raises
        ------
        LisbetError, OSError
            If an earlier table could not be written.
        """
        while len(self._pending) >= MOST_PENDING:
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._write, record_id, writers))

    def wait(self) -> None:
        """Wait until all tables are written.

        Raises
        ------
        LisbetError, OSError
            If one could not be written.
        """
        while self._pending:
            self._pending.popleft().result()

    def _write(self, record_id: str, writers: Sequence[Callable[[Path], None]]) -> None:
        """Write the files of a recording.

        They replace ours: nothing was there when `require_writable` checked, so that another
        process of this command wrote it meanwhile; or it was to be replaced.
        """
        found = None if self.model is None else ResultModel.read(self.folder / SIDECAR)
        if self.model is not None and found is not None and not found.is_same(self.model):
            raise OutputError(
                f"another command writes results into {self.folder} at the same time, "
                f"{self.model.difference(found)}; choose another --output_path for one of them"
            )
        for name, write in zip(self.names, writers, strict=True):
            path = self.folder / record_id / name
            with write_file(path, root=self.folder, overwrite=True, notes=self.notes) as temporary:
                write(temporary)
