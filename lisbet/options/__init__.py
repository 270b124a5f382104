"""The options of every command: one class is a command's signature, its help and its checks.

A field's type reads the text of the command line, its constraints refuse what cannot be, and its
description is what ``--help`` prints. Nothing here imports torch.
"""

from lisbet.options._base import (
    LAUNCH_OPTIONS,
    LaunchOptions,
    Options,
    affecting,
    extra_of,
    typed,
)
from lisbet.options._data import ConvertOptions, DatasetInfoOptions
from lisbet.options._model import BACKBONE_SIZES, ModelOptions, OptimizationOptions
from lisbet.options._outputs import CheckpointOptions, TrackingOptions
from lisbet.options._recordings import DataOptions
from lisbet.options._train import TrainingOptions, TrainOptions
from lisbet.options.commands.apply import (
    AnnotateOptions,
    ConsolidateOptions,
    EmbeddingOptions,
    EvaluateOptions,
    ExportOptions,
    InferenceOptions,
    InfoOptions,
    LabelledOptions,
    LaunchConfigsOptions,
    ProbeOptions,
    VerifyOptions,
)
from lisbet.options.commands.fetch import (
    DATASET_GROUP,
    DATASETS,
    PUBLISHED_MODELS,
    FetchModelOptions,
    FetchOptions,
)
from lisbet.options.commands.look import DoctorOptions, RunsOptions
from lisbet.options.commands.measure import BenchmarkOptions, EstimateOptions
from lisbet.options.commands.motifs import PrototypeOptions, ReduceOptions, SegmentOptions
from lisbet.options.commands.pictures import (
    LabelOptions,
    PlotEmbeddingsOptions,
    PlotEthogramOptions,
    PlotHistoryOptions,
)
from lisbet.options.commands.publish import ExportOnnxOptions, PushModelOptions
from lisbet.options.commands.slurm import SlurmScriptOptions

__all__ = [
    "BACKBONE_SIZES",
    "DATASETS",
    "DATASET_GROUP",
    "LAUNCH_OPTIONS",
    "PUBLISHED_MODELS",
    "AnnotateOptions",
    "BenchmarkOptions",
    "CheckpointOptions",
    "ConsolidateOptions",
    "ConvertOptions",
    "DataOptions",
    "DatasetInfoOptions",
    "DoctorOptions",
    "EmbeddingOptions",
    "EstimateOptions",
    "EvaluateOptions",
    "ExportOnnxOptions",
    "ExportOptions",
    "FetchModelOptions",
    "FetchOptions",
    "InferenceOptions",
    "InfoOptions",
    "LabelOptions",
    "LabelledOptions",
    "LaunchConfigsOptions",
    "LaunchOptions",
    "ModelOptions",
    "OptimizationOptions",
    "Options",
    "PlotEmbeddingsOptions",
    "PlotEthogramOptions",
    "PlotHistoryOptions",
    "ProbeOptions",
    "PrototypeOptions",
    "PushModelOptions",
    "ReduceOptions",
    "RunsOptions",
    "SegmentOptions",
    "SlurmScriptOptions",
    "TrackingOptions",
    "TrainOptions",
    "TrainingOptions",
    "VerifyOptions",
    "affecting",
    "extra_of",
    "typed",
]
