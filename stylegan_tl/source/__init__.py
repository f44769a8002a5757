"""Get or train a source model; load it with a report."""
