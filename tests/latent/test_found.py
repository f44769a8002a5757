"""SeFa against numpy's eigenvectors; projection against images whose latents are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stylegan_tl.latent.factorise import directions_of, first_weights, moved
from stylegan_tl.metrics.inversion import invert, noise_penalty
from stylegan_tl.models.adversarial import to_uint8
from stylegan_tl.models.stylegan import StyleGAN
from stylegan_tl.restore import restore
from stylegan_tl.sampling import Look, latents, sample
from stylegan_tl.source.obtain import BUNDLED

LAYERS = {  # of a StyleGAN2 of 32 px, in the order in which ws feed them
    0: "b4.conv1", 1: "b8.conv0", 2: "b8.conv1", 3: "b16.conv0", 4: "b16.conv1",
    5: "b32.conv0", 6: "b32.conv1",
}  # fmt: skip


def _reference_numpy(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors of A^T A in rows, the largest eigenvalue first (Shen & Zhou 2021, eq. 4)."""
    values, vectors = np.linalg.eig(matrix.T @ matrix)
    order = np.argsort(values)[::-1]
    return vectors.T[order], values[order]


def _same_up_to_sign(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(np.abs((a * b).sum(1)), 1, atol=1e-4)


def test_directions_are_eigenvectors_orthonormal_and_strongest() -> None:
    matrix = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    found, values = directions_of(matrix)
    torch.testing.assert_close(found @ found.T, torch.eye(7), atol=1e-5, rtol=0)
    vectors, strengths = _reference_numpy(matrix.double().numpy())
    _same_up_to_sign(found.numpy(), vectors)
    np.testing.assert_allclose(values, strengths, rtol=1e-5)
    gains = (matrix @ found.T).square().sum(0)
    torch.testing.assert_close(gains, values, rtol=1e-4, atol=1e-4)
    others = torch.nn.functional.normalize(torch.randn(1000, 7), dim=1)
    assert (matrix @ others.T).square().sum(0).max() <= gains[0]


def test_the_weights_are_those_that_each_w_feeds(files) -> None:
    model, _ = restore(files["stylegan2_source"])
    synthesis, seen = model.G_ema.synthesis, {}
    for name, module in synthesis.named_modules():
        if name.endswith("affine"):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.update({name: args[0].mean().item()})
            )
    ws = torch.arange(8.0)[None, :, None].expand(1, 8, 5)
    with torch.no_grad():
        synthesis(ws, noise="none")
    weights = first_weights(model)
    assert len(weights) == len(LAYERS)
    for k, layer in LAYERS.items():
        assert seen[f"{layer}.affine"] == k
        assert torch.equal(weights[k], synthesis.get_submodule(f"{layer}.affine").weight)


@pytest.mark.parametrize(("lod", "count"), [(0.0, 8), (0.5, 8), (1.0, 6), (2.0, 4)])
def test_what_a_stylegan_has_not_grown_to_is_not_factorised(lod: float, count: int) -> None:
    network = dict(resolution=32, z_dim=6, w_dim=5, num_mapping_layers=2)
    network |= dict(channel_base=256, channel_max=16, mbstd_group_size=4)
    model = StyleGAN(network=network, training={"betas": (0.0, 0.99)})
    model.G_ema.synthesis.lod.fill_(lod)
    blocks = [getattr(model.G_ema.synthesis, f"b{r}") for r in (4, 8, 16, 32)]
    affines = [e.affine.weight for b in blocks for e in (b.epilogue0, b.epilogue1)]
    found = first_weights(model)
    assert len(found) == count
    assert all(torch.equal(*pair) for pair in zip(found, affines, strict=False))


@pytest.mark.parametrize(("chosen", "used"), [("all", range(7)), ("coarse", range(4)), (5, [5])])
def test_strips_of_a_stylegan2(tool, files, chosen, used) -> None:
    words = [f"layers={chosen}", "directions=3", "degrees=[-1,0,1]", "seeds=[4]"]
    made = tool("factorise", "stylegan2_source", *words)
    assert list(made) == ["directions.safetensors", "factorise_seed4.png", "factorise.json"]
    synthesis = restore(files["stylegan2_source"])[0].G_ema.synthesis
    rows = [synthesis.get_submodule(f"{LAYERS[k]}.affine").weight.detach() for k in used]
    found = load_file(made["directions.safetensors"])
    vectors, _ = _reference_numpy(torch.cat(rows).double().numpy())
    _same_up_to_sign(found["directions"].numpy(), vectors[:3])


