"""From files to batches of windows."""
