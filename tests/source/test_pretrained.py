"""Public source models by name: their options, what is said where they are not, and fetching."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from foreign_layouts import nvidia_pickle
from recorded import filled

from stylegan_tl import weights
from stylegan_tl.assembly import named_source
from stylegan_tl.config import ConfigError, conf_dir, validate
from stylegan_tl.source import catalogue
from stylegan_tl.source.catalogue import PRETRAINED, File
from stylegan_tl.source.portable import read_model, write_portable

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEGAN_TL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights" / "pretrained"


def _offer(monkeypatch, one) -> None:
    monkeypatch.setattr(catalogue, "PRETRAINED", (one,))


@pytest.mark.parametrize("one", PRETRAINED, ids=lambda one: one.name)
def test_every_entry_is_an_option_that_says_how_to_get_it(one, cache, compose) -> None:
    size = one.resolution or 64
    config = compose([f"source=pretrained/{one.name}", f"resolution={size}"])
    assert config["source"]["name"] == f"pretrained/{one.name}"
    assert config["source"]["checkpoint"] == str(cache / one.files[0].name)
    with pytest.raises(ConfigError) as error:
        validate(config)
    for word in (f"fetch {one.name}", one.licence, *(f.url for f in one.files)):
        assert word in str(error.value)


def test_entries_are_whole() -> None:
    names = [one.name for one in PRETRAINED]
    files = [f.name for one in PRETRAINED for f in one.files]
    assert len(set(names)) == len(names)
    assert len(set(files)) == len(files)
    models = {p.stem for p in Path(conf_dir(), "model").glob("*.yaml")}
    for one in PRETRAINED:
        assert one.model in models | {"stylegan", "dcgan_art"}
        assert one.licence
        assert one.found_in
        assert all(f.url.startswith("https://") for f in one.files)
        assert all(re.fullmatch(r"[0-9a-f]{0,64}", f.sha256) for f in one.files)


def _refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        weights.main(words)
    assert end.value.code == 2


def test_a_model_is_fetched_recorded_and_checked(cache, tmp_path, monkeypatch, capsys) -> None:
    content = nvidia_pickle(tmp_path / "copy.pkl").read_bytes()
    one = replace(catalogue.find("lsun_church_256"), files=(File("church.pkl", "https://x"),))
    _offer(monkeypatch, one)
    address = (tmp_path / "copy.pkl").as_uri()
    assert weights.main(["fetch", "pretrained/lsun_church_256", "--url", address]) == 0
    said = capsys.readouterr().out
    assert "NVIDIA Source Code License" in said
    assert "source=pretrained/lsun_church_256 model=stylegan2 resolution=256" in said
    assert (cache / "church.pkl").read_bytes() == content
    assert {p.name for p in cache.iterdir() if p.suffix != ".lock"} == {
        "church.pkl",
        "church.pkl.json",
    }
    assert hashlib.sha256(content).hexdigest() in (cache / "church.pkl.json").read_text()
    assert weights.main(["verify", "lsun_church_256"]) == 0
    (cache / "church.pkl").write_bytes(b"\x80\x02 others")
    assert weights.main(["verify", "lsun_church_256"]) == 1
    assert weights.main(["list"]) == 0
    assert "lsun_church_256 (there)" in capsys.readouterr().out


def test_a_published_digest_decides(cache, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "m.pth").write_bytes(b"PK other")
    one = catalogue.find("lsun_church_256_mmgen")
    assert one.files[0].sha256 == "1d42b7d1"
    _refused(["fetch", one.name, "--url", str(tmp_path / "m.pth")])
    assert "not 1d42b7d1" in capsys.readouterr().err
    assert not one.path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\n<!DOCTYPE html><title>Virus scan warning</title>",
        b'{"error": "quota exceeded"}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        b"",
    ],
)
def test_a_web_page_is_not_kept(content: bytes, cache, tmp_path, capsys) -> None:
    (tmp_path / "page").write_bytes(content)
    one = catalogue.find("lsun_bedroom_256")
    _refused(["fetch", one.name, "--url", str(tmp_path / "page")])
    assert "answers with a web page" in capsys.readouterr().err
    assert not one.path.exists()


def test_half_a_file_without_a_digest_is_fetched_anew(cache, tmp_path, capsys) -> None:
    """What was left of a download may be half, or of another address: nothing would tell."""
    content = nvidia_pickle(tmp_path / "copy.pkl").read_bytes()
    one = catalogue.find("lsun_church_256")
    coming = cache / ".lsun_church_256"
    coming.mkdir(parents=True)
    (coming / f"{one.path.name}.part").write_bytes(b"\x80\x02 w")
    (coming / one.path.name).write_bytes(b"\x80\x02 of another address")
    assert weights.main(["fetch", one.name, "--url", str(tmp_path / "copy.pkl")]) == 0
    assert one.path.read_bytes() == content


def test_a_pair_comes_from_a_folder(cache, tmp_path, capsys) -> None:
    one = catalogue.find("art_landscape_128")
    _pair(tmp_path, one.files)
    _refused(["fetch", one.name, "--url", str(tmp_path / one.files[0].name)])
    assert "folder that has both files" in capsys.readouterr().err
    assert weights.main(["fetch", one.name, "--url", str(tmp_path)]) == 0
    assert sorted(p.name for p in cache.glob("*.t7")) == [
        "landscape_net_D.t7",
        "landscape_net_G.t7",
    ]
    assert not (cache / ".art_landscape_128").exists()
    other = cache / one.files[1].name
    other.write_bytes(other.read_bytes() + b" ")  # not what was used first
    with pytest.raises(ValueError, match="landscape_net_D.t7"):
        named_source({"source": {"checkpoint": str(one.path)}})
    with pytest.raises(ValueError, match="no pretrained source is known as 'x'"):
        catalogue.find("x")


def test_a_half_of_a_pair_that_cannot_be_read_keeps_the_other_away_too(
    cache, tmp_path, capsys
) -> None:
    one = catalogue.find("art_landscape_128")
    _pair(tmp_path, one.files)
    (tmp_path / one.files[1].name).write_bytes(b"\x80\x02" + bytes(100))
    _refused(["fetch", one.name, "--url", str(tmp_path)])
    said = capsys.readouterr().err.strip().splitlines()[-2]
    assert said.startswith(f"error: {tmp_path / one.files[0].name} is not a model")
    assert said.endswith("; nothing was kept")
    assert [p.name for p in cache.iterdir()] == [".art_landscape_128.lock"]


@pytest.mark.parametrize("what", ["cut", "hostile", "claims"])
def test_a_model_that_cannot_be_read_is_not_kept(what: str, cache, tmp_path, capsys) -> None:
    """`claims`: a network that the file does not hold, and that no memory does."""
    copy = nvidia_pickle(tmp_path / "copy.pkl")
    if what == "cut":
        copy.write_bytes(copy.read_bytes()[:-50_000])
    elif what == "hostile":
        copy.write_bytes(pickle.dumps(_Hostile(tmp_path)))
    else:
        source = read_model(copy)
        source.network |= {"channel_base": 1 << 20, "channel_max": 1 << 20}
        write_portable(source, copy)
    _refused(["fetch", "lsun_church_256", "--url", str(copy)])
    said = capsys.readouterr().err.strip().splitlines()[-2]
    assert said.startswith(f"error: {copy} ")
    assert said.endswith("; nothing was kept")
    assert [p.name for p in cache.iterdir()] == [".lsun_church_256.lock"]
    assert not (tmp_path / "owned").exists()


class _Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder / "owned"),)


def _pair(folder: Path, files: tuple[File, ...]) -> None:
    """A DCGAN's G and D under these names."""
    layout = RECORDED["pytorch_examples"]["layout"]
    for file, net in zip(files, "GD", strict=True):
        torch.save(filled(layout[net]), folder / file.name)


