"""Types of values that are read from and written to JSON and YAML."""

from typing import Any

JsonDict = dict[str, Any]
"""A mapping from names to numbers, texts, lists and mappings, of which not more is known."""
