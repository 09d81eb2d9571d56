"""Bulk encoding in shards, on this machine or on a Ray cluster, which goes on after a stop."""
