"""The options of what draws pictures."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from lisbet.core.config import Words
from lisbet.core.errors import ConfigError
from lisbet.options._base import (
    LABEL_READER_NAMES,
    READER_NAMES,
    AnnotationFormat,
    DataFormat,
    Options,
    Paths,
    option,
    positional,
)

PictureFormat = Literal["png", "pdf", "svg"]
FORMAT_HELP = "format of the pictures: pixels (png), or curves and text that can be edited"


class PictureOptions(Options):
    """What every command that draws one picture takes."""

    format: PictureFormat | None = option(
        None,
        f"{FORMAT_HELP}; default: that of the name in --output_path, else png",
        affects="nothing",
        group="output",
    )
    output_path: Path | None = option(None, "picture to write", affects="nothing", group="output")
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )

    @model_validator(mode="after")
    def _name_and_format_agree(self) -> Self:
        ending = "" if self.output_path is None else self.output_path.suffix.lower()
        if self.format is not None and ending not in ("", f".{self.format}"):
            raise ConfigError(
                f"--format={self.format}: the name in --output_path={self.output_path} ends in "
                f"{ending}; leave one of them out"
            )
        return self

    def picture_path(self, default: Path) -> Path:
        """Return the picture to write: the one that was asked for, or a default one."""
        if self.output_path is None:
            return default.with_name(f"{default.name}.{self.format or 'png'}")
        if self.format is not None and not self.output_path.suffix:
            return self.output_path.with_name(f"{self.output_path.name}.{self.format}")
        return self.output_path


class LabelOptions(Options):
    """How the annotations of recordings are read."""

    data_format: DataFormat = option(
        "auto",
        "format of the tracking files; auto: detected from the files",
        affects="files",
        known=READER_NAMES,
    )
    fps: float | None = option(
        None,
        "frame rate of recordings whose files do not state one",
        affects="nothing",
        unit="frames per second",
        gt=0,
        allow_inf_nan=False,
    )
    annot_format: AnnotationFormat = option(
        "movement", "format of the annotations", affects="data", known=LABEL_READER_NAMES
    )
    subject: str | None = option(
        None, "use only the events of this subject; default: all", affects="nothing", min_length=1
    )
    event_slack: int = option(
        1,
        "how far an annotated event may reach beyond the last frame",
        affects="nothing",
        unit="frames",
        ge=0,
    )


class PlotHistoryOptions(PictureOptions):
    """Draw the losses and scores of runs over their epochs: a picture, and a page to look into.

    The page is one file that needs no network. Several runs are laid over each other.

    Examples
    --------
    betman plot_history models/mice
    betman plot_history models/mice models/mice-large --output_path=both.html
    """

    run_path: Paths = positional("folder of a run; or several", many=True)
    output_path: Path | None = option(
        None,
        "file to write, .png, .pdf, .svg or .html; default: training_history.png and .html in the "
        "folder of the run, or training_histories next to the folders of several runs",
        affects="nothing",
        group="output",
    )


class PlotEmbeddingsOptions(PictureOptions, LabelOptions):
    """Draw embeddings in two dimensions, coloured by recording, behaviour or motif.

    Examples
    --------
    betman plot_embeddings --labels=datasets/SampleData embeddings
    betman plot_embeddings --method=pca --color_by=chase --labels=datasets/SampleData embeddings
    betman plot_embeddings --motifs=annotations --format=pdf embeddings
    """

    embeddings_path: Path = positional("folder that compute_embeddings wrote")
    labels: Path | None = option(
        None, "folder of the recordings whose annotations give the colours", affects="nothing"
    )
    motifs: Path | None = option(
        None,
        "folder of tables of 0 and 1 that give the colours: motifs, or what annotate_behavior "
        "wrote",
        affects="nothing",
    )
    color_by: str | None = option(
        None,
        "what gives the colours: recording; behavior, of --labels; motif, of --motifs; or the name "
        "of one behaviour or motif, for frames with and without it; default: behavior or motif "
        "where they are given, else recording",
        affects="nothing",
        min_length=1,
    )
    method: Literal["pca", "tsne", "umap"] = option(
        "tsne",
        "how the frames are laid out: principal components, t-SNE, or UMAP (needs umap-learn)",
        affects="nothing",
    )
    max_frames: int = option(
        3000,
        "number of frames that are drawn, chosen at random; t-SNE and UMAP see no others",
        affects="nothing",
        ge=10,
        le=50_000,
    )
    seed: int = option(
        1991, "seed of the choice of frames and of the layout", affects="nothing", ge=0
    )
    output_path: Path | None = option(
        None,
        "picture to write; default: embeddings.png in the folder of the embeddings",
        affects="nothing",
        group="output",
    )

    @model_validator(mode="after")
    def _colours_are_given(self) -> Self:
        if self.labels is not None and self.motifs is not None:
            raise ConfigError("--labels and --motifs both give the colours; leave one of them out")
        if self.color_by == "behavior" and self.labels is None:
            raise ConfigError("--color_by=behavior needs --labels: the folder of the recordings")
        if self.color_by == "motif" and self.motifs is None:
            raise ConfigError("--color_by=motif needs --motifs: a folder of tables of 0 and 1")
        if self.color_by not in (None, "recording") and self.labels is self.motifs is None:
            raise ConfigError(
                f"--color_by={self.color_by} needs --labels (annotations) or --motifs (tables of "
                "0 and 1) that name it"
            )
        return self


class PlotEthogramOptions(LabelOptions):
    """Draw when each behaviour happens: a timeline for each recording, and tables of bouts.

    Annotations (--labels), predictions and motifs (tables of 0 and 1) are drawn below each other.
    Writes ethograms/: <recording>/ethogram.png; behaviors.csv and .png with share of time, number
    and duration of bouts; transitions.csv and .png with what follows what.

    Examples
    --------
    betman plot_ethogram annotations
    betman plot_ethogram --labels=datasets/mice --annot_format=boris annotations other/annotations
    betman plot_ethogram --labels=datasets/mice --recordings=m1 --from=10 --to=60 annotations
    """

    results_path: Paths = positional(
        "folder of tables of 0 and 1, one for each recording, that annotate_behavior or a "
        "segmentation into motifs wrote; or several",
        default=(),
        many=True,
    )
    labels: Paths = option(
        (),
        "folder of the recordings whose annotations are drawn above the tables; or several, of "
        "several annotators",
        affects="nothing",
    )
    recordings: Words | None = option(
        None, "recordings to draw; default: all that every folder has", affects="nothing"
    )
    behaviors: Words | None = option(
        None, "behaviours to draw, in this order; default: all", affects="nothing"
    )
    names: Words | None = option(
        None,
        "names for what is drawn, those of --labels first; default: annotated, and the models' "
        "names",
        affects="nothing",
    )
    table: str | None = option(
        None,
        "file name of the tables, with or without .csv, where recordings have several; * stands "
        "for any text",
        affects="nothing",
        min_length=1,
    )
    from_: float | None = option(
        None,
        "start of what is drawn and counted, after the first frame",
        affects="nothing",
        unit="seconds",
        ge=0,
        allow_inf_nan=False,
    )
    to: float | None = option(
        None,
        "end of what is drawn and counted, after the first frame",
        affects="nothing",
        unit="seconds",
        gt=0,
        allow_inf_nan=False,
    )
    compact: bool = option(
        False,
        "draw one lane for each folder instead of one for each behaviour; for behaviours that do "
        "not overlap",
        affects="nothing",
    )
    format: PictureFormat = option("png", FORMAT_HELP, affects="nothing", group="output")
    output_path: Path = option(
        Path("."), "folder that contains ethograms/", affects="nothing", group="output"
    )
    overwrite: bool = option(
        False, "replace results that betman wrote before", affects="nothing", group="output"
    )

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        if not self.results_path and not self.labels:
            raise ConfigError(
                "nothing to draw: give folders of tables, such as annotations, or --labels"
            )
        if self.from_ is not None and self.to is not None and self.to <= self.from_:
            raise ConfigError(f"--to={self.to:g} must be larger than --from={self.from_:g}")
        count = len(self.labels) + len(self.results_path)
        if self.names is not None and len(self.names) != count:
            raise ConfigError(
                f"--names gives {len(self.names)} names for {count} folders; expected one for each "
                "of --labels, then one for each folder of tables"
            )
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ConfigError("--names gives one name twice; expected different names")
        return self
