"""The variables of TensorFlow's StyleGAN under our names.

Weights are stored unscaled there as here, and so are styles: the first half is added to a scale
of one. From 128 px on an upsampling convolution was computed as an adjoint, which turns its kernel.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.shapes import stylegan_shapes
from stylegan_tl.source.foreign.tensorflow_stylegan2 import kernel, resolution_of, rows, stage
from stylegan_tl.source.portable import SourceModel

__all__ = ["convert"]

LICENCE = (
    "not stated in the file; NVIDIA publishes its own networks of this format under Creative "
    "Commons BY-NC 4.0"
)


def convert(moves: Moves, G: Options, D: Options) -> SourceModel:
    """Gs and D, with how far each has grown."""
    network, adjoint = _generator(G)
    _discriminator(D, network)
    _move_mapping(moves, network)
    for r in stage(network["resolution"]):
        _move_synthesis(moves, network["resolution"], r, r >= adjoint)
        _move_discriminator(moves, network["resolution"], r)
    moves.take("Gs.lod", "G_ema.synthesis.lod")
    moves.leave("Gs.synthesis/lod", "follows that of Gs")
    moves.take("D.lod", "D.lod")
    return moves.source_model(
        model="stylegan_tl.models.stylegan.StyleGAN",
        network=network,
        expected=stylegan_shapes(network, D=True),
        format="StyleGAN TensorFlow pickle",
        licence=LICENCE,
    )


def _generator(given: Options) -> tuple[dict[str, Any], float]:
    """The network dictionary, and the size from which upsampling is an adjoint."""
    network = {
        "resolution": resolution_of(given),
        "z_dim": given.whole("latent_size", 512, least=1),
        "w_dim": given.whole("dlatent_size", 512, least=1),
        "c_dim": given.whole("label_size", 0),
        "num_mapping_layers": given.whole("mapping_layers", 8, least=1, most=64),
        "channel_base": 2 * given.whole("fmap_base", 8192, least=1),
        "channel_max": given.whole("fmap_max", 512, least=1),
        "mbstd_group_size": 4,
    }
    given.only("mapping_nonlinearity", "lrelu")
    given.only("mapping_lrmul", 0.01)
    for key in ("normalize_latents", "use_styles", "const_input_layer", "use_noise"):
        given.only(key, True)
    given.only("use_instance_norm", True)
    given.only("use_pixel_norm", False)
    given.ignore("dlatent_avg_beta", "style_mixing_prob", "randomize_noise", "truncation_psi_val")
    given.ignore("truncation_psi", "truncation_cutoff", "truncation_cutoff_val", "mapping_fmaps")
    given.only("fused_scale", "auto", True, False)
    adjoint = {"auto": 128, "True": 4, "False": float("inf")}[str(given.get("fused_scale", "auto"))]
    _same(given)
    given.end()
    return network, adjoint


def _same(given: Options) -> None:
    """What G and D have in common."""
    given.only("num_channels", 3)
    given.only("fmap_decay", 1.0, 1)
    given.only("nonlinearity", "lrelu")
    given.only("use_wscale", True)
    given.only("blur_filter", [1, 2, 1])
    given.only("dtype", "float32")
    given.ignore("structure", "fused_scale")


def _discriminator(given: Options, network: dict[str, Any]) -> None:
    given.only("resolution", network["resolution"], default=32)
    given.only("label_size", network["c_dim"], default=0)
    given.only("fmap_base", network["channel_base"] // 2, default=8192)
    given.only("fmap_max", network["channel_max"], default=512)
    given.only("mbstd_num_features", 1)
    network["mbstd_group_size"] = given.whole("mbstd_group_size", 4, least=2)
    _same(given)
    given.end()


def _move_mapping(moves: Moves, network: dict[str, Any]) -> None:
    moves.take("Gs.dlatent_avg", "G_ema.mapping.w_avg")
    for i in range(network["num_mapping_layers"]):
        _move(moves, f"Gs.mapping/Dense{i}", f"G_ema.mapping.fc{i}", rows)
    if network["c_dim"]:
        moves.take("Gs.mapping/LabelConcat/weight", "G_ema.mapping.embed.weight", rows)


def _move_synthesis(moves: Moves, resolution: int, r: int, turned: bool) -> None:
    """The block at `r` px; noise images are numbered from 0 at 4 px, two for each size."""
    theirs, ours = f"Gs.synthesis/{r}x{r}", f"G_ema.synthesis.b{r}"
    layers = ("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1")
    for i, layer in enumerate(layers):
        epilogue, noise = f"{ours}.epilogue{i}", 2 * r.bit_length() - 6 + i
        moves.take(f"{theirs}/{layer}/bias", f"{epilogue}.bias")
        moves.take(f"{theirs}/{layer}/Noise/weight", f"{epilogue}.noise_strength")
        moves.take(f"Gs.synthesis/noise{noise}", f"{epilogue}.noise_const", lambda x: x[0, 0])
        _move(moves, f"{theirs}/{layer}/StyleMod", f"{epilogue}.affine", rows)
    if r == 4:
        moves.take(f"{theirs}/Const/const", f"{ours}.const", lambda x: x[0])
    else:
        change = _turned if turned else kernel
        moves.take(f"{theirs}/Conv0_up/weight", f"{ours}.conv0.weight", change)
    moves.take(f"{theirs}/{layers[1]}/weight", f"{ours}.conv1.weight", kernel)
    lod = (resolution // r).bit_length() - 1
    _move(moves, f"Gs.synthesis/ToRGB_lod{lod}", f"{ours}.torgb", kernel)


def _move_discriminator(moves: Moves, resolution: int, r: int) -> None:
    lod = (resolution // r).bit_length() - 1
    _move(moves, f"D.FromRGB_lod{lod}", f"D.b{r}.fromrgb", kernel)
    if r > 4:
        _move(moves, f"D.{r}x{r}/Conv0", f"D.b{r}.conv0", kernel)
        _move(moves, f"D.{r}x{r}/Conv1_down", f"D.b{r}.conv1", kernel)
        return
    _move(moves, "D.4x4/Conv", "D.b4.conv", kernel)
    _move(moves, "D.4x4/Dense0", "D.b4.fc", rows)
    _move(moves, "D.4x4/Dense1", "D.b4.out", rows)


def _move(moves: Moves, theirs: str, ours: str, change: Any) -> None:
    """A weight through `change`, and its bias."""
    moves.take(f"{theirs}/weight", f"{ours}.weight", change)
    moves.take(f"{theirs}/bias", f"{ours}.bias")


def _turned(x: Tensor) -> Tensor:
    return kernel(x).flip(2, 3)
