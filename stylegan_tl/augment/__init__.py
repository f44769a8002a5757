"""Discriminator augmentation: image tensors in, image tensors out."""
