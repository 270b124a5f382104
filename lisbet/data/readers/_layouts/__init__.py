"""Layouts of files that the readers share: one module reads one layout."""
