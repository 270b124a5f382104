"""Train LISBET models of social behaviour from pose tracks, on one device or many.

In Python::

    import lisbet

    model = lisbet.load_model("models/mice")
    embedding = model.embed(dataset)  # a dataset of movement, or the path of recordings
"""

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lisbet import data
    from lisbet.api.model import Model, load_model
    from lisbet.api.training import train

try:
    __version__ = version("lisbet")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["Model", "__version__", "data", "load_model", "train"]
_MODULES = {"Model": "model", "load_model": "model", "train": "training"}


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is used: commands start faster without."""
    if name in _MODULES:
        with warnings.catch_warnings():
            # tqdm, which Accelerate imports, wants ipywidgets in notebooks, for its own bars.
            warnings.filterwarnings("ignore", "IProgress not found")
            return getattr(import_module(f"lisbet.api.{_MODULES[name]}"), name)
    if name == "data":
        return import_module("lisbet.data")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
