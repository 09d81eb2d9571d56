"""The first five minutes: the prose that comes with Python, one training, what it changed."""
