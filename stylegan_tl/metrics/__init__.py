"""Features, statistics and one file per metric."""
