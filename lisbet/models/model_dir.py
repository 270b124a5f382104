"""The model directory: what other programs read. Write, read, describe, export."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from lisbet.core.errors import LisbetError, ModelError, OutputError, first_message, shortened
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.folders import interrupted, recover, write_folder
from lisbet.core.storage.lock import locked
from lisbet.core.storage.results import lies_in, require_result_folder
from lisbet.core.storage.write_log import LOG
from lisbet.core.yaml_files import read_yaml, write_yaml
from lisbet.models.heads import EmbeddingHeadConfig
from lisbet.models.locate import MODEL_CONFIG as MODEL_CONFIG
from lisbet.models.locate import SAFETENSORS as SAFETENSORS
from lisbet.models.locate import WEIGHTS as WEIGHTS
from lisbet.models.locate import WEIGHTS_LAST as WEIGHTS_LAST
from lisbet.models.locate import config_of, located
from lisbet.models.locate import weights_file as weights_file
from lisbet.models.multitask import (
    ModelConfig,
    MultiTaskModel,
    load_weights,
    outline,
    require_fitting,
)
from lisbet.options import ExportOptions, InfoOptions
from lisbet.options._preparation import described

log = logging.getLogger(__name__)

RUN_CONFIG = "run_config.yml"
EMBEDDING = "embedding"
MODEL = "model"
"""Kind of the folders of models that were exported or fetched, see `write_log`."""
LARGEST_CONFIG = 2**20
"""Bytes of a model_config.yml; it usually has less than 1000."""
BUFFER = 8 * 2**20
"""Bytes written at once: a network file system is slow at small pieces."""


def save_weights(
    path: Path, weights: dict[str, Tensor], *, root: Path, overwrite: bool = False
) -> None:
    """Write a state dict as float32 tensors on the CPU; see `files.write_file` for the rest.

    A path that ends in .safetensors is written in that format, any other by torch.save.
    """
    plain = {
        key: value.detach().to("cpu", torch.float32).contiguous() for key, value in weights.items()
    }
    with write_file(path, root=root, overwrite=overwrite) as temporary:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import save

            # Two tensors of a file may be parts of the same memory, which this format has not.
            temporary.write_bytes(save({key: value.clone() for key, value in plain.items()}))
        else:
            save_tensors(plain, temporary)


def save_tensors(content: object, path: Path) -> None:
    """Save as torch.save does, which hides why the system refused to write; this does not."""
    refused: list[OSError] = []

    class Stream(io.FileIO):
        def write(self, data: Any) -> int:
            try:
                return super().write(data)
            except OSError as error:
                refused.append(error)
                raise

    with Stream(path, "w") as raw:
        try:
            with io.BufferedWriter(raw, BUFFER) as stream:
                torch.save(content, stream)
        except Exception as error:
            raise (refused[0] if refused else error) from None


def read_config(path: Path) -> ModelConfig:
    """Read a model_config.yml.

    Raises
    ------
    ModelError
        If the file is missing, is no YAML, or does not describe a network.
    """
    if copies := interrupted(path.parent):
        raise ModelError(
            f"{path.parent} is missing: a command was killed while it replaced it. Give that "
            "command again, which brings it back first; or rename one of the whole copies: "
            f"{', '.join(map(str, copies))}"
        )
    try:
        return ModelConfig(**read_yaml(path, largest=LARGEST_CONFIG))
    except ValidationError as error:
        raise ModelError(f"{path} does not describe a model:\n  {first_message(error)}") from error
    except LisbetError as error:
        raise ModelError(f"{path} cannot be read as a model: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict, of a .pt or .safetensors file; nothing but tensors is admitted.

    Raises
    ------
    ModelError
        If the file is missing, damaged, or holds something else.
    """
    path = weights_file(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected weights such as {WEIGHTS_LAST}")
    try:
        weights = _loaded(path)
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise ModelError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, cut off "
            "or holds something else than tensors"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(f"{path} does not hold a state dict, but a {type(weights).__name__}")
    for key, value in weights.items():
        if not _is_plain(value):
            raise ModelError(
                f"{path}: {shortened(str(key), 80)} is not a plain tensor whose numbers are all in "
                "the file; save the state dict of the network on the CPU, in a floating-point type"
            )
    return weights


def _loaded(path: Path) -> Any:
    """Return what a file of weights holds."""
    if path.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of pickles that it then refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def require_same_weights(one: Path, other: Path) -> None:
    """Refuse two files of weights, a .pt and its .safetensors, that hold different tensors.

    Raises
    ------
    ModelError
        Naming the first tensor that differs.
    """
    first, second = read_weights(one), read_weights(other)
    for key in sorted(first.keys() | second.keys()):
        if key not in first or key not in second or not torch.equal(first[key], second[key]):
            raise ModelError(
                f"{one} and {other.name} are the same weights in two formats, but "
                f"{shortened(key, 80)} differs; remove the one that is wrong"
            )


def _is_plain(value: Tensor) -> bool:
    """Whether all numbers of a tensor are in its file: not sparse, nor one number for many."""
    return (
        value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.dtype.is_floating_point
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def load_model(config_path: Path, weights_path: Path) -> tuple[ModelConfig, MultiTaskModel]:
    """Build the network of a model directory, on the CPU, with its weights.

    It is built only after the weights were found to fit, so that it takes as much memory as they.
    """
    config = read_config(config_path)
    weights = read_weights(weights_path)
    require_fitting(outline(config), weights, str(weights_path))
    model = MultiTaskModel(config)
    load_weights(model, weights, str(weights_path))
    return config, model.eval()


def embedder_config(config: ModelConfig) -> ModelConfig:
    """Return the configuration of the same network with an embedding head only."""
    head = EmbeddingHeadConfig(output_token_idx=config.window.output_token)
    return config.model_copy(
        update={
            "model_id": f"{config.model_id}-embedder",
            "behaviors": {},
            "targets": {},
            "out_heads": {EMBEDDING: head},
        }
    )


def without_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the weights of the task heads."""
    return {key: value for key, value in weights.items() if not key.startswith("task_heads.")}


def export_embedder(options: ExportOptions) -> None:
    """Write models/<run_id>-embedder: the same network with an embedding head only."""
    options = located(options)
    config = read_config(options.model_path)
    if EMBEDDING in config.out_heads:
        raise ModelError(f"{options.model_path} is an embedder already")
    folder = options.output_path / "models" / f"{config.model_id}-embedder"
    for source in (options.model_path, options.weights_path):
        if lies_in(source, folder):
            raise OutputError(
                f"{folder} holds {source}, which is read; it is not replaced by what is made of "
                "it. Choose another --output_path"
            )
    require_writable(folder.parent)
    require_result_folder(folder, MODEL, overwrite=options.overwrite)
    embedder = embedder_config(config)
    weights = read_weights(options.weights_path)
    require_fitting(outline(config), weights, str(options.weights_path))
    kept = without_heads(weights)
    require_fitting(outline(embedder), kept, str(options.weights_path))
    with locked(folder):
        recover(folder)
        require_result_folder(folder, MODEL, overwrite=options.overwrite)
        replaces = frozenset({MODEL} if options.overwrite else ())
        with write_folder(folder, MODEL, replaces=replaces) as new:
            write_yaml(new / MODEL_CONFIG, embedder.model_dump(mode="json", exclude_defaults=True))
            name = options.weights_path.name
            if options.weights_path.suffix == SAFETENSORS:
                name = f"{options.weights_path.stem}.pt"  # the published tool reads no other
            for file in (new / WEIGHTS / name, (new / WEIGHTS / name).with_suffix(SAFETENSORS)):
                save_weights(file, kept, root=new)
    log.info("dropped the heads %s", ", ".join(config.out_heads))
    print(f"embedder written to {folder}")


def model_info(options: InfoOptions) -> None:
    """Print what a model is and what its directory contains."""
    options = options.model_copy(update={"model_path": config_of(options.model_path)})
    config = read_config(options.model_path)
    model = outline(config)
    backbone = {key: value for key, value in config.backbone.items() if key != "type"}
    sizes = {
        part: sum(weight.numel() for weight in module.parameters())
        for part, module in (("backbone", model.backbone), ("heads", model.task_heads))
    }
    lines = [
        f"model:       {config.model_id}",
        f"backbone:    {config.backbone['type']} "
        + ", ".join(f"{key} {value}" for key, value in backbone.items()),
        f"heads:       {', '.join(config.out_heads)}",
        f"parameters:  {sum(sizes.values())} "
        + f"(backbone {sizes['backbone']}, heads {sizes['heads']})",
        f"window:      {config.window_size} frames, offset {config.window_offset}",
        f"individuals: {', '.join(config.input_features.individuals)}",
        f"keypoints:   {', '.join(config.input_features.keypoints)}",
        f"axes:        {', '.join(config.input_features.space)}",
    ]
    if config.preparation is not None:
        values = (f"{name} {described(name, own)}" for name, own in config.preparation.items())
        lines.append(f"preparation: {'; '.join(values)}")
    folder = options.model_path.parent
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != LOG]
    lines += ["files:", *(f"  {f.relative_to(folder)} ({f.stat().st_size} bytes)" for f in files)]
    print("\n".join(lines))
