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

from lisbet.core.errors import ModelError, OutputError
from lisbet.core.storage.files import require_writable
from lisbet.core.storage.folders import recover, remove_unfinished_part, write_folder
from lisbet.core.storage.lock import locked
from lisbet.core.storage.results import lies_in, require_result_folder
from lisbet.models import model_dir
from lisbet.options import PUBLISHED_MODELS, FetchModelOptions

FILES = ["*.yml", "*.yaml", "*.md", "weights/*.pt", "weights/*.safetensors"]
"""What belongs to a model directory; nothing else of a repository is taken."""


DOWNLOAD = ".download"


def fetch_model(options: FetchModelOptions) -> None:
    """Write models/<name> after checking that the network and its weights load."""
    repository = PUBLISHED_MODELS.get(options.model_id, options.model_id)
    folder = options.output_path / "models" / repository.rpartition("/")[2]
    files = [] if options.source is None else _source_files(options.source, folder)
    require_writable(folder.parent)
    require_result_folder(folder, model_dir.MODEL, overwrite=options.overwrite)
    with locked(folder):
        recover(folder)
        require_result_folder(folder, model_dir.MODEL, overwrite=options.overwrite)
        replaces = frozenset({model_dir.MODEL} if options.overwrite else ())
        with write_folder(folder, model_dir.MODEL, replaces=replaces) as new:
            if options.source is not None:
                _copy(files, options.source, new)
            else:
                _download(repository, options.revision, new)
            _check(new, repository)
    print(f"{repository} is in {folder}")


def _source_files(source: Path, folder: Path) -> list[Path]:
    """Return what belongs to the model in a folder that was copied here.

    Raises
    ------
    ModelError
        If the folder holds no model, or something that is no plain file.
    OutputError
        If it is the folder to write, or one of them is in the other.
    """
    if not (source / model_dir.MODEL_CONFIG).is_file():
        raise ModelError(f"--source={source} is no model directory: no {model_dir.MODEL_CONFIG}")
    if lies_in(source, folder) or lies_in(folder, source):
        raise OutputError(
            f"--source={source} and the folder to write, {folder}, are the same, or one is in "
            "the other; choose another --output_path"
        )
    files = [file for pattern in FILES for file in sorted(source.glob(pattern))]
    for path in [source / "weights", *files]:
        if os.path.lexists(path) and (path.is_symlink() or not (path.is_file() or path.is_dir())):
            raise ModelError(
                f"--source={source}: {path} is a link or no regular file, and is not copied; make "
                "a copy that holds the files themselves, such as with cp -rL"
            )
    return [file for file in files if file.is_file()]


def _copy(files: list[Path], source: Path, folder: Path) -> None:
    for file in files:
        target = folder / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target, follow_symlinks=False)


def _download(repository: str, revision: str | None, folder: Path) -> None:
    # A folder of its own: a hub that refuses is no error where a folder holds anything already.
    place = folder / DOWNLOAD
    try:
        snapshot_download(
            repository,
            revision=revision,
            local_dir=place,
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
    _copy([file for pattern in FILES for file in sorted(place.glob(pattern))], place, folder)
    remove_unfinished_part(place)


def _check(folder: Path, repository: str) -> None:
    """Refuse what does not load."""
    config = folder / model_dir.MODEL_CONFIG
    weights = [file for end in ("pt", "safetensors")
               for file in sorted((folder / model_dir.WEIGHTS).glob(f"*.{end}"))]  # fmt: skip
    if not config.is_file() or not weights:
        raise ModelError(f"{repository} holds no {model_dir.MODEL_CONFIG} with weights/*.pt")
    for file in weights:
        model_dir.load_model(config, file)
        if (pair := file.with_suffix(model_dir.SAFETENSORS)) != file and pair in weights:
            model_dir.require_same_weights(file, pair)
