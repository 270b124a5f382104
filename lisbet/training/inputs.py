"""Everything that is read, resolved and checked before the first step."""

import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from pydantic import ValidationError
from torch import nn

from lisbet import augment
from lisbet.core import registry
from lisbet.core.config import Features
from lisbet.core.errors import ConfigError, counted, first_message
from lisbet.core.json_types import JsonDict
from lisbet.core.option_values import Size
from lisbet.core.redact import redacted_values
from lisbet.data.load import summary
from lisbet.distributed import environment
from lisbet.distributed.start import mixed_precision_of
from lisbet.models import model_dir
from lisbet.models.backbones import BACKBONES
from lisbet.models.multitask import ModelConfig, require_whole_backbone
from lisbet.options import BACKBONE_SIZES, TrainingOptions, TrainOptions, affecting
from lisbet.tasks import TASKS, Task
from lisbet.training import run_folder
from lisbet.training.checkpoint import resume
from lisbet.training.conditioning import Conditioning
from lisbet.training.datasets.banks import Loaded, load, samplers
from lisbet.training.datasets.batching import Batching
from lisbet.training.datasets.sampler import Sampler
from lisbet.training.strategies import Strategy

VERSIONS = ("lisbet", "torch", "accelerate", "numpy")
MOST_LISTED = 1000
"""With more recordings, run_config.yml counts preparation steps instead of listing them."""


@dataclass(frozen=True)
class TrainingInputs:
    """Recordings, tasks and network of a run, read and checked.

    Parameters
    ----------
    folder : Path
        The model directory.
    resuming : bool
        Whether it has checkpoints to resume from.
    loaded : Loaded
        The prepared recordings.
    tasks : dict of Task
        The tasks to train, by name.
    config : ModelConfig
        The network.
    train, dev : Sampler
        What draws from the recordings to train on, and from those held out, if any are.
    backbone : dict of Tensor, optional
        Weights that the backbone starts from.
    conditioning : Conditioning, optional
        Of the input of the network.
    """

    folder: Path
    resuming: bool
    loaded: Loaded
    tasks: dict[str, Task]
    config: ModelConfig
    train: Sampler
    dev: Sampler | None
    backbone: dict[str, torch.Tensor] | None
    conditioning: Conditioning | None = None

    @classmethod
    def from_options(cls, options: TrainOptions, device: torch.device) -> "TrainingInputs":
        """Read the recordings, resolve the options, and refuse what cannot work.

        Raises
        ------
        LisbetError
            One message; nothing has been written.
        """
        options = run_folder.with_run_id(options)
        assert options.run_id is not None
        run_id = options.run_id
        found: list[Any] = [None]
        if environment.rank() == 0:  # other machines may not see a recent rename yet
            found = [run_folder.check(options, run_id)]
        folder, resuming = broadcast_object_list(found)[0]
        tasks = check_without_recordings(options)
        backbone = None
        if options.load_backbone_weights is not None:
            backbone = model_dir.read_weights(options.load_backbone_weights)
            if options.freeze_backbone_weights:
                source = str(options.load_backbone_weights)
                require_whole_backbone(backbone_config(options, feature_dim=1), backbone, source)
        remembered = None
        if options.resume or options.debug_step is not None:
            (remembered,) = broadcast_object_list([resume.remembered_bank_memory(folder)])
        loaded = load(options, tasks, remembered)
        train, dev = samplers(options, tasks, loaded, device)
        config = model_config(options, run_id, tasks, loaded.bank.features, loaded.preparation)
        conditioning = None
        if options.condition_input and not options.freeze_backbone_weights:
            (conditioning,) = broadcast_object_list([Conditioning.of(train)])
        return cls(folder, resuming, loaded, tasks, config, train, dev, backbone, conditioning)

    def run_config(self, options: TrainOptions, strategy: Strategy, batching: Batching) -> JsonDict:
        """Return everything that is needed to repeat the run, with every default resolved.

        The processes are not part of the options: they do not change the model.
        """
        resolved = options.model_dump(mode="json", exclude={*affecting(TrainOptions, "nothing")})
        sizes = self.config.backbone
        resolved |= {
            "run_id": self.config.model_id,
            "mixed_precision": mixed_precision_of(strategy.accelerator),
            **{option: sizes.get(name) for option, name in BACKBONE_SIZES.items()},
            # Samples follow from it.
            "bank_memory": str(Size(bytes=self.loaded.memory)),
        }
        return {
            "options": redacted_values(resolved),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in VERSIONS}
            | registry.packages(),
            "processes": {
                "strategy": strategy.name,
                "count": batching.processes,
                "gradient_accumulation_steps": batching.gradient_accumulation_steps,
                "micro_batch_size": batching.micro_batch_size,
            },
            "chance": {
                name: round(task.chance, 6)
                for name, task in self.tasks.items()
                if task.chance is not None
            },
            "data": {
                "fingerprint": self.loaded.fingerprint(),
                "split": {
                    sampler.part: sorted({i for bank in sampler.banks.values() for i in bank.ids})
                    for sampler in self.samplers
                },
                "preparation": self._preparation(),
            }
            | ({} if (frames := self.loaded.split_frames()) is None else {"split_frames": frames}),
        }

    def _preparation(self) -> JsonDict:
        """Say what was done to each recording; of very many, how many each was done to."""
        done = {record.id: list(record.steps) for record in self.loaded.records}
        if len(done) <= MOST_LISTED:
            return done
        return dict(Counter("; ".join(steps) for steps in done.values()).most_common(MOST_LISTED))

    def _where(self) -> str:
        size = f"{self.loaded.bank.bytes / 2**20:.1f} MiB"
        if self.loaded.memory is None:
            return f"recordings:  {size} in memory"
        descriptions = {
            str(bank): None for sampler in self.samplers for bank in sampler.banks.values()
        }
        return f"recordings:  {size}, of which " + "; ".join(descriptions)

    @property
    def samplers(self) -> list[Sampler]:
        """The samplers there are."""
        return [self.train] if self.dev is None else [self.train, self.dev]

    def describe(self, model: nn.Module, strategy: Strategy, batching: Batching) -> str:
        """Describe data, network and batches, for a lab notebook."""
        accelerator = strategy.accelerator
        weights = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
        parameters = sum(count for count, _ in weights)
        trained = sum(count for count, trains in weights if trains)
        sizes = ", ".join(f"{key} {value}" for key, value in self.config.backbone.items())
        window = self.config.window
        lines = [
            summary(self.loaded.records),
            f"network:     {sizes}",
            f"parameters:  {parameters}, {trained} of them trained",
            f"window:      {window.size} frames, offset {window.offset}",
            f"device:      {accelerator.num_processes} × {accelerator.device.type}, "
            f"{strategy.name}, mixed precision {mixed_precision_of(accelerator)}",
            f"batch:       {batching}",
            self._where(),
        ]
        for sampler in self.samplers:
            lines.append(
                f"{sampler.part + ':':12} {sampler.steps} steps per epoch of "
                f"{sampler.batch_size} windows for each task"
            )
            lines += [
                f"  {name:10} {counted(len(bank), 'recording')}, {bank.frames} frames"
                + (f", classes {', '.join(self.tasks[name].classes)}" * self.tasks[name].supervised)
                for name, bank in sampler.banks.items()
            ]
        changes = augment.as_text(self.train.augmentations)
        lines += [f"augmented:   {changes}"] if changes else []
        return "\n".join(lines)


