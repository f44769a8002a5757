"""Fused operations for image generators; importing builds nothing."""

from cuda_ops.bias_act import bias_act
from cuda_ops.filtered_lrelu import filtered_lrelu
from cuda_ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "bias_act",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
