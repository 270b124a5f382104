"""Bring published models from the Hugging Face hub, a mirror of it, or a folder."""

import os
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lisbet import model_dir
from lisbet.errors import ModelError
from lisbet.options import PUBLISHED_MODELS, FetchModelOptions
from lisbet.publish import published_folder

FILES = ["*.yml", "*.yaml", "*.md", "weights/*.pt"]
"""What belongs to a model directory; nothing else of a repository is taken."""


def fetch_model(options: FetchModelOptions) -> None:
    """Write models/<name> after checking that the network and its weights load."""
    repository = PUBLISHED_MODELS.get(options.model_id, options.model_id)
    name = repository.rpartition("/")[2]
    folder = model_dir.run_folder(options.output_path, name, overwrite=options.overwrite)
    with published_folder(folder) as beside:
        if options.source is not None:
            _copy(options.source, beside)
        else:
            _download(repository, options.revision, beside)
        _check(beside, repository)
    print(f"{repository} is in {folder}")


def _copy(source: Path, folder: Path) -> None:
    if not (source / model_dir.MODEL_CONFIG).is_file():
        raise ModelError(f"--source={source} is no model directory: no {model_dir.MODEL_CONFIG}")
    for pattern in FILES:
        for file in source.glob(pattern):
            target = folder / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def _download(repository: str, revision: str | None, folder: Path) -> None:
    try:
        snapshot_download(
            repository,
            revision=revision,
            local_dir=folder,
            allow_patterns=FILES,
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError) as error:
        raise ModelError(
            f"no model {repository!r} on the hub that may be read; published models: "
            f"{', '.join(PUBLISHED_MODELS)}, others are named ORGANISATION/NAME"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision!r}") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{repository} cannot be downloaded ({' '.join(str(error).split())[:200]}). Where "
            "there is no internet: download its folder elsewhere, copy it here, and add "
            "--source=FOLDER"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes


def _check(folder: Path, repository: str) -> None:
    """Refuse what does not load."""
    config = folder / model_dir.MODEL_CONFIG
    weights = sorted((folder / "weights").glob("*.pt"))
    if not config.is_file() or not weights:
        raise ModelError(f"{repository} holds no {model_dir.MODEL_CONFIG} with weights/*.pt")
    for file in weights:
        model_dir.load_model(config, file)
