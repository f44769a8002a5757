"""What pulls a model back towards its source: one anchor per file, any of them together."""
