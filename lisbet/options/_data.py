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
    option,
    positional,
)
from lisbet.options._recordings import DataOptions


class FolderOptions(DataOptions):
    """A folder of recordings, with or without annotations."""

    data_path: DataPath = positional(
        "folder of recordings: every folder in it with a tracking file"
    )
    data_format: DataFormat = option(
        "auto",
        "format of the tracking files; auto: detected from the files",
        affects="files",
        group="data",
        known=READER_NAMES,
    )
    annot_format: AnnotationFormat | None = option(
        None,
        "format of the annotations next to the tracking files; default: annotations are not read",
        affects="data",
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
    interrupted conversion is resumed when the same command is given again.

    Examples
    --------
    betman convert_dataset --data_scale=1024x570 datasets/mice datasets/mice.zarr
    betman train_model --data_format=zarr datasets/mice.zarr
    """

    target: DataPath = positional("the store to write, such as datasets/mice.zarr, or its address")
    workers: int | None = option(
        None,
        "number of processes that read; each holds one or two recordings in memory; default: one "
        "per core",
        affects="run",
        ge=1,
    )
    storage: Literal["float32", "float16"] = option(
        "float32",
        "number format of the converted dataset; float16 halves its size and rounds coordinates",
        affects="data",
    )
    append: bool = option(
        False, "add recordings that the converted dataset does not contain yet", affects="nothing"
    )
    overwrite: bool = option(False, "replace an earlier converted dataset", affects="nothing")
    skip_bad: bool = option(
        False, "leave out recordings that cannot be used, and list them", affects="run"
    )

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
