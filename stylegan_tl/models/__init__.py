"""LightningModules: one shared `AdversarialModel`, one file per family."""
