"""Commands that fetch and publish models."""
