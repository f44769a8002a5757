"""Models that other projects wrote: read without running anything, moved to our names."""
