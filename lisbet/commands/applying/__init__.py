"""Commands that apply a model to recordings, and compare what it says."""
