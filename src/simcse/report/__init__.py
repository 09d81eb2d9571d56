"""Results as tables, PNG figures and one-file HTML pages."""
