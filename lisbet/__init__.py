"""LISBET's training toolkit: self-supervised models of social behaviour from pose tracks."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lisbet")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
