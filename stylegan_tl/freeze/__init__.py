"""What stays of the source model: one strategy per file."""
