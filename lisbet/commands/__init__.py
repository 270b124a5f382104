"""The commands of betman that do not train: one module for each, and what they share."""
