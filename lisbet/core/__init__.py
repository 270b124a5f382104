"""What all other packages use: configuration values, errors, registries, safe writing, locks."""
