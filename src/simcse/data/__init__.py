"""Making and checking training data."""
