"""The variables of TensorFlow's StyleGAN2 and StyleGAN2-ADA under our names."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.shapes import stylegan2_shapes
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["convert", "kernel", "resolution_of", "rows", "stage"]

LICENCE = (
    "not stated in the file; NVIDIA publishes its own networks of this format under the NVIDIA "
    "Source Code License (non-commercial)"
)


def convert(moves: Moves, G: Options, D: Options) -> SourceModel:
    """Gs and D of configurations E and F; SourceError for B to D. A is a StyleGAN."""
    if "Gs.synthesis/4x4/ToRGB/weight" not in moves.source:
        raise SourceError(
            "a StyleGAN2 of configurations B to D, whose G grows and demodulates: here what grows "
            "is a StyleGAN and what demodulates does not grow; A, E and F are read"
        )
    network = _generator(G)
    why = _discriminator(D, network)
    _move_mapping(moves, network)
    for r in stage(network["resolution"]):
        _move_synthesis(moves, r)
    moves.leave("Gs.lod", "no growth in this architecture")
    if why:
        for name in moves.source:
            if name.startswith("D."):
                moves.leave(name, f"D is left: {why}")
    else:
        _move_discriminator(moves, network["resolution"])
    return moves.source_model(
        model="stylegan_tl.models.stylegan2.StyleGAN2",
        network=network,
        expected=stylegan2_shapes(network, D=not why),
        format="StyleGAN2 TensorFlow pickle",
        licence=LICENCE,
    )


def stage(resolution: int) -> list[int]:
    """4, 8, ... up to `resolution`."""
    return [4 << i for i in range((resolution // 4).bit_length())]


def kernel(x: Tensor) -> Tensor:
    """A convolution [k, k, I, O] as [O, I, k, k]."""
    return x.permute(3, 2, 0, 1)


def rows(x: Tensor) -> Tensor:
    """A dense layer [I, O] as [O, I]."""
    return x.t()


def resolution_of(options: Options) -> int:
    """The power of two that the network draws."""
    resolution = options.whole("resolution", least=8, most=4096)
    if resolution & (resolution - 1):
        raise SourceError(f"{options.of}: resolution={resolution} is no power of two")
    return resolution


def _flipped(x: Tensor) -> Tensor:
    """Of an upsampling layer, which is an adjoint here and a convolution there."""
    return kernel(x).flip(2, 3)


def _style(x: Tensor) -> Tensor:
    """A bias of styles, which are counted from one there."""
    return x + 1


def _generator(given: Options) -> dict[str, Any]:
    network = {
        "resolution": resolution_of(given),
        "z_dim": given.whole("latent_size", 512, least=1),
        "w_dim": given.whole("dlatent_size", 512, least=1),
        "c_dim": given.whole("label_size", 0),
        "num_mapping_layers": given.whole("mapping_layers", 8, least=1, most=64),
        "channel_base": 2 * given.whole("fmap_base", 16384, least=1),
        "channel_max": given.whole("fmap_max", 512, least=1),
        "mbstd_group_size": 4,
    }
    given.ignore("mapping_fmaps", "label_fmaps")  # seen in the shapes
    given.only("mapping_nonlinearity", "lrelu")
    given.only("mapping_lrmul", 0.01)
    given.only("normalize_latents", True)
    given.only("architecture", "skip")
    given.only("use_noise", True)
    _same(given)
    given.ignore("w_avg_beta", "dlatent_avg_beta", "style_mixing_prob", "fused_modconv")
    given.ignore("truncation_psi", "truncation_cutoff", "truncation_psi_val")
    given.ignore("truncation_cutoff_val", "randomize_noise", "mapping_func", "synthesis_func")
    given.end()
    clamp = given.get("conv_clamp")
    return network | ({"clamp": float(clamp)} if isinstance(clamp, int | float) else {})


def _same(given: Options) -> None:
    """What G and D have in common."""
    given.only("num_channels", 3)
    given.only("fmap_decay", 1.0, 1)
    given.only("fmap_min", 1)
    given.only("nonlinearity", "lrelu")
    given.only("resample_kernel", [1, 3, 3, 1])
    given.only("dtype", "float32")
    given.ignore("structure", "num_fp16_res", "conv_clamp", "freeze_layers")


def _discriminator(given: Options, network: dict[str, Any]) -> str | None:
    """Complete the network dictionary by what D says; or why this project has no such D."""
    try:
        given.only("resolution", network["resolution"], default=0)
        given.only("fmap_base", network["channel_base"] // 2, default=16384)
        given.only("fmap_max", network["channel_max"], default=512)
        given.only("label_size", 0)
        given.only("architecture", "resnet")
        given.only("mbstd_num_features", 1)
        _same(given)
        if given.get("conv_clamp") != network.get("clamp"):
            raise SourceError("D limits activations, G does not, or the other way round")
        network["mbstd_group_size"] = given.whole("mbstd_group_size", 4, least=2)
        given.ignore("mapping_layers", "mapping_fmaps", "mapping_lrmul")  # of labels
        given.end()
    except SourceError as error:
        return str(error)
    return None


def _move_mapping(moves: Moves, network: dict[str, Any]) -> None:
    moves.take("Gs.dlatent_avg", "G_ema.mapping.w_avg")
    for i in range(network["num_mapping_layers"]):
        moves.take(f"Gs.mapping/Dense{i}/weight", f"G_ema.mapping.fc{i}.weight", rows)
        moves.take(f"Gs.mapping/Dense{i}/bias", f"G_ema.mapping.fc{i}.bias")
    if network["c_dim"]:
        moves.take("Gs.mapping/LabelEmbed/weight", "G_ema.mapping.embed.weight", rows)
        moves.take("Gs.mapping/LabelEmbed/bias", "G_ema.mapping.embed.bias")


def _move_synthesis(moves: Moves, r: int) -> None:
    """The block at `r` px; noise images are numbered from 0 at 4 px, two for each size after."""
    theirs, ours, number = f"Gs.synthesis/{r}x{r}", f"G_ema.synthesis.b{r}", 2 * r.bit_length()
    if r == 4:
        moves.take(f"{theirs}/Const/const", f"{ours}.const", lambda x: x[0])
        _move_layer(moves, f"{theirs}/Conv", f"{ours}.conv1", 0)
    else:
        _move_layer(moves, f"{theirs}/Conv0_up", f"{ours}.conv0", number - 7, up=True)
        _move_layer(moves, f"{theirs}/Conv1", f"{ours}.conv1", number - 6)
    moves.take(f"{theirs}/ToRGB/weight", f"{ours}.torgb.weight", kernel)
    moves.take(f"{theirs}/ToRGB/bias", f"{ours}.torgb.bias")
    _move_modulation(moves, f"{theirs}/ToRGB", f"{ours}.torgb")


def _move_layer(moves: Moves, theirs: str, ours: str, noise: int, up: bool = False) -> None:
    moves.take(f"{theirs}/weight", f"{ours}.weight", _flipped if up else kernel)
    moves.take(f"{theirs}/bias", f"{ours}.bias")
    moves.take(f"{theirs}/noise_strength", f"{ours}.noise_strength")
    moves.take(f"Gs.synthesis/noise{noise}", f"{ours}.noise_const", lambda x: x[0, 0])
    _move_modulation(moves, theirs, ours)


def _move_modulation(moves: Moves, theirs: str, ours: str) -> None:
    moves.take(f"{theirs}/mod_weight", f"{ours}.affine.weight", rows)
    moves.take(f"{theirs}/mod_bias", f"{ours}.affine.bias", _style)


def _move_discriminator(moves: Moves, resolution: int) -> None:
    size = f"{resolution}x{resolution}"
    _move_conv(moves, f"D.{size}/FromRGB", f"D.b{resolution}.fromrgb")
    for r in stage(resolution)[1:]:
        _move_conv(moves, f"D.{r}x{r}/Conv0", f"D.b{r}.conv0")
        _move_conv(moves, f"D.{r}x{r}/Conv1_down", f"D.b{r}.conv1")
        moves.take(f"D.{r}x{r}/Skip/weight", f"D.b{r}.skip.weight", kernel)
    _move_conv(moves, "D.4x4/Conv", "D.b4.conv")
    for theirs, ours in (("4x4/Dense0", "b4.fc"), ("Output", "b4.out")):
        moves.take(f"D.{theirs}/weight", f"D.{ours}.weight", rows)
        moves.take(f"D.{theirs}/bias", f"D.{ours}.bias")


def _move_conv(moves: Moves, theirs: str, ours: str) -> None:
    moves.take(f"{theirs}/weight", f"{ours}.weight", kernel)
    moves.take(f"{theirs}/bias", f"{ours}.bias")
