"""The first five minutes: train on the documentation of Python, evaluate and search."""
