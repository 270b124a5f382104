"""The Python interface: models, recordings and training, as notebooks use them."""
