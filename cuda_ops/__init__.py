"""Fused operations for image generators; importing builds nothing.

Under the transforms of `torch.func` use `impl="ref"`: they do not take registered operators.
"""

from cuda_ops.bias_act import bias_act
from cuda_ops.conv2d import conv2d, conv_transpose2d
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.diffaugment import diffaugment
from cuda_ops.filtered_lrelu import filtered_lrelu
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from cuda_ops.warp import warp

__all__ = [
    "bias_act",
    "conv2d",
    "conv3x3",
    "conv_transpose2d",
    "diffaugment",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "scale_act",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
    "warp",
]
