"""The processes of a run: which one this is, how they start together and how they end together."""
