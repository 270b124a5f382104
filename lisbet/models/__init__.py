"""Networks; they know nothing of data."""
