"""Results to tables, PNG and one-file HTML."""
