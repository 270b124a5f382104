"""The options of what is done with datasets."""

from typing import Literal, Self

from pydantic import model_validator

from lisbet.core.config import DataPath, Dataset
from lisbet.core.errors import ConfigError
from lisbet.options._base import (
    LABEL_READER_NAMES,
    READER_NAMES,
    AnnotationFormat,
    DataFormat,
    DataOptions,
    option,
    positional,
)


class FolderOptions(DataOptions):
    """A folder of recordings, with or without annotations."""

    data_path: DataPath = positional(
        "folder of recordings: every folder in it with a tracking file"
    )
    data_format: DataFormat = option(
        "auto",
        "format of the tracking files; auto: found by looking into them",
        group="data",
        known=READER_NAMES,
    )
    annot_format: AnnotationFormat | None = option(
        None,
        "format of the annotations beside them; default: annotations are left alone",
        group="data",
        known=LABEL_READER_NAMES,
    )

    @model_validator(mode="after")
    def _subject_of_annotations(self) -> Self:
        if self.subject is not None and self.annot_format is None:
            raise ConfigError(
                f"--subject={self.subject} chooses events of annotations, which are not read; pass "
                "--annot_format"
            )
        return self

    @property
    def dataset(self) -> Dataset:
        """The folder of recordings, with the formats of its files."""
        return Dataset(path=self.data_path, format=self.data_format, annotations=self.annot_format)


class ConvertOptions(FolderOptions):
    """Convert recordings to one Zarr store, prepared for training and read in parts.

    For datasets larger than memory, and for file systems that are slow at many small files. An
    interrupted conversion goes on where it was when the same command is given again.

    Examples
    --------
    betman convert_dataset --data_scale=1024x570 datasets/mice datasets/mice.zarr
    betman train_model --data_format=zarr datasets/mice.zarr
    """

    target: DataPath = positional("the store to write, such as datasets/mice.zarr, or its address")
    workers: int | None = option(
        None,
        "processes that read; each holds a recording or two in memory; default: one for each core",
        ge=1,
    )
    storage: Literal["float32", "float16"] = option(
        "float32", "numbers in the store; float16 halves it and rounds coordinates"
    )
    append: bool = option(False, "add the recordings that the store does not hold yet")
    overwrite: bool = option(False, "replace an earlier store")
    skip_bad: bool = option(False, "leave out recordings that cannot be used, and name them")

    @model_validator(mode="after")
    def _one_way_to_write(self) -> Self:
        if self.append and self.overwrite:
            raise ConfigError("--append keeps what --overwrite replaces; pass one of them")
        if self.data_format == "zarr":
            raise ConfigError("--data_format=zarr: this dataset is converted already")
        return self


class DatasetInfoOptions(FolderOptions):
    """Describe a dataset: recordings, lengths, missing points, ranges, and the memory it takes.

    Examples
    --------
    betman dataset_info datasets/mice
    betman dataset_info --data_format=zarr datasets/mice.zarr
    """
