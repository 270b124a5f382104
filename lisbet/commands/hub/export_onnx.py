"""Export models as ONNX files, for programs that apply them without PyTorch.

The file is published only after ONNX Runtime answered as PyTorch does.
"""

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lisbet import __version__
from lisbet.core.errors import ConfigError, ModelError, OutputError
from lisbet.core.storage.files import require_writable
from lisbet.core.storage.folders import recover, write_folder
from lisbet.core.storage.lock import locked
from lisbet.core.storage.results import lies_in, require_result_folder
from lisbet.models import model_dir
from lisbet.models.locate import model_files
from lisbet.models.multitask import ModelConfig, MultiTaskModel
from lisbet.options import ExportOnnxOptions
from lisbet.tasks import TASKS

if TYPE_CHECKING:
    import onnx

log = logging.getLogger(__name__)

KIND = "ONNX export"
FILE = "model.onnx"
OPSET = 18
"""Version of the ONNX operators: ONNX Runtime has them since release 1.14."""
INPUT = "windows"
TOLERANCE = 1e-5
"""Largest difference to PyTorch, absolute for answers below 1 and relative above."""
BATCHES = (1, 2, 7)
"""Numbers of windows that the file is tried with."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31
"""Bytes of an ONNX file, which is one message of Protocol Buffers."""


class Frames(nn.Module):
    """What the file computes: the answers of some heads, which describe one frame of a window."""

    def __init__(self, model: MultiTaskModel, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.heads = model, heads

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Turn windows (batch, frames, features) into one answer (batch, …) for each head."""
        answers = []
        for name in self.heads:
            head: Any = self.model.task_heads[name]
            answers.append(
                head(self.model.backbone.frame_embedding(windows, head.output_token_idx))
            )
        return tuple(answers)


def export_onnx(options: ExportOnnxOptions) -> None:
    """Write models/<model_id>-onnx/model.onnx."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export_onnx needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'lisbet[onnx]'"
        )
    config_path, weights_path = model_files(options.model_path, options.weights_path)
    config = model_dir.read_config(config_path)
    heads = frame_heads(config)
    folder = options.output_path / "models" / f"{config.model_id}-onnx"
    for source in (config_path, weights_path):
        if lies_in(source, folder):
            raise OutputError(
                f"{folder} holds {source}, which is read; choose another --output_path"
            )
    require_writable(folder.parent)
    require_result_folder(folder, KIND, overwrite=options.overwrite)
    _, model = model_dir.load_model(config_path, weights_path)
    require_small(model)
    network = Frames(model, heads).eval()
    with locked(folder):
        recover(folder)
        require_result_folder(folder, KIND, overwrite=options.overwrite)
        program = converted(network, config)
        difference = require_same_answers(program, network, config)
        replaces = frozenset({KIND} if options.overwrite else ())
        with write_folder(folder, KIND, replaces=replaces) as new:
            import onnx

            onnx.save(program, new / FILE)
    print(
        f"{folder / FILE}: {INPUT} (batch, {config.window_size}, {config.input_features.size}) to "
        f"{', '.join(heads)}; opset {OPSET}; differs from PyTorch by at most {difference:.1e}"
    )


def frame_heads(config: ModelConfig) -> tuple[str, ...]:
    """Return the heads to export: embedding and behaviours.

    Raises
    ------
    ModelError
        If the model has neither.
    """
    names = [
        name
        for name in config.out_heads
        if name == model_dir.EMBEDDING or (name in TASKS and TASKS[name].supervised)
    ]
    if not names:
        raise ModelError(
            f"model {config.model_id!r} has the heads {', '.join(config.out_heads)}, which only "
            "training needs; make an embedder of it with betman export_embedder, and export that"
        )
    return tuple(names)


def require_small(model: nn.Module) -> None:
    """Refuse a network that does not fit one ONNX file.

    Raises
    ------
    ModelError
        With its size.
    """
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if size >= LARGEST:
        raise ModelError(
            f"the weights have {size / 2**30:.1f} GiB; an ONNX file holds less than "
            f"{LARGEST / 2**30:.0f} GiB"
        )


def converted(network: Frames, config: ModelConfig) -> "onnx.ModelProto":
    """Return the network as an ONNX model with its description.

    Raises
    ------
    ModelError
        If a part of it, such as the backbone of a plug-in, has no counterpart in ONNX.
    """
    example = torch.rand(2, config.window_size, config.input_features.size)
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[INPUT],
                output_names=list(network.heads),
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter stumbles over
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{config.model_id} cannot be converted to ONNX: backbone "
            f"{config.backbone['type']!r}: {reason}"
        ) from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return described(proto, config, network.heads)


def described(
    proto: "onnx.ModelProto", config: ModelConfig, heads: tuple[str, ...]
) -> "onnx.ModelProto":
    """Add what a program needs to know; drop traces of this machine.

    PyTorch notes at each node the lines of Python that it stands for, with paths.
    """
    parts: list[Any] = [proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions]
    parts += [node for function in proto.functions for node in function.node]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    del proto.metadata_props[:]
    proto.graph.name = config.model_id
    features = config.input_features
    names = [
        f"{individual}/{keypoint}/{axis}"
        for individual in features.individuals
        for keypoint in features.keypoints
        for axis in features.space
    ]
    values: dict[str, Any] = {
        "model_id": config.model_id,
        "backbone": config.backbone["type"],
        "window_size": config.window_size,
        "window_offset": config.window_offset,
        "opset": OPSET,
        "features": json.dumps(names),
        "heads": json.dumps(heads),
        "behaviors": json.dumps({name: config.behaviors.get(name, ()) for name in heads
                                 if name != model_dir.EMBEDDING}),
        "model_config": json.dumps(config.model_dump(mode="json", exclude_defaults=True)),
        "betman": __version__,
    }  # fmt: skip
    for key, value in values.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, str(value)
    return proto


def require_same_answers(proto: "onnx.ModelProto", network: Frames, config: ModelConfig) -> float:
    """Compare ONNX Runtime with PyTorch on random windows, some of them with missing points.

    Returns
    -------
    float
        The largest absolute difference.

    Raises
    ------
    ModelError
        If an answer differs by more than `TOLERANCE`.
    """
    import onnx
    import onnxruntime

    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    largest = 0.0
    for batch in BATCHES:
        shape = (batch, config.window_size, config.input_features.size)
        windows = rng.random(shape, dtype=np.float32)
        windows[rng.random(shape) < 0.1] = 0
        with torch.inference_mode():
            expected = network(torch.from_numpy(windows))
        found = session.run(list(network.heads), {INPUT: windows})
        for name, answer, value in zip(network.heads, found, expected, strict=True):
            wanted = value.numpy()
            if not np.allclose(answer, wanted, rtol=TOLERANCE, atol=TOLERANCE):
                raise ModelError(
                    f"the ONNX file of {config.model_id} answers otherwise than PyTorch: {name} "
                    f"differs by {np.abs(answer - wanted).max():.1e} for {batch} windows, more "
                    f"than {TOLERANCE:g}; nothing was written"
                )
            largest = max(largest, float(np.abs(answer - wanted).max()))
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter of PyTorch says about its own and about packages it misses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
