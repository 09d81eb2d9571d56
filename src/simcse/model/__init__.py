"""Sentences to embeddings: backbone, pooling, projection head, and the encoder over them."""
