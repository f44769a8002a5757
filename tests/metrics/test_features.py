"""Which file an extractor is: found, checked before any network is built, and told apart."""

import hashlib
import json
import os

import pytest
import torch

from stylegan_tl.metrics import catalogue, features
from stylegan_tl.metrics.features import Extractor, check_extractor, load_extractor
from stylegan_tl.metrics.small import BUNDLED

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"some weights")
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; `put(name)` places a file there whose digest the catalogue publishes."""
    monkeypatch.setenv("STYLEGAN_TL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)

    def put(name, content=b"published"):
        entries = []
        for one in catalogue.CATALOGUE:
            if one.name == name:
                (folder / one.file).write_bytes(content)
                prefix = hashlib.sha256(content).hexdigest()[:8]
                one = catalogue.Entry(**{**vars(one), "sha256": prefix})
            entries.append(one)
        monkeypatch.setattr(catalogue, "CATALOGUE", tuple(entries))
        return folder / catalogue.entry(name).file

    return put


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_check_builds_no_network(weights, monkeypatch):
    monkeypatch.setattr(features, "_network", lambda *_: pytest.fail("a network was built"))
    assert check_extractor("small") == _sha256(BUNDLED)
    for name in ("inception", "vgg16"):
        found = check_extractor(name, path=weights, sha256=_sha256(weights)[:8])
        assert found == _sha256(weights)


@pytest.mark.parametrize("name", ["inception", "vgg16", "lpips"])
def test_wrong_files_are_told_by_the_check(name, weights):
    with pytest.raises(ValueError, match="path=.*nowhere.pth is not a file"):
        check_extractor(name, path=weights.with_name("nowhere.pth"), sha256="0" * 8)
    with pytest.raises(ValueError, match="sha256 is .*, not 00000000"):
        check_extractor(name, path=weights, sha256="0" * 8)
    with pytest.raises(ValueError, match=f"sha256 is required.*sha256={_sha256(weights)}"):
        check_extractor(name, path=weights)
    with pytest.raises(ValueError, match=r"precision='fp16' is not one of"):
        check_extractor(name, path=weights, precision="fp16")


def test_heads_belong_to_lpips_and_to_its_digest(weights, tmp_path):
    given = {"path": weights, "sha256": _sha256(weights)}
    heads = tmp_path / "heads.pth"
    heads.write_bytes(b"heads")
    digests = {
        check_extractor("lpips", **given),
        check_extractor("lpips", **given, heads=heads),
        check_extractor("vgg16", **given),
    }
    assert len(digests) == 3
    with pytest.raises(ValueError, match="belong to lpips alone"):
        check_extractor("vgg16", **given, heads=heads)
    with pytest.raises(ValueError, match="heads=.*nowhere is not a file"):
        check_extractor("lpips", **given, heads=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_transformers_need_a_folder_with_safetensors(name, tmp_path, weights):
    with pytest.raises(ValueError, match="path=None is not a folder"):
        check_extractor(name)
    with pytest.raises(ValueError, match="is not a folder; it needs one with config.json"):
        check_extractor(name, path=weights)
    with pytest.raises(ValueError, match="config.json is not a file"):
        check_extractor(name, path=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="model.safetensors is not a file"):
        check_extractor(name, path=tmp_path)


def test_a_file_is_hashed_once_until_it_changes(weights, monkeypatch):
    reads = []
    monkeypatch.setattr(features, "file_sha256", lambda p: reads.append(p) or _sha256(p))
    for _ in range(3):
        check_extractor("vgg16", path=weights, sha256=_sha256(weights))
    assert len(reads) == 1
    weights.write_bytes(b"other weights")
    os.utime(weights, ns=(1, 1))
    check_extractor("vgg16", path=weights, sha256=_sha256(weights))
    assert len(reads) == 2


@pytest.mark.parametrize(("name", "entry"), [("inception", "inception"), ("lpips", "vgg16")])
def test_without_a_path_the_catalogues_file_is_used(cache, name, entry):
    with pytest.raises(ValueError, match=f"(?s)weights fetch {entry}.*without a network.*path="):
        check_extractor(name)
    file = cache(entry)
    assert check_extractor(entry) == _sha256(file)
    assert json.loads(file.with_name(file.name + ".json").read_text())["sha256"] == _sha256(file)
    with pytest.raises(ValueError, match="not 00000000"):
        check_extractor(name, sha256="00000000")


def test_a_file_must_stay_what_it_was_at_its_first_use(cache):
    file = cache("vgg16")
    first = check_extractor("vgg16")
    record = file.with_name(file.name + ".json")
    record.write_text(json.dumps({"sha256": first[:8] + "0" * 56}))
    with pytest.raises(ValueError, match=f"sha256 is {first}, not {first[:8]}0000"):
        check_extractor("vgg16")
    record.write_text("damaged")
    with pytest.raises(ValueError, match="does not hold a sha256: delete it"):
        check_extractor("vgg16")


def test_a_file_with_other_than_the_published_digits_is_refused(cache):
    cache("vgg16").write_bytes(b"half a down")
    with pytest.raises(ValueError, match="damaged or another version"):
        check_extractor("vgg16")


def test_what_a_network_cannot_do_is_a_clear_error():
    small = load_extractor("small")
    with pytest.raises(ValueError, match="small gives no logits: use inception"):
        small.logits(IMAGES)
    network = torch.nn.Flatten()
    other = Extractor("other", network, digest="0", num_features=0, resize="none")
    with pytest.raises(ValueError, match="no perceptual distance: use small or lpips"):
        other.embed(IMAGES)
    with pytest.raises(ValueError, match="distances only"):
        other(IMAGES)


def test_bf16_is_another_precision_of_the_same_network():
    full, half = load_extractor("small"), load_extractor("small", precision="bf16")
    assert (full.precision, half.precision, half.digest) == ("fp32", "bf16", full.digest)
    found, wanted = half(IMAGES), full(IMAGES)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).norm() < 0.03 * wanted.norm()
    assert torch.equal(half.embed(IMAGES), full.embed(IMAGES))  # distances stay in float32


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_the_digest_of_a_folder_covers_its_configuration(name, tmp_path):
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    file.write_bytes(b"weights")
    digests = set()
    for heads in (2, 4):
        config.write_text(json.dumps({"num_attention_heads": heads}))
        os.utime(config, ns=(heads, heads))
        digests.add(check_extractor(name, path=tmp_path, sha256=_sha256(file)))
    file.write_bytes(b"other weights")
    digests.add(check_extractor(name, path=tmp_path, sha256=_sha256(file)))
    assert len(digests) == 3


class _Flags(torch.nn.Module):
    """Notes in each call whether TF32 is allowed: in convolutions, in matrix products."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(_tf32())
        return images.float().flatten(1)

    logits = embed = forward


