"""Measure a pair, part by part; what is known already is not measured again.

1. Source images against target images: FID, KID, precision, recall, density, coverage.
2. The target's nearest source images, and the density and diversity of both sides.
3. The source model: its samples against the target, and its discriminator on target images.
4. Inversion: how well the source generator can draw target images.
"""

from __future__ import annotations

from typing import Any

from stylegan_tl.pair.checks import check
from stylegan_tl.pair.images import images, neighbours
from stylegan_tl.pair.inversion import inversion
from stylegan_tl.pair.model import missing, model
from stylegan_tl.pair.pair import open_pair, source_file
from stylegan_tl.pair.records import part
from stylegan_tl.source.portable import read_model

__all__ = ["measure"]


def measure(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure the configured pair; return its records, new ones and those of earlier runs.

    Each part is appended to `out` as JSON lines when it is done, and stands as long as its inputs
    (images, extractor, model, settings) stay the same. Raises ConfigError before any work.
    """
    check(config)
    pair = open_pair(config)
    found = [
        *part(pair, "images", [], lambda: images(pair)),
        *part(pair, "neighbours", [], lambda: neighbours(pair)),
    ]
    file = source_file(config)
    if file is None:
        return found + part(pair, "no model", [], lambda: missing(pair))
    pair.source_model = read_model(file)
    inputs = [*pair.held_out_inputs, pair.source_model.sha256]
    found += part(pair, "model", inputs, lambda: model(pair))
    if config["inversion"]["images"]:
        inputs += [config["inversion"], pair.perceptual.digest, config["seed"]]
        found += part(pair, "inversion", inputs, lambda: inversion(pair))
    return found
