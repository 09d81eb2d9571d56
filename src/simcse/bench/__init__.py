"""Benchmarks: the same work by us and by named peers, side by side."""
