"""Datasets, packing, the index-addressed sampler, procedural domains, the DataModule."""
