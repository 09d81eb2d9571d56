"""Training: settings, batch order, one explicit loop, checkpoints, guard."""