def check_without_recordings(options: TrainingOptions) -> dict[str, Task]:
    """Configure the tasks and check the sizes of the network, before reading takes its time.

    Raises
    ------
    ConfigError
        If a setting cannot be.
    """
    settings = options.set.by_owner()
    tasks = {name: _configured_task(name, settings.get(name, {})) for name in options.task_ids}
    backbone_config(options, feature_dim=1)
    if options.condition_input and BACKBONES[options.backbone].input_layer is None:
        raise ConfigError(
            f"--condition_input needs a backbone whose first layer is linear, and takes each frame "
            f"by itself; a {options.backbone} has none"
        )
    slowest = min(task.slowest for task in tasks.values())
    options.window.require_two_frames(options.fps_scaling, slowest)
    return tasks


def backbone_config(options: TrainingOptions, feature_dim: int) -> JsonDict:
    """Return the backbone part of model_config.yml.

    Raises
    ------
    ConfigError
        On a setting that the backbone does not have, or sizes that do not fit each other.
    """
    kind = BACKBONES[options.backbone].Config
    own = sorted(kind.model_fields.keys() - kind.derived)
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
    options: TrainOptions,
    run_id: str,
    tasks: dict[str, Task],
    features: Features,
    preparation: JsonDict | None = None,
) -> ModelConfig:
    """Return the configuration of the network that the options ask for."""
    backbone = backbone_config(options, features.size)
    sizes = BACKBONES[options.backbone].Config(
        **{name: value for name, value in backbone.items() if name != "type"}
    )
    hidden_dim = sizes.head_hidden_dim if options.head_type == "mlp" else None
    return ModelConfig(
        model_id=run_id,
        backbone=backbone,
        input_features=features,
        out_heads={
            name: task.head(sizes.embedding_dim, hidden_dim, options.window)
            for name, task in tasks.items()
        },
        window_size=options.window_size,
        window_offset=options.window_offset,
        behaviors={name: task.classes for name, task in tasks.items() if task.classes},
        targets={name: scale for name, task in tasks.items() if (scale := task.standardisation)},
        preparation=preparation,
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
