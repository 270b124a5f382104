"""The table of commands: a name, the options it takes, and what it runs."""

import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lisbet import options
from lisbet.commands.machine import launch
from lisbet.core.errors import ConfigError, unknown
from lisbet.core.json_types import JsonDict
from lisbet.core.yaml_files import read_yaml
from lisbet.distributed import environment
from lisbet.distributed.launch_file import LAUNCHED
from lisbet.options import LaunchOptions, Options, extra_of, typed


@dataclass(frozen=True)
class Command:
    """One command of betman.

    Parameters
    ----------
    name : str
        What the user types.
    options : type of Options
        Its options; the class docstring is its help.
    target : str
        ``module:function`` within the package. It is imported only when the command runs, because
        the module may need torch.
    launches : bool
        Whether ``--launch`` starts processes, if the command has that option.
    """

    name: str
    options: type[Options]
    target: str
    launches: bool = True

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Every option and positional, by name."""
        return self.options.model_fields

    @property
    def positionals(self) -> list[str]:
        """Names of the words that are given by their place, in order."""
        return [name for name, field in self.fields.items() if "positional" in extra_of(field)]

    @property
    def places(self) -> str:
        """The same as help shows them, those that may be left out in brackets."""
        return " ".join(
            name.upper() if self.fields[name].is_required() else f"[{name.upper()}]"
            for name in self.positionals
        )

    @property
    def takes_many(self) -> bool:
        """Whether the last of these takes all words that are left."""
        return any(extra_of(field).get("many") for field in self.fields.values())

    @property
    def summary(self) -> str:
        """First line of the help."""
        return inspect.getdoc(self.options).splitlines()[0]  # type: ignore[union-attr]

    def is_switch(self, name: str) -> bool:
        """Whether an option is a yes-or-no one, which may stand without a value."""
        return self.fields[name].annotation is bool

    def bare(self, name: str) -> str | None:
        """Return what an option means without a value, if it may stand so."""
        return extra_of(self.fields[name]).get("bare")

    def check(self, given: JsonDict) -> Options:
        """Read and check the options as they were typed.

        With ``--config``, those of a file stand in for the ones that were not.

        Raises
        ------
        ConfigError
            If something is missing or cannot be read; one message names everything.
        """
        if "config" in given:
            given = self._from_file(Path(given["config"])) | given
        try:
            return self.options(**given)
        except ValidationError as error:
            raise ConfigError("\n".join(self._messages(error))) from error

    def _from_file(self, path: Path) -> JsonDict:
        """Read the options of a YAML file, alone or under ``options`` as in run_config.yml."""
        content = read_yaml(path, as_text=True)
        values = content.get("options", content)
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: 'options' is no mapping of names to values")
        if "options" in content:  # of a run, which earlier releases wrote with this option
            values.pop("overwrite", None)
        if strange := [str(name) for name in values if name not in self.fields]:
            raise ConfigError(f"{path}: {unknown('option', strange[0], self.fields)}")
        return {name: _typed(path, name, v) for name, v in values.items() if name != "config"}

    def _messages(self, error: ValidationError) -> list[str]:
        messages = []
        for problem in error.errors():
            cause = problem.get("ctx", {}).get("error")
            if isinstance(cause, ValidationError):
                messages += self._messages(cause)
                continue
            text = str(cause) if cause is not None else problem["msg"]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            word = name.upper() if name in self.positionals else f"--{typed(name)}"
            if problem["type"] == "missing":
                text = f"{word} is missing; see betman {self.name} --help"
            elif name in self.fields and (expected := _expected(problem)):
                text = f"--{typed(name)}={problem['input']}: expected {expected}"
            elif name in self.fields:
                text = f"--{typed(name)}={problem['input']}: {text[0].lower()}{text[1:]}"
            messages.append(text)
        return list(dict.fromkeys(messages))


def _expected(problem: ErrorDetails) -> str | None:
    """Describe the values that an option takes; None if the problem describes them itself."""
    found: str | None = EXPECTED.get(problem["type"])
    return None if found is None else found.format(**problem.get("ctx", {}))


EXPECTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "int_parsing_size": "a smaller number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_too_short": "a text that is not empty",
}
"""What an option takes, by the name of the problem that pydantic has found."""


@dataclass(frozen=True)
class Job:
    """A command with checked options, ready to run."""

    command: Command
    options: Options
    words: list[str]

    def run(self) -> None:
        """Import what the command needs and run it, where it is to run."""
        options = self.options
        if isinstance(options, LaunchOptions) and self.command.launches:
            if options.launch is not None and LAUNCHED not in os.environ:
                return launch.start(self.command.name, self.words, options)
            environment.adopt_slurm()
        elif environment.rank():
            return None  # what is not made for several processes, the first one does alone
        else:
            environment.leave_others()
        module, function = self.command.target.split(":")
        run: Callable[[Options], None] = getattr(
            importlib.import_module(f"lisbet.{module}"), function
        )
        return run(self.options)


def _typed(path: Path, name: str, value: object) -> Any:
    """Return a value of a YAML file as it would be typed."""
    if isinstance(value, list):
        if commas := [item for item in value if "," in str(item)]:
            raise ConfigError(
                f"{path}: {name}: {commas[0]!r} has a comma, which separates the items of a list"
            )
        value = ",".join(map(str, value))
    if isinstance(value, dict):
        raise ConfigError(f"{path}: {name} is a mapping; write it as on the command line, as text")
    return value if value is None else str(value)


def choices(annotation: object) -> Iterator[str]:
    """Find the words of a Literal, also within a union."""
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        elif get_args(part):
            yield from choices(part)


COMMANDS = {
    command.name: command
    for command in (
        Command("fetch_dataset", options.FetchOptions, "data.hub:fetch_dataset"),
        Command("fetch_model", options.FetchModelOptions, "commands.hub.fetch_model:fetch_model"),
        Command("dataset_info", options.DatasetInfoOptions, "data.describe:dataset_info"),
        Command("convert_dataset", options.ConvertOptions, "data.zarr.convert:convert_dataset"),
        Command("train_model", options.TrainOptions, "training.train:train_model"),
        Command(
            "estimate",
            options.EstimateOptions,
            "commands.machine.estimate:estimate",
            launches=False,
        ),
        Command("benchmark", options.BenchmarkOptions, "commands.machine.benchmark:benchmark"),
        Command("export_embedder", options.ExportOptions, "models.model_dir:export_embedder"),
        Command("export_onnx", options.ExportOnnxOptions, "commands.hub.export_onnx:export_onnx"),
        Command("push_model", options.PushModelOptions, "commands.hub.push_model:push_model"),
        Command(
            "compute_embeddings",
            options.EmbeddingOptions,
            "commands.applying.predict:compute_embeddings",
        ),
        Command(
            "annotate_behavior",
            options.AnnotateOptions,
            "commands.applying.predict:annotate_behavior",
        ),
        Command(
            "evaluate_model", options.EvaluateOptions, "commands.applying.evaluation:evaluate_model"
        ),
        Command("probe", options.ProbeOptions, "commands.applying.probe:probe"),
        Command("segment_motifs", options.SegmentOptions, "commands.motifs.segment:segment_motifs"),
        Command(
            "select_prototypes",
            options.PrototypeOptions,
            "commands.motifs.prototypes:select_prototypes",
        ),
        Command(
            "reduce_dimensions", options.ReduceOptions, "commands.motifs.reduce:reduce_dimensions"
        ),
        Command(
            "consolidate_checkpoint",
            options.ConsolidateOptions,
            "training.checkpoint.consolidate:consolidate_checkpoint",
        ),
        Command(
            "verify_checkpoint",
            options.VerifyOptions,
            "training.checkpoint.resume:verify_checkpoint",
        ),
        Command(
            "launch_configs", options.LaunchConfigsOptions, "commands.machine.launch:launch_configs"
        ),
        Command(
            "slurm_script", options.SlurmScriptOptions, "commands.machine.slurm_script:slurm_script"
        ),
        Command("model_info", options.InfoOptions, "models.model_dir:model_info"),
        Command("runs", options.RunsOptions, "commands.machine.runs:runs"),
        Command("doctor", options.DoctorOptions, "commands.machine.doctor:doctor"),
        Command(
            "plot_history", options.PlotHistoryOptions, "commands.pictures.history:plot_history"
        ),
        Command(
            "plot_embeddings",
            options.PlotEmbeddingsOptions,
            "commands.pictures.embeddings:plot_embeddings",
        ),
        Command(
            "plot_ethogram",
            options.PlotEthogramOptions,
            "commands.pictures.ethogram:plot_ethogram",
        ),
    )
}
