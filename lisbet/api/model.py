"""A trained model, as notebooks and other programs use it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import xarray as xr

from lisbet.api.inference import (
    class_names,
    fitting,
    load_bank,
    outputs,
    prepared_as,
    require_threshold,
    supervised_head,
    supervised_task,
    thresholded,
)
from lisbet.api.settings import checked
from lisbet.core.errors import ConfigError
from lisbet.data.inference import Recordings
from lisbet.data.opened.attributes import is_prepared, restored
from lisbet.data.preparation.prepare import prepare
from lisbet.data.record import Record, from_dataset
from lisbet.models import model_dir
from lisbet.models.locate import model_files
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import InferenceOptions
from lisbet.options._preparation import PREPARATION, RATES

InMemory = xr.Dataset | xr.DataArray
"""Tracks of one recording: a dataset of movement, or an array with its names."""
UNNAMED = "recording"


def load_model(
    model: str | Path,
    weights: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
) -> "Model":
    """Load a trained model.

    Parameters
    ----------
    model : str or Path
        Its folder, its model_config.yml, or its name ``ORG/NAME`` on the Hugging Face hub.
    weights : str or Path, optional
        Its weights, if other than weights/weights_last.pt in its folder.
    device : str or torch.device, optional
        Where to compute; default: the accelerator of this machine, if it has one, else the CPU.

    Returns
    -------
    Model

    Raises
    ------
    LisbetError
        If there is no such model, or its files do not describe one.

    Examples
    --------
    >>> model = lisbet.load_model("models/mice")  # doctest: +SKIP
    >>> model.embed("datasets/mice")["session1"].plot()  # doctest: +SKIP
    """
    config_path, weights_path = model_files(Path(model), None if weights is None else Path(weights))
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are replaced
        config, network = model_dir.load_model(config_path, weights_path)
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        device = torch.device("cpu") if found is None else found
    return Model(config, network, torch.device(device), config_path, weights_path)


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model.

    Parameters
    ----------
    config : ModelConfig
        What model_config.yml says.
    network : MultiTaskModel
        The network with its weights, a `torch.nn.Module`.
    device : torch.device
        Where it computes.
    config_path, weights_path : Path
        Its files.
    """

    config: ModelConfig
    network: MultiTaskModel
    device: torch.device
    config_path: Path
    weights_path: Path

    def __repr__(self) -> str:
        sizes = ", ".join(f"{key}={value}" for key, value in self.config.backbone.items())
        heads = ", ".join(self.config.out_heads)
        return f"Model({self.name!r}, heads: {heads}; backbone: {sizes}; on {self.device})"

    @property
    def name(self) -> str:
        """Name of the model, its model_id."""
        return self.config.model_id

    @property
    def individuals(self) -> tuple[str, ...]:
        """Names of the individuals that it takes."""
        return self.config.input_features.individuals

    @property
    def keypoints(self) -> tuple[str, ...]:
        """Names of the keypoints that it takes."""
        return self.config.input_features.keypoints

    @property
    def space(self) -> tuple[str, ...]:
        """Names of the axes of space that it takes."""
        return self.config.input_features.space

    @property
    def window_size(self) -> int:
        """Number of frames of a window."""
        return self.config.window_size

    @property
    def embedding_dim(self) -> int:
        """Number of values of an embedding."""
        return self.config.backbone_config.embedding_dim

    def behaviors(self, task: str | None = None) -> tuple[str, ...]:
        """Return the behaviours that a supervised head knows.

        Parameters
        ----------
        task : str, optional
            The head, of a model that has several.
        """
        return tuple(class_names(self.config, supervised_head(self.config, task)))

    @cached_property
    def _embedder(self) -> MultiTaskModel:
        """The network with an embedding head; it shares the backbone."""
        if model_dir.EMBEDDING in self.config.out_heads:
            return self.network
        embedder = MultiTaskModel(model_dir.embedder_config(self.config))
        embedder.backbone = self.network.backbone
        return embedder

    @overload
    def embed(self, data: InMemory, **settings: Any) -> xr.DataArray: ...

    @overload
    def embed(self, data: str | Path, **settings: Any) -> dict[str, xr.DataArray]: ...

    def embed(self, data: InMemory | str | Path, **settings: Any) -> Any:
        """Compute the embedding of every frame.

        A model that has no embedding head is used as ``betman export_embedder`` would export it.

        Parameters
        ----------
        data : xarray.Dataset, xarray.DataArray, str or Path
            One recording: a dataset of movement, with a variable ``position``; or its positions
            as an array with the dimensions time, space, keypoints and individuals, in any order,
            and the names along them. Or the path of a folder of recordings.
        **settings
            The options of ``betman compute_embeddings`` that say how recordings are read and
            prepared, and ``batch_size``, ``mixed_precision`` and ``progress``.

        Returns
        -------
        DataArray, or dict of DataArray
            (time, embedding), float32, of the recording; of a folder by record id. The coordinate
            time is in seconds where the frame rate is known, else in frames.

        Raises
        ------
        LisbetError
            If the recordings cannot be read, or do not fit the model.
        """
        names = np.arange(self.embedding_dim)
        head = model_dir.EMBEDDING
        found = {
            record.id: _labelled(values, record, {"embedding": names}, self.name, "embedding")
            for record, values in self._apply(self._embedder, head, data, settings)
        }
        return found if isinstance(data, str | Path) else next(iter(found.values()))

    @overload
    def annotate(
        self,
        data: InMemory,
        *,
        task: str | None = None,
        probabilities: bool = False,
        threshold: float | None = None,
        **settings: Any,
    ) -> xr.DataArray: ...

    @overload
    def annotate(
        self,
        data: str | Path,
        *,
        task: str | None = None,
        probabilities: bool = False,
        threshold: float | None = None,
        **settings: Any,
    ) -> dict[str, xr.DataArray]: ...

    def annotate(
        self,
        data: InMemory | str | Path,
        *,
        task: str | None = None,
        probabilities: bool = False,
        threshold: float | None = None,
        **settings: Any,
    ) -> Any:
        """Annotate the behaviour in every frame.

        Parameters
        ----------
        data, **settings
            See `embed`.
        task : str, optional
            Supervised head to use, of a model that has several.
        probabilities : bool
            Whether to return the probability of each behaviour instead of a decision.
        threshold : float, optional
            Probability (0-1) above which a behaviour is seen, of a multilabel head; default: 0.5.

        Returns
        -------
        DataArray, or dict of DataArray
            (time, behavior), bool, or float32 probabilities; see `embed`.

        Raises
        ------
        LisbetError
            If the model has no such head, or see `embed`.
        """
        head = supervised_head(self.config, task)
        require_threshold(head, threshold)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"threshold={threshold:g}: expected a number between 0 and 1")
        kind = supervised_task(head)
        name = "probability" if probabilities else "annotation"
        columns = {"behavior": list(self.behaviors(head))}
        found = {
            record.id: _labelled(
                kind.probabilities(logits)
                if probabilities
                else kind.decide(thresholded(logits, threshold)),
                record,
                columns,
                self.name,
                name,
            )
            for record, logits in self._apply(self.network, head, data, settings)
        }
        return found if isinstance(data, str | Path) else next(iter(found.values()))

    def _apply(
        self,
        network: MultiTaskModel,
        head: str,
        data: InMemory | str | Path,
        settings: dict[str, Any],
    ) -> Iterator[tuple[Record, np.ndarray]]:
        """Yield each recording and what a head gives for its frames."""
        settings = dict(settings)
        progress = bool(settings.pop("progress", False))
        place = Path(data) if isinstance(data, str | Path) else Path(UNNAMED)
        options = checked(
            InferenceOptions, data_path=place, model_path=self.config_path,
            weights_path=self.weights_path, **settings,
        )  # fmt: skip
        if not isinstance(data, str | Path):
            dataset = _dataset_of(data)
            options = prepared_as(options, self.config, converted=is_prepared(dataset))
            bank = self._in_memory(dataset, options)
        else:
            options = prepared_as(options, self.config)
            bank = load_bank(options, self.config)
        for number, values in outputs(
            network, head, bank, self.config.window, device=self.device, progress=progress,
            batch_size=options.batch_size, fps_scaling=options.fps_scaling, bf16=options.uses_bf16,
        ):  # fmt: skip
            yield bank.records[number], values

    def _in_memory(self, dataset: xr.Dataset, options: InferenceOptions) -> Recordings:
        """Prepare one recording that is in memory, unless it was opened by `lisbet.data.open`."""
        self.config.window.require_two_frames(options.fps_scaling)
        name = str(dataset.attrs.get("recording", UNNAMED))
        record = from_dataset(name, Path(name), dataset, **options.of_reading)
        if is_prepared(dataset):
            given = [n for n in PREPARATION if n in options.model_fields_set and n not in RATES]
            if given:
                raise ConfigError(
                    f"{given[0]}: {name} was prepared by lisbet.data.open; give {given[0]} there"
                )
            record = restored(record, dataset)
        else:
            record = prepare(record, **options.of_preparation)
        return Recordings.share(fitting([record], options, self.config), [0])


