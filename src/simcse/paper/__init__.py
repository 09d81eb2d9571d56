"""The paper's tables and figures as grids of runs, and one's own ablations."""
