"""Find the files of a model that is named by its folder, its configuration, or its hub name."""

import os
import re
from pathlib import Path
from typing import TypeVar, cast

from lisbet.core.errors import ModelError
from lisbet.core.storage.folders import interrupted
from lisbet.options import ExportOptions, InferenceOptions

MODEL_CONFIG = "model_config.yml"
WEIGHTS = "weights"
WEIGHTS_LAST = f"{WEIGHTS}/weights_last.pt"
SAFETENSORS = ".safetensors"
"""Ending of weights in the format of that name: the tensors of a .pt, without a pickle."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ("*.yml", "weights/*")
SHOWN = 5
"""Names that a message lists."""


Given = TypeVar("Given", bound=ExportOptions | InferenceOptions)


def located(options: Given) -> Given:
    """Return options that name the files of a model, however it was given; see `model_files`."""
    given = options.weights_path if "weights_path" in options.model_fields_set else None
    config, weights = model_files(options.model_path, given)
    files = {"model_path": config, "weights_path": weights}
    return cast("Given", options.model_copy(update=files))


def model_files(model: Path, weights: Path | None = None) -> tuple[Path, Path]:
    """Find the configuration and the weights of a model.

    Parameters
    ----------
    model : Path
        The model's folder, its model_config.yml, or its name ``ORG/NAME`` on the Hugging Face hub,
        from where it is downloaded into the cache of `huggingface_hub` if it is not there yet.
    weights : Path, optional
        Its weights: a file, or a folder that holds weights_last.pt. Default:
        weights/weights_last.pt in its folder, else the only file in weights/.

    Returns
    -------
    config, weights : Path
        Files; whether they can be read shows when they are.

    Raises
    ------
    ModelError
        If there is no model, or it is not clear which weights are meant.
    """
    config = config_of(model)
    if weights is None:
        return config, _only_weights(config.parent)
    if weights.is_dir():
        last = Path(WEIGHTS_LAST).name
        weights = weights / (last if weights_file(weights / last).exists() else WEIGHTS_LAST)
    return config, weights_file(weights)


def weights_file(path: Path) -> Path:
    """Return the file that is read as weights: the .pt, or the .safetensors file next to it.

    Parameters
    ----------
    path : Path
        As the user named it.
    """
    other = path.with_suffix(SAFETENSORS)
    return other if path.suffix == ".pt" and not path.is_file() and other.is_file() else path


def config_of(model: Path) -> Path:
    """Return the model_config.yml of a model; see `model_files`."""
    if not os.path.lexists(model) and HUB_NAME.fullmatch(str(model)) and not model.parent.exists():
        model = _download(str(model))
    if model.is_dir():
        if not (model / MODEL_CONFIG).is_file():
            raise ModelError(f"{model} holds no {MODEL_CONFIG}; {_models_in(model)}")
        return model / MODEL_CONFIG
    if not os.path.lexists(model) and model.suffix not in (".yml", ".yaml"):
        if interrupted(model):
            return model / MODEL_CONFIG  # reading it says what to do
        raise ModelError(f"{model}: no such model; {_models_in(model.parent)}")
    return model


def _only_weights(folder: Path) -> Path:
    """Return the last weights of a model's folder, or the only ones."""
    last = weights_file(folder / WEIGHTS_LAST)
    files = (*folder.glob(f"{WEIGHTS}/*.pt"), *folder.glob(f"{WEIGHTS}/*{SAFETENSORS}"))
    found = sorted({weights_file(file.with_suffix(".pt")) for file in files})
    if last.exists() or not found:
        return last
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:SHOWN])
        raise ModelError(
            f"{folder} has no {WEIGHTS_LAST}, but several other files of weights: {names}; name "
            "one of them after the model"
        )
    return found[0]


def _models_in(folder: Path) -> str:
    """Say which models a folder holds."""
    names = sorted(file.parent.name for file in folder.glob(f"*/{MODEL_CONFIG}"))
    if not names:
        return "expected a folder such as models/RUN, a model_config.yml, or ORG/NAME on the hub"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"the models in {folder} are {', '.join(names[:SHOWN])}{more}"


def _download(name: str) -> Path:
    """Bring a model of the hub into the cache; without a network, what is there is used."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=list(HUB_FILES), endpoint=os.environ.get("HF_ENDPOINT")
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"{name} is no folder here, and no model of that name could be read from the hub "
            f"({' '.join(str(error).split())[:200]}); check the name, or give the model's folder"
        ) from error