def test_a_named_source_brings_its_licence(cache, compose, monkeypatch) -> None:
    from stylegan_tl.assembly import named_source
    from stylegan_tl.models.stylegan2 import StyleGAN2
    from stylegan_tl.models.training import Training
    from stylegan_tl.source.foreign import stylegan2_names as names

    network = {"resolution": 16, "z_dim": 8, "w_dim": 8, "c_dim": 0, "num_mapping_layers": 2}
    network |= {"channel_base": 96, "channel_max": 12, "mbstd_group_size": 4}
    model = StyleGAN2(network=network, training=asdict(Training()), precision="fp32")
    state = model.G_ema.state_dict()
    table = names.generator(16, 2, names.MMGENERATION)
    own = {f"generator.{theirs}": names.theirs_of(k, state[k]) for k, theirs in table.items()}
    cache.mkdir(parents=True)
    one = replace(catalogue.find("lsun_cat_256_mmgen"), files=(File("cat.pth", "https://x"),))
    monkeypatch.setattr(catalogue, "PRETRAINED", (one,))
    torch.save({"state_dict": own}, one.path)
    chosen = ["model=stylegan2_small", "source=checkpoint", f"source.checkpoint={one.path}"]
    config = compose([*chosen, "resolution=16"])
    source = named_source(config)
    assert source.record()["licence"] == one.licence
    assert source.record()["catalogue"] == "pretrained/lsun_cat_256_mmgen"
    assert source.dataset == "LSUN cat"
    torch.save({"state_dict": own, "more": 1}, one.path)
    with pytest.raises(ValueError, match="damaged or another version"):
        named_source(config)
