"""Converted datasets: one chunked Zarr store, how it is written, resumed, checked and read."""
