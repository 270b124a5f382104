"""Datasets that ``fetch_dataset`` brings."""

import importlib

from lisbet.options import DATASETS, FetchOptions


def fetch_dataset(options: FetchOptions) -> None:
    """Bring a dataset into the datasets folder, and say where it is."""
    module, function = DATASETS[options.dataset_id].split(":")
    folder = getattr(importlib.import_module(module), function)(options)
    print(f"{options.dataset_id} is in {folder}")
