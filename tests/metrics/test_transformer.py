"""DINOv2 and CLIP from a local folder: tiny random models that the test saves itself."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.transformer import load_clip, load_dinov2

transformers = pytest.importorskip("transformers")

TINY = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    torch.manual_seed(0)
    model = transformers.Dinov2Model(transformers.Dinov2Config(patch_size=14, **TINY)).eval()
    folder = tmp_path_factory.mktemp("dinov2")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    torch.manual_seed(0)
    vision = {**TINY, "patch_size": 7, "intermediate_size": 32}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)
    config.vision_config.projection_dim = config.text_config.projection_dim = 12
    model = transformers.CLIPModel(config).eval()
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return folder, model


def _sha256(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _digest(folder):
    """Of both files: the network's shape is in config.json."""
    config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    return hashlib.sha256(f"{_sha256(folder)} {config}".encode()).hexdigest()


def _load(name, folder, **options):
    return load_extractor(name, path=folder, sha256=_sha256(folder), **options)


def _image(size):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(image).resize((size, size), Image.BICUBIC)


def _tensor(image):
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())[None]


def _normalised(image, mean, std):
    x = np.asarray(image).astype(np.float64) / 255
    return torch.from_numpy(((x - mean) / std).transpose(2, 0, 1)).float()[None]


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


@torch.no_grad()
@pytest.mark.parametrize("size", [28, 50])
def test_dinov2_gives_the_class_token_of_the_resized_image(dinov2, size):
    folder, model = dinov2
    extractor = _load("dinov2", folder)
    assert (extractor.num_features, extractor.digest) == (16, _digest(folder))
    assert extractor.resize == "antialiased bicubic to 28 px, clamped"
    theirs = _image(size).resize((28, 28), Image.BICUBIC)  # Pillow antialiases, too
    wanted = model(pixel_values=_normalised(theirs, *IMAGENET)).last_hidden_state[:, 0]
    found = extractor(_tensor(_image(size)))
    tolerance = 1e-5 if size == 28 else 0.02  # Pillow rounds to whole levels
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)
    assert found.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("size", [28, 50])
def test_clip_gives_the_projected_embedding_of_the_resized_image(clip, size):
    folder, model = clip
    extractor = _load("clip", folder)
    assert extractor.num_features == 12
    theirs = _image(size).resize((28, 28), Image.BICUBIC)
    pooled = model.vision_model(pixel_values=_normalised(theirs, *CLIP)).pooler_output
    wanted = pooled @ model.visual_projection.weight.T
    found = extractor(_tensor(_image(size)))
    torch.testing.assert_close(found, wanted, atol=1e-5 if size == 28 else 0.02, rtol=0)


def test_dinov2_is_used_at_224_px_although_it_was_tuned_at_518(tmp_path):
    config = transformers.Dinov2Config(patch_size=14, **{**TINY, "image_size": 518})
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    extractor = _load("dinov2", tmp_path)
    assert "224 px" in extractor.resize
    assert extractor(_tensor(_image(32))).shape == (1, 16)


def test_features_do_not_depend_on_the_batch_and_know_bf16(dinov2):
    images = torch.cat([_tensor(_image(28)), _tensor(_image(28).rotate(90))])
    full, half = _load("dinov2", dinov2[0]), _load("dinov2", dinov2[0], precision="bf16")
    together = full(images)
    torch.testing.assert_close(together[1:], full(images[1:]), atol=1e-5, rtol=0)
    assert half(images).dtype == torch.float32
    assert 0 < (half(images) - together).norm() < 0.05 * together.norm()


def test_the_vision_side_alone_is_enough(clip, tmp_path):
    alone = transformers.CLIPVisionModelWithProjection.from_pretrained(clip[0])
    alone.save_pretrained(tmp_path)
    images = _tensor(_image(28))
    torch.testing.assert_close(_load("clip", tmp_path)(images), _load("clip", clip[0])(images))


@torch.no_grad()
@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_a_file_in_half_precision_is_computed_in_float32(name, dinov2, clip, tmp_path):
    """Against the same rounded weights, run in float32 by the library itself."""
    folder, _ = {"dinov2": dinov2, "clip": clip}[name]
    kind = transformers.Dinov2Model if name == "dinov2" else transformers.CLIPModel
    kind.from_pretrained(folder).half().save_pretrained(tmp_path)
    model = kind.from_pretrained(tmp_path, dtype=torch.float32).eval()
    x = _normalised(_image(28), *(IMAGENET if name == "dinov2" else CLIP))
    if name == "dinov2":
        wanted = model(pixel_values=x).pooler_output
    else:
        wanted = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
    found = _load(name, tmp_path)(_tensor(_image(28)))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_loading_is_silent(clip, capfd):
    load_clip(clip[0])
    assert capfd.readouterr() == ("", "")


def test_other_folders_are_refused(dinov2, clip, tmp_path):
    with pytest.raises(ValueError, match="model_type='clip', not dinov2"):
        load_dinov2(clip[0])
    with pytest.raises(ValueError, match="model_type='dinov2', not clip or clip_vision_model"):
        load_clip(dinov2[0])
    (tmp_path / "config.json").write_bytes((dinov2[0] / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((clip[0] / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not hold dinov2"):
        load_dinov2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold dinov2"):
        load_dinov2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([]))
    with pytest.raises(ValueError, match="is not a model's configuration"):
        load_dinov2(tmp_path)


def test_code_in_the_folder_is_not_run(dinov2, tmp_path):
    config = json.loads((dinov2[0] / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "model.safetensors").write_bytes((dinov2[0] / "model.safetensors").read_bytes())
    images = _tensor(_image(28))
    torch.testing.assert_close(
        _load("dinov2", tmp_path)(images), _load("dinov2", dinov2[0])(images)
    )


def test_without_the_package_the_message_says_what_to_install(dinov2, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs the package transformers: pip install .*features"):
        load_dinov2(dinov2[0])
