"""Two datasets before any transfer: what the distance command measures and records."""
