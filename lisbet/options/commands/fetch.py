"""The options of commands that fetch datasets and models."""

from pathlib import Path

from pydantic import (
    field_validator,
)

from lisbet.core.config import require_name
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.registry import installed
from lisbet.options._base import Options, option, positional

DATASETS = {
    "SampleData": "lisbet.data.hub.sample_data:simulated",
    "CalMS21_Unlabeled": "lisbet.data.hub.calms21:unlabeled",
    "CalMS21_Task1": "lisbet.data.hub.calms21:task1",
    "CalMS21_Task2": "lisbet.data.hub.calms21:task2",
    "CalMS21_Task3": "lisbet.data.hub.calms21:task3",
    "MABe22_MouseTriplets": "lisbet.data.hub.mabe22:triplets",
}
"""Datasets by the name that users type, and the function that fetches each."""
DATASET_GROUP = "lisbet.datasets"
"""Entry points of other packages: functions that take the options and return a folder."""

PUBLISHED_MODELS = {
    name: f"gchindemi/{name}"
    for name in ("lisbet32x4-calms21U-embedder", "lisbet32x4-calms21UftT1-classifier")
}
"""Models by the name that users type, and their repositories on the Hugging Face hub."""


def dataset_names() -> list[str]:
    """Return the names of all datasets, also of other packages."""
    return [*DATASETS, *sorted(installed(DATASET_GROUP))]


class FetchOptions(Options):
    """Download or make a dataset, in the datasets folder.

    Examples
    --------
    betman fetch_dataset SampleData
    """

    dataset_id: str = positional("name of the dataset", known=dataset_names())
    download_path: Path = option(
        Path("."), "folder that contains datasets/", affects="nothing", group="output"
    )
    source: str | None = option(
        None,
        "copy of the dataset's files to use instead of downloading them from their authors: a "
        "file, a folder, or an address; the environment variable LISBET_MIRROR sets one for all "
        "datasets",
        affects="nothing",
    )
    overwrite: bool = option(
        False,
        "replace a dataset with this name that betman fetched before",
        affects="nothing",
        group="output",
    )

    @field_validator("dataset_id")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        names = {known.lower(): known for known in dataset_names()}
        if name.lower() not in names:
            raise ConfigError(unknown("dataset", name, names.values()))
        return names[name.lower()]


class FetchModelOptions(Options):
    """Download a published model into the models folder.

    Examples
    --------
    betman fetch_model lisbet32x4-calms21U-embedder
    """

    model_id: str = positional(
        "name of a published model, or ORGANISATION/NAME on the Hugging Face hub",
        known=PUBLISHED_MODELS,
    )
    revision: str | None = option(
        None, "tag, branch or commit of the model; default: the newest", affects="nothing"
    )
    source: Path | None = option(
        None,
        "folder with a copy of the model to use instead of downloading it; the environment "
        "variable HF_ENDPOINT sets a mirror",
        affects="nothing",
    )
    output_path: Path = option(
        Path("."), "folder that contains models/", affects="nothing", group="output"
    )
    overwrite: bool = option(
        False, "replace an earlier model with this name", affects="nothing", group="output"
    )

    @field_validator("model_id")
    @classmethod
    def _known_or_with_an_organisation(cls, name: str) -> str:
        if name in PUBLISHED_MODELS:
            return name
        if name.count("/") != 1:
            raise ConfigError(
                f"{unknown('published model', name, PUBLISHED_MODELS)}; others are named "
                "ORGANISATION/NAME"
            )
        for part in name.split("/"):  # the model's folder is named by the second
            require_name(part)
        return name
