"""Datasets that ``fetch_dataset`` downloads or makes."""

import importlib

from lisbet.core.registry import installed
from lisbet.options import DATASET_GROUP, DATASETS, FetchOptions


def fetch_dataset(options: FetchOptions) -> None:
    """Fetch a dataset into the datasets folder, and print its path."""
    if options.dataset_id in DATASETS:
        module, function = DATASETS[options.dataset_id].split(":")
        fetch = getattr(importlib.import_module(module), function)
    else:
        fetch = installed(DATASET_GROUP)[options.dataset_id].load()
    print(f"{options.dataset_id} is in {fetch(options)}")
