"""Fused operations for image generators; importing builds nothing."""
