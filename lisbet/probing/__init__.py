"""Linear probes: how much of the annotated behaviour can be read off features of a frame."""
