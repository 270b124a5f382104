"""Checkpoints: how they are written, found, verified, resumed and exported."""
