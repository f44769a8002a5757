"""VGG16 and LPIPS on random weights: against functions on the state dict, a naive LPIPS, and
torchmetrics' own LPIPS modules around an injected trunk."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.vgg16 import VGG16, _trunk, load_lpips, load_vgg16

CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
POOLS = (4, 9, 16, 23, 30)


@pytest.fixture(scope="module")
def state():
    """Random weights of the right shapes; the large matrices repeat a short vector (Hankel)."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in VGG16().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        if len(shape) == 4:
            scale = (2 / (shape[1] * 9)) ** 0.5
            state[name] = torch.randn(shape, generator=generator) * scale
        elif len(shape) == 2:
            line = torch.randn(sum(shape), generator=generator) * (2 / shape[1]) ** 0.5
            state[name] = line.as_strided(shape, (1, 1))
        else:
            state[name] = torch.randn(shape, generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def lpips(file):
    return load_extractor("lpips", path=file, sha256=_sha256(file))


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _images(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.rand(count, 3, size, size, generator=generator)
    images = F.interpolate(coarse, (size, size), mode="bilinear") * 0.7 + fine * 0.3
    return (images * 255).to(torch.uint8)


def _reference_layers(x, state):
    """Output of each numbered layer of torchvision's listing."""
    found = {}
    for i in range(31):
        if i in CONVS:
            x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1)
        elif i in POOLS:
            x = F.max_pool2d(x, 2)
        else:
            x = x.clamp(min=0)
        found[i] = x
    return found


def test_names_and_number_of_weights_are_torchvisions(state):
    # torchvision documents 138,357,544 parameters
    assert sum(v.numel() for v in state.values()) == 138_357_544
    layers = [f"features.{i}" for i in CONVS] + [f"classifier.{i}" for i in (0, 3, 6)]
    assert list(state) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


@torch.no_grad()
def test_features_are_fc7_of_the_network_written_as_functions(file, state):
    extractor = load_extractor("vgg16", path=file, sha256=_sha256(file)[:10])
    assert (extractor.num_features, extractor.digest) == (4096, _sha256(file))
    assert "224 px" in extractor.resize
    images = _images(1, 224)
    x = images.double().numpy()[0] / 255
    x = (x - np.array([[[0.485]], [[0.456]], [[0.406]]])) / [[[0.229]], [[0.224]], [[0.225]]]
    x = _reference_layers(torch.from_numpy(x).float()[None], state)[30].flatten().numpy()
    for i in (0, 3):
        x = state[f"classifier.{i}.weight"].numpy() @ x + state[f"classifier.{i}.bias"].numpy()
        x = np.maximum(x, 0)
    found = extractor(images)
    assert found.shape == (1, 4096)
    assert 0.1 < (found == 0).float().mean() < 0.9  # after its ReLU
    np.testing.assert_allclose(found[0].numpy(), x, rtol=2e-3, atol=2e-3 * x.max())


@torch.no_grad()
def test_images_are_resized_as_pillow_does(file):
    network = load_vgg16(file)
    seen = []
    network.features.register_forward_pre_hook(lambda _, x: seen.append(x[0]) or _stop())
    image = _images(1, 96)
    theirs = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((224, 224), Image.BILINEAR)
    theirs = torch.from_numpy(np.array(theirs)).permute(2, 0, 1)[None]
    for x in (image, theirs):
        with pytest.raises(_Stop):
            network(x)
    assert seen[0].shape == (1, 3, 224, 224)
    # Pillow rounds to uint8 after each direction: at most one level
    torch.testing.assert_close(seen[0], seen[1], atol=1 / 255 / 0.224, rtol=0)


class _Stop(Exception):
    pass


def _stop():
    raise _Stop


def _reference_lpips(a, b, state, heads):
    """Zhang et al. 2018, equation 1, layer by layer in float64."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    layers = [_reference_layers(((x / 127.5 - 1) - shift) / scale, state) for x in (a, b)]
    total = 0.0
    for number, layer in enumerate((3, 8, 15, 22, 29)):  # relu1_2, 2_2, 3_3, 4_3, 5_3
        x, y = (part[layer][0].double().numpy() for part in layers)
        x, y = (z / (np.sqrt((z**2).sum(0)) + 1e-10) for z in (x, y))
        weight = heads[f"lin{number}.model.1.weight"].double().numpy().reshape(-1, 1, 1)
        total += ((x - y) ** 2 * weight).sum(0).mean()
    return total


def _packaged_heads():
    import torchmetrics

    root = torchmetrics.__path__[0]
    return torch.load(
        f"{root}/functional/image/lpips_models/vgg.pth", map_location="cpu", weights_only=True
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [32, 48])
def test_squared_distances_of_rows_are_lpips(lpips, state, size):
    a, b = _images(1, size), _images(1, size, seed=1)
    rows = lpips.embed(torch.cat([a, b]))
    assert rows.dtype == torch.float32
    wanted = _reference_lpips(a.float(), b.float(), state, _packaged_heads())
    assert (rows[0] - rows[1]).square().sum().item() == pytest.approx(wanted, rel=1e-4)
    assert wanted > 0.01


@torch.no_grad()
def test_torchmetrics_own_lpips_gives_the_same(lpips, file, monkeypatch):
    from torchmetrics.functional.image import lpips as theirs

    trunk = _trunk(pool_last=True)
    trunk.load_state_dict(load_vgg16(file).features.state_dict())
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: trunk)
    reference = theirs._NoTrainLpips(net="vgg", pnet_rand=True)
    a, b = _images(3, 40), _images(3, 40, seed=1)
    wanted = reference(a / 127.5 - 1, b / 127.5 - 1).flatten()
    found = (lpips.embed(a) - lpips.embed(b)).square().sum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_lpips_works_on_odd_sizes_and_constant_images_and_gives_gradients(lpips):
    black = torch.zeros(1, 3, 37, 37, dtype=torch.uint8)
    assert torch.isfinite(lpips.embed(black)).all()
    image = (_images(1, 37) / 127.5 - 1).requires_grad_(True)
    (lpips.embed(image) - lpips.embed(black)).square().sum().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0
    with pytest.raises(ValueError, match="16 px and more"):
        lpips.embed(black[:, :, :8, :8])
    with pytest.raises(ValueError, match="distances only"):
        lpips(black)


def test_other_files_are_refused(file, state, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, other)
    for load in (load_vgg16, lambda path: load_lpips(path, file)):
        with pytest.raises(ValueError, match="is not a VGG16 state dict|linear heads"):
            load(other)
    torch.save({**state, "classifier.6.bias": torch.zeros(21)}, other)
    with pytest.raises(ValueError, match="is not a VGG16 state dict.*classifier.6.bias"):
        load_vgg16(other)
    with pytest.raises(ValueError, match="does not hold the linear heads"):
        load_lpips(file, other)
    heads = _packaged_heads()
    torch.save({**heads, "lin0.model.1.weight": -heads["lin0.model.1.weight"]}, other)
    with pytest.raises(ValueError, match="negative weights"):
        load_lpips(file, other)


def test_lpips_needs_the_trunk_alone(state, lpips, tmp_path):
    trunk = tmp_path / "trunk.pth"
    torch.save({k: v for k, v in state.items() if k.startswith("features.")}, trunk)
    other = load_extractor("lpips", path=trunk, sha256=_sha256(trunk))
    images = _images(2, 32)
    torch.testing.assert_close(other.embed(images), lpips.embed(images))
    assert other.digest != lpips.digest
    with pytest.raises(ValueError, match="is not a VGG16 state dict"):
        load_extractor("vgg16", path=trunk, sha256=_sha256(trunk))
