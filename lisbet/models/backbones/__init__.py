"""Backbones: one file is one network that turns a window into one embedding per frame.

A module holds ``BACKBONE``, a torch module with a ``Config`` whose defaults are its preset
``<name>-base``.
"""

from lisbet.core.registry import Registry
from lisbet.models.backbones._backbone import Backbone, BackboneConfig

BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone", __name__, "BACKBONE", "lisbet.backbones", Backbone
)

__all__ = ["BACKBONES", "Backbone", "BackboneConfig"]
