"""Commands from embeddings to motifs: hidden Markov models, prototypes, reduced dimensions."""
