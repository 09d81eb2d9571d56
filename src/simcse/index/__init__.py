"""Search over one's own sentences: exact and approximate, on disk, crash-safe."""
