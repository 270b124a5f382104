"""The options of commands that hand models to other programs and people."""

import re
from pathlib import Path

from pydantic import field_validator

from lisbet.core.errors import ConfigError
from lisbet.options._base import Options, option, positional

REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?")
"""Each part of ORGANISATION/NAME, as the hub allows it."""
LONGEST_REPOSITORY = 96
"""Characters of ORGANISATION/NAME."""

ENDINGS = (".pt", ".safetensors")
"""Of files of weights."""


class ExportOnnxOptions(Options):
    """Export a model as an ONNX file, for programs without PyTorch.

    Writes models/<model_id>-onnx/model.onnx, after comparing it with the model in ONNX Runtime.

    Examples
    --------
    betman export_onnx models/mice-embedder
    """

    model_path: Path = positional("the model's folder, or its model_config.yml")
    weights_path: Path | None = positional(
        "its weights; default: weights/weights_last.pt in the folder", default=None
    )
    output_path: Path = option(
        Path("."), "folder that contains models/", affects="nothing", group="output"
    )
    overwrite: bool = option(False, "replace an earlier export", affects="nothing", group="output")


class PushModelOptions(Options):
    """Publish a model on the Hugging Face hub.

    Uploads model_config.yml, one file of weights (and the same as .safetensors) and the model card
    README.md in one commit, and nothing else of the folder.

    Examples
    --------
    betman push_model --dry_run models/mice-embedder my-lab/mice-embedder
    """

    model_path: Path = positional("the model's folder, models/RUN")
    repository: str = positional("ORGANISATION/NAME on the hub; it is made if it is not there")
    weights: str | None = option(
        None,
        "file in weights/ to publish; default: weights_last.pt, or the only one",
        affects="nothing",
    )
    license: str | None = option(
        None,
        "licence of the model for the model card, as the hub names it, such as cc-by-4.0",
        affects="nothing",
    )
    private: bool = option(
        False, "make a repository that only its members can read", affects="nothing"
    )
    run_config: bool = option(
        False,
        "also upload run_config.yml, which repeats the run; it is refused if it holds passwords, "
        "tokens or paths of this machine",
        affects="nothing",
    )
    revision: str | None = option(
        None, "branch to upload to, which is made if it is not there; default: main",
        affects="nothing",
    )  # fmt: skip
    message: str | None = option(
        None, "message of the commit; default: names the model", affects="nothing", min_length=1
    )
    dry_run: bool = option(
        False, "print what would be uploaded, and upload nothing", affects="nothing"
    )

    @field_validator("repository")
    @classmethod
    def _has_an_organisation(cls, name: str) -> str:
        parts = name.split("/")
        fitting = all(REPOSITORY.fullmatch(part) and not part.endswith(".git") for part in parts)
        if len(parts) != 2 or not fitting or len(name) > LONGEST_REPOSITORY:
            raise ConfigError(
                f"{name[:120]!r} cannot be the name of a repository; expected ORGANISATION/NAME "
                f"of letters, digits, - _ and single dots, at most {LONGEST_REPOSITORY} characters"
            )
        return name

    @field_validator("weights")
    @classmethod
    def _is_a_file_name(cls, name: str | None) -> str | None:
        if name is not None and (Path(name).name != name or Path(name).suffix not in ENDINGS):
            raise ConfigError(
                f"--weights={name}: expected the name of a file in weights/ that ends in "
                f"{' or '.join(ENDINGS)}"
            )
        return name

    @field_validator("license")
    @classmethod
    def _is_one_word(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
            raise ConfigError(
                f"--license={name}: expected the hub's name of a licence, such as mit, apache-2.0 "
                "or cc-by-4.0"
            )
        return name
