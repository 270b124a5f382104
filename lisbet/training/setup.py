"""Everything that is read, resolved and checked before the first step."""

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from lisbet import model_dir
from lisbet.config import Features
from lisbet.data.bank import Bank
from lisbet.data.load import load_records, summary
from lisbet.data.record import Record
from lisbet.errors import ConfigError, DataError
from lisbet.models.backbones import BACKBONES
from lisbet.models.multitask import ModelConfig, first_message
from lisbet.options import TrainOptions
from lisbet.tasks import TASKS, Task
from lisbet.training.sampler import Sampler, split

DEVICE_SHARE = 0.5
"""The bank lies on the training device if it takes at most this share of its free memory."""


@dataclass(frozen=True)
class Setup:
    """A run that can start.

    Parameters
    ----------
    folder : Path
        The model directory to be.
    records : list of Record
        The prepared recordings.
    tasks : dict of Task
        What is trained, by name.
    config : ModelConfig
        The network.
    train, dev : Sampler
        What draws from the recordings to train on, and from those held out, if any are.
    """

    folder: Path
    records: list[Record]
    tasks: dict[str, Task]
    config: ModelConfig
    train: Sampler
    dev: Sampler | None

    @classmethod
    def from_options(cls, options: TrainOptions, device: torch.device) -> "Setup":
        """Read the recordings, resolve the options, and refuse what cannot work.

        Raises
        ------
        LisbetError
            One message; nothing has been written.
        """
        run_id = options.run_id or time.strftime("%Y%m%d%H%M%S")
        folder = model_dir.run_folder(options.output_path, run_id, overwrite=options.overwrite)
        settings = options.set.by_owner()
        tasks = {name: _configured_task(name, settings.get(name, {})) for name in options.task_ids}
        backbone_config(options, feature_dim=1)  # the sizes, before reading takes its time
        records = load_records(options.data_path, options)
        bank = Bank.from_records(records)
        train, dev = _samplers(options, tasks, bank, device)
        config = model_config(options, run_id, tasks, bank.features)
        return cls(folder, records, tasks, config, train, dev)

    def run_config(self, options: TrainOptions) -> dict[str, Any]:
        """Return everything that is needed to repeat the run."""
        resolved = options.model_dump(mode="json") | {"run_id": self.config.model_id}
        packages = ("lisbet", "torch", "accelerate", "numpy")
        return {
            "options": resolved,
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in packages},
            "data": {
                "fingerprint": {
                    sampler.part: sampler.bank.fingerprint() for sampler in self.samplers
                },
                "split": {sampler.part: list(sampler.bank.ids) for sampler in self.samplers},
                "preparation": {record.id: list(record.steps) for record in self.records},
            },
        }

    @property
    def samplers(self) -> list[Sampler]:
        """The samplers there are."""
        return [self.train] if self.dev is None else [self.train, self.dev]

    def describe(self, parameters: int, devices: str) -> str:
        """Describe data, network and batches, for a lab notebook."""
        sizes = ", ".join(f"{key} {value}" for key, value in self.config.backbone.items())
        window = self.config.window
        lines = [
            summary(self.records),
            f"network:     {sizes}; {parameters} parameters",
            f"window:      {window.size} frames, offset {window.offset}",
            f"device:      {devices}, recordings in "
            f"{self.train.bank.bytes / 2**20:.1f} MiB on {self.train.bank.tracks.device}",
        ]
        lines += [
            f"{sampler.part + ':':12} {len(sampler.bank)} recordings, "
            f"{sampler.bank.frames} frames; {sampler.steps} steps per epoch of "
            f"{sampler.batch_size} windows for each of {', '.join(self.tasks)}"
            for sampler in self.samplers
        ]
        return "\n".join(lines)


def backbone_config(options: TrainOptions, feature_dim: int) -> dict[str, Any]:
    """Return the backbone part of model_config.yml.

    Raises
    ------
    ConfigError
        On a setting that the backbone does not have, or sizes that do not fit each other.
    """
    kind = BACKBONES[options.backbone].Config
    own = sorted(kind.model_fields.keys() - {"feature_dim", "max_length"})
    settings = options.backbone_settings
    if strange := settings.keys() - set(own):
        raise ConfigError(
            f"a {options.backbone} has no setting {', '.join(sorted(strange))}; "
            f"it has {', '.join(own)}"
        )
    try:
        sizes = kind.for_window(feature_dim, options.window_size, **settings)
    except ValidationError as error:
        raise ConfigError(f"backbone: {first_message(error)}") from error
    return {"type": options.backbone, **sizes.model_dump()}


def model_config(
    options: TrainOptions, run_id: str, tasks: dict[str, Task], features: Features
) -> ModelConfig:
    """Return the configuration of the network that the options ask for."""
    backbone = backbone_config(options, features.size)
    hidden_dim = backbone["hidden_dim"] if options.head_type == "mlp" else None
    return ModelConfig(
        model_id=run_id,
        backbone=backbone,
        input_features=features,
        out_heads={
            name: task.head(backbone["embedding_dim"], hidden_dim, options.window)
            for name, task in tasks.items()
        },
        window_size=options.window_size,
        window_offset=options.window_offset,
    )


def _configured_task(name: str, settings: dict[str, str]) -> Task:
    kind = TASKS[name]
    if strange := settings.keys() - kind.model_fields.keys():
        known = ", ".join(kind.model_fields) or "none"
        raise ConfigError(
            f"task {name!r} has no setting {', '.join(sorted(strange))}; it has {known}"
        )
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(f"task {name!r}: {first_message(error)}") from error


def _samplers(
    options: TrainOptions, tasks: dict[str, Task], bank: Bank, device: torch.device
) -> tuple[Sampler, Sampler | None]:
    train_ids, dev_ids = split(bank.ids, options.dev_ratio, options.seed)
    bank = bank.to(device) if _fits(bank, device) else bank
    made = {}
    for part, ids, sample in (
        ("train", train_ids, options.train_sample),
        ("dev", dev_ids, options.dev_sample),
    ):
        own = bank.subset(ids)
        for task in tasks.values() if ids else ():
            try:
                task.check(own)
            except DataError as error:
                of_part = f" ({part} part)" if dev_ids else ""
                raise DataError(f"{options.data_path}{of_part}: {error}") from error
        made[part] = Sampler(
            part, tasks, own, options.window, options.seed, options.batch_size, sample, device
        )
    return made["train"], made["dev"] if dev_ids else None


def _fits(bank: Bank, device: torch.device) -> bool:
    """Whether the bank may lie on the training device."""
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return bank.bytes <= DEVICE_SHARE * free
