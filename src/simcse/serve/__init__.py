"""The HTTP service: OpenAI-compatible embeddings, similarity, search, and a page to try them."""
