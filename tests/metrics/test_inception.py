"""The 2015 Inception port: a second network written as functions on its state dict, published
parameter counts, TensorFlow 1's resize by its formula, and the files it is read from."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.inception import Inception, load_inception, resize_tf1


@pytest.fixture(scope="module")
def network():
    """Random weights that keep activations alive through 48 layers."""
    generator = torch.Generator().manual_seed(0)
    network = Inception().eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("conv.weight"):
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return network


class _Reference:
    """The network as the port's documentation draws it: functions over the state dict alone."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, stride=1, same=True):
        get = lambda key: self.state[f"{name}.{key}"]  # noqa: E731
        kernel = get("conv.weight").shape[2:]
        padding = [k // 2 if same else 0 for k in kernel]
        x = F.conv2d(x, get("conv.weight"), stride=stride, padding=padding)
        scale = get("bn.weight") / torch.sqrt(get("bn.running_var") + 0.001)
        shift = get("bn.bias") - get("bn.running_mean") * scale
        return (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    def chain(self, x, block, *names):
        for name in names:
            x = self.conv(x, f"{block}.{name}")
        return x

    @staticmethod
    def mean_pool(x):
        total = F.conv2d(x, torch.ones(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
        count = F.conv2d(torch.ones_like(x[:1, :1]), torch.ones(1, 1, 3, 3), padding=1)
        return total / count

    def a(self, x, n):
        return torch.cat([
            self.chain(x, n, "branch1x1"),
            self.chain(x, n, "branch5x5_1", "branch5x5_2"),
            self.chain(x, n, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            self.chain(self.mean_pool(x), n, "branch_pool"),
        ], 1)  # fmt: skip

    def b(self, x, n):
        double = self.chain(x, n, "branch3x3dbl_1", "branch3x3dbl_2")
        return torch.cat([
            self.conv(x, f"{n}.branch3x3", 2, same=False),
            self.conv(double, f"{n}.branch3x3dbl_3", 2, same=False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def c(self, x, n):
        return torch.cat([
            self.chain(x, n, "branch1x1"),
            self.chain(x, n, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            self.chain(x, n, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            self.chain(self.mean_pool(x), n, "branch_pool"),
        ], 1)  # fmt: skip

    def d(self, x, n):
        three = self.chain(x, n, "branch3x3_1")
        seven = self.chain(x, n, *(f"branch7x7x3_{i}" for i in (1, 2, 3)))
        return torch.cat([
            self.conv(three, f"{n}.branch3x3_2", 2, same=False),
            self.conv(seven, f"{n}.branch7x7x3_4", 2, same=False),
            F.max_pool2d(x, 3, 2),
        ], 1)  # fmt: skip

    def e(self, x, n):
        three = self.chain(x, n, "branch3x3_1")
        double = self.chain(x, n, "branch3x3dbl_1", "branch3x3dbl_2")
        last = n == "Mixed_7c"
        pooled = F.max_pool2d(x, 3, 1, 1) if last else self.mean_pool(x)
        return torch.cat([
            self.chain(x, n, "branch1x1"),
            self.chain(three, n, "branch3x3_2a"), self.chain(three, n, "branch3x3_2b"),
            self.chain(double, n, "branch3x3dbl_3a"), self.chain(double, n, "branch3x3dbl_3b"),
            self.chain(pooled, n, "branch_pool"),
        ], 1)  # fmt: skip

    def stem(self, x, _):
        x = self.conv(x, "Conv2d_1a_3x3", 2, same=False)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3", same=False), "Conv2d_2b_3x3")
        x = self.conv(F.max_pool2d(x, 3, 2), "Conv2d_3b_1x1")
        return F.max_pool2d(self.conv(x, "Conv2d_4a_3x3", same=False), 3, 2)

    def layers(self, x):
        x = self.stem(x, None)
        for block in "a5b a5c a5d b6a c6b c6c c6d c6e d7a e7b e7c".split():
            name = f"Mixed_{block[1:]}"
            x = getattr(self, block[0])(x, name)
            yield name, x

    def features(self, x):
        return list(self.layers(x))[-1][1].mean((2, 3))


BLOCKS = {
    "Mixed_5b": ("a", 192), "Mixed_5c": ("a", 256), "Mixed_5d": ("a", 288), "Mixed_6a": ("b", 288),
    "Mixed_6b": ("c", 768), "Mixed_6d": ("c", 768), "Mixed_6e": ("c", 768), "Mixed_7a": ("d", 768),
    "Mixed_7b": ("e", 1280), "Mixed_7c": ("e", 2048),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_each_block_agrees_with_the_second_network(network, name):
    kind, channels = BLOCKS[name]
    x = torch.randn(1, channels, 7, 7, generator=torch.Generator().manual_seed(1))
    wanted = getattr(_Reference(network.state_dict()), kind)(x, name)
    torch.testing.assert_close(getattr(network, name)(x), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_whole_network_agrees_with_the_second_network(network):
    x = torch.rand(2, 3, 79, 91, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = network.features(x)
    wanted = _Reference(network.state_dict()).features(x)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_blocks_output_agrees_with_the_second_network_on_one_image(network):
    # 139 px, so that no grid is a single pixel: 14 × 14 … 3 × 3
    x = torch.rand(1, 3, 139, 139, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = {}
    hooks = [
        block.register_forward_hook(lambda _, __, y, name=name: found.update({name: y}))
        for name, block in network.named_children()
        if name.startswith("Mixed")
    ]
    network.features(x)
    for hook in hooks:
        hook.remove()
    wanted = dict(_Reference(network.state_dict()).layers(x))
    assert list(found) == list(wanted)
    assert wanted["Mixed_7c"].shape == (1, 2048, 3, 3)
    for name, theirs in wanted.items():
        assert theirs.std() > 0.05, name  # a dead layer would agree with anything
        torch.testing.assert_close(found[name], theirs, rtol=1e-4, atol=1e-4, msg=name)


def test_parameters_are_as_many_as_published(network):
    # Keras prints 21,802,784 for InceptionV3 without its top: no BN scales, moving statistics
    # counted in.
    counts = {"conv.weight": 0, "bn.weight": 0, "bn.bias": 0, "running_mean": 0, "running_var": 0}
    for name, tensor in network.state_dict().items():
        for end in counts:
            counts[end] += tensor.numel() if name.endswith(end) else 0
    assert sum(counts.values()) - counts["bn.weight"] == 21_802_784
    assert len([n for n in network.state_dict() if n.endswith("conv.weight")]) == 94


def test_names_are_the_ports(network):
    names = set(network.state_dict())
    parts = "Conv2d_1a_3x3 Conv2d_4a_3x3 Mixed_5b.branch1x1 Mixed_6a.branch3x3 "
    parts += "Mixed_6e.branch7x7dbl_5 Mixed_7a.branch7x7x3_4 Mixed_7c.branch3x3dbl_3b"
    for part in parts.split():
        assert f"{part}.conv.weight" in names
        assert f"{part}.bn.running_var" in names


@pytest.mark.parametrize(("height", "width", "size"), [(5, 4, 9), (9, 16, 5), (6, 6, 6), (2, 3, 7)])
def test_resize_agrees_with_tensorflows_formula(height, width, size):
    image = np.random.default_rng(0).random((height, width)).astype(np.float32)
    wanted = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = image[y0, x0] + (image[y0, x1] - image[y0, x0]) * (x - x0)
            bottom = image[y1, x0] + (image[y1, x1] - image[y1, x0]) * (x - x0)
            wanted[i, j] = top + (bottom - top) * (y - y0)
    found = resize_tf1(torch.from_numpy(image)[None, None], size)[0, 0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_resize_gives_what_tensorflow_1_gave():
    # tf.image.resize_bilinear([[1, 2], [3, 4]], [4, 4]) of TensorFlow 1: the end is repeated
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    wanted = [[1, 1.5, 2, 2], [2, 2.5, 3, 3], [3, 3.5, 4, 4], [3, 3.5, 4, 4]]
    assert resize_tf1(image, 4)[0, 0].tolist() == wanted


def test_resize_reads_a_ramp_at_multiples_of_the_step():
    # output i lies at input i · H / 299, so a ramp keeps its values up to the repeated end
    ramp = torch.arange(64.0).view(1, 1, 64, 1).expand(2, 3, 64, 64)
    found = resize_tf1(ramp, 299)
    wanted = (torch.arange(299) * (64 / 299)).clamp_max(63)
    assert found.shape == (2, 3, 299, 299)
    torch.testing.assert_close(found, wanted.view(1, 1, -1, 1).expand_as(found), atol=2e-5, rtol=0)


@torch.no_grad()
def test_pixels_become_minus_one_to_one_after_the_resize(network, monkeypatch):
    seen = []
    monkeypatch.setattr(network, "features", lambda x: seen.append(x) or x)
    network(torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    assert seen[0].shape == (1, 3, 299, 299)
    assert seen[0][0, :, 0, 0].tolist() == [-1.0, 0.0, 127 / 128]


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    """A file as the port is published: no step counters, a classifier of 1 008 classes."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({k: v for k, v in network.state_dict().items() if "num_batches" not in k}, path)
    return path


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.no_grad()
def test_the_extractor_reads_a_verified_file(network, weights):
    sha256 = _sha256(weights)
    extractor = load_extractor("inception", path=weights, sha256=sha256[:8])
    assert (extractor.name, extractor.digest, extractor.num_features) == ("inception", sha256, 2048)
    assert "TF1" in extractor.resize
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(extractor(images), network(images))
    with pytest.raises(ValueError, match="takes uint8"):
        extractor(images.float())


@torch.no_grad()
def test_logits_are_the_classifier_without_its_bias(network, weights):
    extractor = load_extractor("inception", path=weights, sha256=_sha256(weights))
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    state = network.state_dict()
    assert state["fc.bias"].abs().max() > 0
    wanted = extractor(images).double().numpy() @ state["fc.weight"].double().numpy().T
    found = extractor.logits(images)
    assert (found.shape, found.dtype) == ((2, 1008), torch.float32)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_file_of_features_only_has_no_logits(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    torch.save(state, tmp_path / "features.pth")
    extractor = load_extractor(
        "inception", path=tmp_path / "features.pth", sha256=_sha256(tmp_path / "features.pth")
    )
    images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    torch.testing.assert_close(extractor(images), network(images))
    with pytest.raises(ValueError, match="hold the features only.*fc.weight"):
        extractor.logits(images)


def test_torchvisions_inception_is_refused(network, tmp_path):
    # the same names and shapes but for 1 000 classes and an auxiliary head
    state = {**network.state_dict(), "fc.weight": torch.zeros(1000, 2048)}
    torch.save(state, tmp_path / "torchvision.pth")
    with pytest.raises(ValueError, match="not the 2015 Inception state dict.*fc.weight"):
        load_inception(tmp_path / "torchvision.pth")
    torch.save({**network.state_dict(), "AuxLogits.fc.bias": torch.zeros(1)}, tmp_path / "aux.pth")
    with pytest.raises(ValueError, match="not the 2015 Inception state dict.*AuxLogits"):
        load_inception(tmp_path / "aux.pth")


def test_bf16_features_are_float32_and_near(weights):
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    full, half = (
        load_extractor("inception", path=weights, sha256=_sha256(weights), precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert (half.precision, half.digest) == ("bf16", full.digest)
    found, wanted = half(images), full(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, wanted)
    assert (found - wanted).norm() < 0.05 * wanted.norm()
    assert (half.logits(images) - full.logits(images)).norm() < 0.05 * full.logits(images).norm()


def test_safetensors_are_read_too(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "inception.safetensors")
    assert torch.equal(
        load_inception(tmp_path / "inception.safetensors").Mixed_7c.branch1x1.conv.weight,
        network.Mixed_7c.branch1x1.conv.weight,
    )


def test_wrong_files_are_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="sha256 is .*, not 00000000"):
        load_extractor("inception", path=weights, sha256="00000000")
    with pytest.raises(ValueError, match="8 to 64 hex digits"):
        load_extractor("inception", path=weights, sha256=_sha256(weights)[:4])
    with pytest.raises(ValueError, match="sha256 is required"):
        load_extractor("inception", path=weights)
    with pytest.raises(ValueError, match="stylegan_tl.weights fetch inception"):
        load_extractor("inception")
    with pytest.raises(ValueError, match="there are small, inception"):
        load_extractor("vgg")
    other = tmp_path / "other.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="not the 2015 Inception state dict"):
        load_inception(other)
    other.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not a plain state dict"):
        load_inception(other)