def test_a_dcgan_is_factorised_in_z_by_its_first_deconvolution(tool, files) -> None:
    made = tool("factorise", "dcgan_source", "directions=2", "degrees=[-2,-1,0,1,2]", "seeds=[3]")
    model, _ = restore(files["dcgan_source"])
    matrix = model.G_ema.b4[0].weight.detach().double().flatten(1).T  # z to [O * 4 * 4]
    found = load_file(made["directions.safetensors"])
    vectors, values = _reference_numpy(matrix.numpy())
    _same_up_to_sign(found["directions"].numpy(), vectors[:2])
    np.testing.assert_allclose(found["eigenvalues"], values[:2], rtol=1e-4)
    pixels = np.asarray(Image.open(made["factorise_seed3.png"])).astype(int)
    own = sample(model, latents(model, [3]), Look())[0].transpose(1, 2, 0).astype(int)
    left, top = pixels.shape[1] - 131 * 3, pixels.shape[0] - 131
    middle = pixels[top : top + 128, left : left + 128].reshape(32, 4, 32, 4, 3).mean((1, 3))
    assert np.abs(middle - own).mean() < 4  # degree 0 is the seed itself


def test_a_move_changes_its_layers_alone() -> None:
    code, steps = torch.randn(4, 3), torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])
    found = moved(code, steps, [-1.0, 0.5], [1, 2]).unflatten(0, (2, 2))
    for d, step in enumerate(steps):
        for i, degree in enumerate((-1.0, 0.5)):
            expected = torch.stack([code[0], code[1] + degree * step, code[2] + degree * step,
                                    code[3]])  # fmt: skip
            torch.testing.assert_close(found[d, i], expected)
    flat = moved(code[0], steps, [1.0], None)
    torch.testing.assert_close(flat, code[0] + steps)


# ---- projection -------------------------------------------------------------------------------


(TRAINED,) = BUNDLED.glob("*.safetensors")  # the landscape of a random network is too rugged


@pytest.fixture
def photographs(files, tmp_path):
    """Images that the model of a family can draw: those of two seeds."""

    def draw(model_name: str):
        model, _ = restore(files.get(f"{model_name}_source", model_name))
        folder = tmp_path / "photographs"
        folder.mkdir()
        images = sample(model, latents(model, [5, 6]), Look())
        for i, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i}.png")
        return folder

    return draw


@pytest.mark.parametrize(
    "words", [(), ("layers=each",), ("noise_maps=true", "count=1")], ids=["w", "w+", "noise"]
)
def test_a_generated_image_is_found_again(tool, photographs, cache, words) -> None:
    own = [f"images={photographs(str(TRAINED))}", "steps=25", f"cache={cache}", "device=cpu"]
    made = tool("project", str(TRAINED), *own, *words)
    record = json.loads(made["project.json"].read_text())
    for before, after in zip(record["start_perceptual"], record["perceptual"], strict=True):
        assert after < 0.6 * before
    found = load_file(made["projected.safetensors"])
    images = 1 if "count=1" in words else 2
    assert tuple(found["w"].shape) == (images, 10, 128)
    one_w = torch.equal(found["w"], found["w"][:, :1].expand_as(found["w"]))
    assert one_w == ("layers=each" not in words)
    assert len([name for name in found if name.startswith("noise.")]) == 9 * (images == 1)


def test_a_dcgan_is_inverted_in_z(tool, photographs, cache) -> None:
    own = [f"images={photographs('dcgan')}", "steps=30", f"cache={cache}", "device=cpu"]
    made = tool("project", "dcgan_source", *own)
    record = json.loads(made["project.json"].read_text())
    for before, after in zip(record["start_perceptual"], record["perceptual"], strict=True):
        assert after < 0.5 * before
    assert tuple(load_file(made["projected.safetensors"])["z"].shape) == (2, 6)