def _dataset_of(data: object) -> xr.Dataset:
    """Return one recording as a dataset."""
    if isinstance(data, xr.Dataset):
        return data
    if not isinstance(data, xr.DataArray):
        raise ConfigError(
            f"a recording is an xarray.Dataset of movement or an xarray.DataArray with the "
            f"names of individuals, keypoints and axes, not a {type(data).__name__}; a NumPy "
            "array becomes one by xarray.DataArray(array, dims=('time', 'individuals', "
            "'keypoints', 'space'), coords={'individuals': …, 'keypoints': …, 'space': …})"
        )
    dataset = data.to_dataset(name="position")
    return dataset.assign_attrs(data.attrs)


def _labelled(
    values: np.ndarray, record: Record, columns: dict[str, Any], model: str, name: str
) -> xr.DataArray:
    """Return values (frames, columns) with the times of the frames and the names of the columns."""
    frames = np.arange(len(values))
    fps, start_s = record.fps, record.start_s or 0.0
    about: dict[str, Any] = {"model": model, "recording": record.id, "time_unit": "frames"}
    if fps is not None:
        about |= {"fps": fps, "time_unit": "seconds"}
    (dimension,) = columns
    return xr.DataArray(
        values,
        dims=("time", dimension),
        coords={"time": frames if fps is None else start_s + frames / fps, **columns},
        attrs=about,
        name=name,
    )
