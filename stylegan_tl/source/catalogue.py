"""Public pretrained source models: what each shows, who may use it, where it lies, its digest.

Plain entries, collected from the pages of their owners (`found_in`); no file was downloaded to
check them. `python -m stylegan_tl.weights fetch NAME` brings one into the cache, and
`source=pretrained/NAME` starts from it. Imports no torch: Hydra's options are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PREFIX", "PRETRAINED", "File", "Pretrained", "find", "folder", "holding", "missing"]

PREFIX = "pretrained/"


@dataclass(frozen=True)
class File:
    """One file: its name in the cache, its address, and its SHA-256 as far as it is published."""

    name: str
    url: str
    sha256: str = ""


@dataclass(frozen=True)
class Pretrained:
    """A source model; of several files the first is the one to read, its partner beside it.

    `model`: the option of `model=`. `resolution` is None where the owner does not say it.
    """

    name: str
    domain: str
    resolution: int | None
    model: str
    format: str
    licence: str
    files: tuple[File, ...]
    found_in: str
    note: str = ""

    @property
    def path(self) -> Path:
        """Where it belongs, there or not."""
        return folder() / self.files[0].name


def folder() -> Path:
    """Where source models are looked for: `pretrained` in the folder of all weights."""
    from stylegan_tl.metrics.catalogue import default_folder

    return default_folder() / "pretrained"


def find(name: str) -> Pretrained:
    """The entry `name`, with or without `pretrained/`; ValueError with the names there are."""
    for one in PRETRAINED:
        if one.name == name.removeprefix(PREFIX):
            return one
    raise ValueError(
        f"no pretrained source is known as {name!r}; there are "
        f"{', '.join(one.name for one in PRETRAINED)}"
    )


def holding(path: str | Path) -> Pretrained | None:
    """The entry whose place in the cache `path` is, or None."""
    path = Path(path).expanduser()
    return next((one for one in PRETRAINED if one.path == path), None)


def missing(one: Pretrained) -> str:
    """Say of a model that is not there how to get it, and what its licence is."""
    files = "; ".join(f"{f.url} as {folder() / f.name}" for f in one.files)
    return (
        f"source={PREFIX}{one.name} is not on this machine. Its licence: {one.licence}. Fetch it "
        f"once with `python -m stylegan_tl.weights fetch {one.name}`; without a network, or where "
        f"the address wants a browser, put {files}, or fetch it from a copy with --url FILE"
    )


_NC = "NVIDIA Source Code License (non-commercial)"
_ADA = "NVlabs/stylegan2-ada-pytorch README and train.py (d72cc7d)"
_ADA_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_SOURCES = f"{_ADA_URL}/transfer-learning-source-nets"
_TF2 = "NVlabs/stylegan2 pretrained_networks.py (bf0fe0b)"
_TF2_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks"
_TF1 = "NVlabs/stylegan README (1e0d5c7)"
_MM = "open-mmlab/mmgeneration configs (ccd1f56)"
_MM_URL = "https://download.openmmlab.com/mmgen"
_OFFICIAL = "stylegan2/official_weights"
_BY_NC = "CC BY-NC 4.0 (NVIDIA)"
_APACHE = "Apache-2.0 (the project's; none is stated for its weights)"
_DRIVE = "https://drive.google.com/uc?id="
_BARRAT = "credit the author, outputs may not be sold (README and LICENSE of art-DCGAN)"


def _ada(name: str, domain: str, resolution: int, file: str) -> Pretrained:
    address = f"{_SOURCES if '-' in file else _ADA_URL}/{file}"
    files = (File(file, address),)
    return Pretrained(
        name, domain, resolution, "stylegan2", "stylegan2-ada-pytorch pickle", _NC, files, _ADA
    )


def _tf2(subject: str) -> Pretrained:
    file = f"stylegan2-{subject}-config-f.pkl"
    files = (File(file, f"{_TF2_URL}/{file}"),)
    name, domain = f"lsun_{subject}_256", f"LSUN {subject}"
    return Pretrained(name, domain, 256, "stylegan2", "TensorFlow StyleGAN2", _NC, files, _TF2)


def _tf1(name: str, domain: str, resolution: int, drive: str) -> Pretrained:
    files = (File(f"karras2019stylegan-{name}.pkl", f"{_DRIVE}{drive}"),)
    return Pretrained(
        name, domain, resolution, "stylegan", "TensorFlow StyleGAN", _BY_NC, files, _TF1
    )


def _mm(name: str, domain: str, resolution: int, file: str, licence: str) -> Pretrained:
    """The eight digits at the end of their file names are the first of the SHA-256."""
    short = file.rpartition("/")[2]
    digest = short.removesuffix(".pth").rpartition("-")[2]
    files = (File(short, f"{_MM_URL}/{file}", digest),)
    model = "dcgan" if file.startswith("dcgan/") else "stylegan2"
    return Pretrained(name, domain, resolution, model, "mmgeneration", licence, files, _MM)


def _barrat(subject: str, G: str, D: str) -> Pretrained:
    files = tuple(
        File(f"{subject}_net_{network}.t7", f"{_DRIVE}{drive}")
        for network, drive in (("G", G), ("D", D))
    )
    return Pretrained(
        f"art_{subject}_128",
        f"WikiArt {subject.replace('_', ' ')}",
        128,
        "dcgan_art",
        "Torch7 (art-DCGAN)",
        _BARRAT,
        files,
        "robbiebarrat/art-DCGAN README (43b99ad), its CPU files",
    )


PRETRAINED = (
    _ada("ffhq_1024", "FFHQ", 1024, "ffhq-res1024-mirror-stylegan2-noaug.pkl"),
    _ada("ffhq_512", "FFHQ", 512, "ffhq-res512-mirror-stylegan2-noaug.pkl"),
    _ada("ffhq_256", "FFHQ", 256, "ffhq-res256-mirror-paper256-noaug.pkl"),
    _ada("ffhq_ada_1024", "FFHQ", 1024, "ffhq.pkl"),
    _ada(
        "celebahq_256",
        "CelebA-HQ",
        256,
        "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    ),
    _ada("lsun_dog_256", "LSUN dog", 256, "lsundog-res256-paper256-kimg100000-noaug.pkl"),
    _ada("metfaces_1024", "MetFaces", 1024, "metfaces.pkl"),
    _ada("afhq_cat_512", "AFHQ cat", 512, "afhqcat.pkl"),
    _ada("afhq_dog_512", "AFHQ dog", 512, "afhqdog.pkl"),
    _ada("afhq_wild_512", "AFHQ wild", 512, "afhqwild.pkl"),
    _tf2("church"),
    _tf2("cat"),
    _tf2("horse"),
    _tf1("lsun_bedroom_256", "LSUN bedroom", 256, "1MOSKeGF0FJcivpBI7s63V9YHloUTORiF"),
    _tf1("lsun_cat_stylegan_256", "LSUN cat", 256, "1MQywl0FNt6lHu8E_EUqnRbviagS7fbiJ"),
    _tf1("ffhq_stylegan_1024", "FFHQ", 1024, "1MEGjdvVpUsu1jB4zrXZN7Y4kBBOzizDQ"),
    _tf1("celebahq_stylegan_1024", "CelebA-HQ", 1024, "1MGqJl28pN4t7SAtSrPdSRJSQJqahkzUf"),
    _mm(
        "ffhq_256_mmgen",
        "FFHQ",
        256,
        "stylegan2/stylegan2_c2_ffhq_256_b4x8_20210407_160709-7890ae1f.pth",
        _APACHE,
    ),
    _mm(
        "ffhq_1024_mmgen",
        "FFHQ",
        1024,
        "stylegan2/stylegan2_c2_ffhq_1024_b4x8_20210407_150045-618c9024.pth",
        _APACHE,
    ),
    _mm(
        "lsun_church_256_mmgen",
        "LSUN church",
        256,
        f"{_OFFICIAL}/stylegan2-church-config-f-official_20210327_172657-1d42b7d1.pth",
        _NC,
    ),
    _mm(
        "lsun_cat_256_mmgen",
        "LSUN cat",
        256,
        f"{_OFFICIAL}/stylegan2-cat-config-f-official_20210327_172444-15bc485b.pth",
        _NC,
    ),
    _mm(
        "lsun_horse_256_mmgen",
        "LSUN horse",
        256,
        f"{_OFFICIAL}/stylegan2-horse-config-f-official_20210327_173203-ef3e69ca.pth",
        _NC,
    ),
    _mm(
        "lsun_bedroom_64",
        "LSUN bedroom",
        64,
        "dcgan/dcgan_lsun-bedroom_64_b128x1_5e_20210408_161713-117c498b.pth",
        _APACHE,
    ),
    _mm(
        "celeba_64",
        "CelebA, cropped",
        64,
        "dcgan/dcgan_celeba-cropped_64_b128x1_300kiter_20210408_161607-1f8a2277.pth",
        _APACHE,
    ),
    Pretrained(
        "ffhq_256_rosinality",
        "FFHQ",
        256,
        "stylegan2",
        "rosinality StyleGAN2",
        "none stated for the weights (the code is MIT, its kernels NVIDIA's)",
        (File("550000.pt", f"{_DRIVE}1PQutd-JboOCOZqmd95XWxWrO8gGEvRcO"),),
        "rosinality/stylegan2-pytorch README (bef283a)",
    ),
    Pretrained(
        "wikiart_conditional",
        "WikiArt",
        None,
        "stylegan2",
        "TensorFlow StyleGAN2, another's fork",
        "unknown (Peter Baylies; the pictures are WikiArt's, for research only)",
        (
            File(
                "wikiart-network-snapshot-012052.pkl",
                "https://archive.org/download/wikiart-stylegan2-conditional-model/network-snapshot-012052.pkl",
            ),
        ),
        "justinpinkney/awesome-pretrained-stylegan2 README",
        note="a fork's network: whether it is read here was not tried",
    ),
    _barrat("landscape", "1HqoHuH1cefPN1A9i6j_CjbCuoQy_hpG1", "1wz0Ke0TL8J9x2AkfpYTBII0UfO_OPVgH"),
    _barrat("portrait", "1Ul9poUdKBSdyb6IAJlSXBP8zVOVpzHBT", "1KJMUW0sOZ3CRjshCEsJPd76DN4GT6Otv"),
    _barrat(
        "nude_portrait", "1WfGaeEMNgMp355J194NnfRr8TqHSlvVd", "1bOLqlIsXrOYYxfQnwgNQloCy4D0p7bBe"
    ),
)
"""No StyleGAN of LSUN kitchen is public as far as the owners' pages say."""