def test_projecting_twice_finds_the_same(tool, photographs, cache) -> None:
    own = [f"images={photographs('dcgan')}", "steps=3", f"cache={cache}", "device=cpu"]
    first, again = (tool("project", "dcgan_source", *own, out=out) for out in "ab")
    latents_of = [load_file(made["projected.safetensors"])["z"] for made in (first, again)]
    assert torch.equal(*latents_of)
    assert latents_of[0].abs().max() > 0


def test_what_was_found_goes_into_the_other_tools(tool, files, photographs, cache) -> None:
    own = [f"images={photographs('stylegan2')}", "steps=3", f"cache={cache}", "device=cpu"]
    found = tool("project", "stylegan2_source", *own)["projected.safetensors"]
    ws = load_file(found)["w"]
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    walk = tool("interpolate", "stylegan2_source", f"latents={found}", "frames=2", out="walk")
    assert json.loads(walk["interpolate.json"].read_text())["stations"] == ["image 0", "image 1"]
    pair = [f"latents={found}", f"source.checkpoint={files['stylegan2_source']}", "morph=false"]
    made = tool("pair", "stylegan2_child", *pair, "space=w", out="pair")
    assert json.loads(made["pair.json"].read_text())["of"] == ["image 0", "image 1"]
    with pytest.raises(ValueError, match="has no z"):
        tool("pair", "stylegan2_child", *pair, out="none")
    with pytest.raises(ValueError, match="has no z"):
        tool("factorise", "dcgan_source", f"latents={found}", out="none")


def test_the_images_given_back_are_those_of_the_latents_and_the_noise(files) -> None:
    model, _ = restore(files["stylegan2_source"])
    images = model.G_ema(latents(model, [5]), noise="none").detach()
    found = invert(model.G_ema, images, lambda x: x.flatten(1), steps=3, noise=True)
    with torch.no_grad():
        for name, noise in found.noise.items():
            model.G_ema.synthesis.get_buffer(name).copy_(noise[0])
            torch.testing.assert_close(noise.mean(), torch.zeros([]), atol=1e-5, rtol=0)
            torch.testing.assert_close(noise.square().mean(), torch.ones([]))
        again = model.G_ema.synthesis(found.latents[:, None].expand(-1, 8, -1), noise="const")
    assert torch.equal(to_uint8(again.clamp(-1, 1)), to_uint8(found.images))


@pytest.mark.parametrize(("size", "expected"), [(8, 2), (16, 2 + 32), (32, 2 + 32 + 512)])
def test_the_noise_penalty_of_a_constant_in_closed_form(size: int, expected: int) -> None:
    """Correlations are 1 at full size, and 4**k after k halvings that double what they average."""
    assert noise_penalty(torch.ones(size, size)).item() == expected


def test_the_noise_penalty_is_a_naive_sum() -> None:
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for level in range(2):
        size = 16 >> level
        for dy, dx in ((1, 0), (0, 1)):
            product = sum(
                noise[y, x].item() * noise[(y - dy) % size, (x - dx) % size].item()
                for y in range(size)
                for x in range(size)
            )
            total += (product / size**2) ** 2
        quarters = noise.unfold(0, 2, 2).unfold(1, 2, 2)
        assert noise_penalty(noise).item() > 0
        noise = quarters.mean((2, 3)) * 2
    start = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    assert noise_penalty(start).item() == pytest.approx(total, rel=1e-4)


def test_what_a_generator_lacks_is_said_before_it_is_inverted(tool, photographs, cache) -> None:
    own = [f"images={photographs('dcgan')}", f"cache={cache}", "device=cpu"]
    with pytest.raises(ValueError, match="layers=each: a DCGAN"):
        tool("project", "dcgan_source", *own, "layers=each")
    with pytest.raises(ValueError, match="noise_maps=true: this DCGAN"):
        tool("project", "dcgan_source", *own, "noise_maps=true")
    with pytest.raises(ValueError, match="extractor lpips"):
        tool("project", "dcgan_source", *own, "extractor=lpips", "extractors.lpips.path=nowhere")
