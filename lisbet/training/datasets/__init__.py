"""From the datasets of the options to batches of windows: split, banks, sampler."""
