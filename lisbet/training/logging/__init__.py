"""The record of a run: metrics, status, history, pictures, progress and model card."""
