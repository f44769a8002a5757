"""Scale and shift (BSA: Noguchi & Harada 2019, arXiv:1904.01774), in its adversarial form.

What: of G the scale and shift of its normalisation train: batch normalisation's in a DCGAN, in a
StyleGAN2 the affine layers of the convolutions, ToRGB's not. D trains. A row of FreezeD's
comparison (Mo et al. 2020) and of DiffAugment's table; the released code of FreezeD trained all of
G under this name.
Why: filters stay, which of them speak is re-learnt. When: small targets near the source.
Values: the usual rate. Costs: G's other weight gradients are saved; D as ever.
In a DCGAN it is 0.05 % of G and the same as affine_only.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["scale_shift"]


def scale_shift() -> Strategy:
    """Of G, trains the scale and shift of the convolutions' outputs."""
    return Strategy(train=("G.affine",), freeze=("G.torgb",))