def _tf32():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def tf32():
    """TF32 allowed everywhere, as a user may have set it; put back afterwards."""
    before, precision = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = before
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("call", ["__call__", "logits", "embed"])
def test_float32_is_not_tf32_and_the_flags_are_put_back(tf32, call):
    network = _Flags()
    extractor = Extractor("stub", network, digest="0", num_features=1, resize="none")
    getattr(extractor, call)(IMAGES)
    assert network.seen == [(False, False)]
    assert _tf32() == (True, True)


def test_the_flags_are_put_back_after_an_error(tf32):
    def fails(images):
        raise RuntimeError("out of memory")

    network = _Flags()
    network.forward = network.embed = fails
    extractor = Extractor("stub", network, digest="0", num_features=1, resize="none")
    for call in (extractor, extractor.embed):
        with pytest.raises(RuntimeError, match="out of memory"):
            call(IMAGES)
        assert _tf32() == (True, True)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9")
def test_the_newer_flags_are_put_back_too():
    """With them PyTorch refuses to read the older ones."""
    owners = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    before = [owner.fp32_precision for owner in owners]
    network = torch.nn.Module()
    seen = []
    network.forward = lambda x: seen.append([o.fp32_precision for o in owners]) or x.float()
    try:
        for owner, precision in zip(owners, ("tf32", "ieee", "tf32"), strict=True):
            owner.fp32_precision = precision
        with pytest.raises(RuntimeError, match="mix of the legacy and new"):
            torch.get_float32_matmul_precision()
        Extractor("stub", network, digest="0", num_features=1, resize="none")(IMAGES)
        assert [owner.fp32_precision for owner in owners] == ["tf32", "ieee", "tf32"]
    finally:
        for owner, precision in zip(owners, before, strict=True):
            owner.fp32_precision = precision
    assert seen == [["ieee"] * 3]
    assert torch.get_float32_matmul_precision() == "highest"
