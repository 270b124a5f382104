"""Test whether the processes of a job reach each other, and how fast they are."""
