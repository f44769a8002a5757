"""Plain `nn.Module` networks."""
