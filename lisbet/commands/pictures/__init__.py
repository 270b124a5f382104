"""Pictures of runs, embeddings and behaviour."""
