"""Interpolation, style mixing and truncation against closed forms; what every tool leaves."""

from __future__ import annotations

import hashlib
import json
import math
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_tl.latent.__main__ import TOOLS, main
from stylegan_tl.latent.codes import BANDS, layers_of, on_the_way
from stylegan_tl.latent.interpolate import walk
from stylegan_tl.latent.mix import mixed
from stylegan_tl.latent.truncation import truncated
from stylegan_tl.restore import restore
from stylegan_tl.sampling import Look, latents, sample, styles

STYLEGAN2 = [4 << (i // 2) for i in range(18)]  # of its ws, at 1024 px
FAMILIES = ("stylegan2", "stylegan3", "dcgan")


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _reference_slerp(a, b, t):
    """Shoemake 1985, for unit vectors."""
    angle = math.acos(float(a @ b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / math.sin(angle)


def _tiles(path: Path, columns: int, side: int = 128) -> list[np.ndarray]:
    """The tiles of a sheet, row by row: they end 3 pixels before its lower right corner."""
    picture = np.asarray(Image.open(path)).astype(int)
    height, width, _ = picture.shape
    left, step = width - 3 - columns * (side + 3), side + 3
    rows = range((height - 40) // step)
    top = height - 3 - len(rows) * step
    return [
        picture[top + 3 + step * r :, left + 3 + step * c :][:side, :side]
        for r in rows
        for c in range(columns)
    ]


# ---- ways between latents ---------------------------------------------------------------------


def test_slerp_of_orthogonal_unit_vectors_stays_on_the_unit_sphere() -> None:
    a, b = torch.eye(7)[:2]
    t = torch.linspace(0, 1, 11)
    way = on_the_way(a.expand(11, -1), b.expand(11, -1), t, "slerp")
    torch.testing.assert_close(way.norm(dim=1), torch.ones(11))
    torch.testing.assert_close(way[:, 0], torch.cos(t * math.pi / 2))
    expected = np.stack([_reference_slerp(a.numpy(), b.numpy(), x) for x in t.numpy()])
    torch.testing.assert_close(way, torch.from_numpy(expected).float(), rtol=1e-5, atol=1e-6)


def test_slerp_about_a_centre_keeps_the_distance_from_it() -> None:
    centre = _random(5)
    a, b = (centre + 3 * torch.nn.functional.normalize(x, dim=-1) for x in _random(2, 4, 6, 5))
    way = on_the_way(a, b, torch.tensor([0.1, 0.4, 0.5, 0.9]), "slerp", centre)
    torch.testing.assert_close((way - centre).norm(dim=-1), torch.full((4, 6), 3.0))


@pytest.mark.parametrize("apart", [0, 1e-7, 1e-5, 1e-4])
def test_slerp_of_what_is_nearly_parallel_is_straight(apart: float) -> None:
    a, other = _random(2, 50, 128)
    b = a + apart * other
    t = torch.linspace(0, 1, 50)
    way = on_the_way(a, b, t, "slerp")
    torch.testing.assert_close(way, a.lerp(b, t[:, None]), rtol=1e-5, atol=3e-6)


def test_lerp_is_the_weighted_mean() -> None:
    a, b = _random(2, 3, 4, 5)
    t = torch.tensor([0.25, 0.5, 1.0])
    expected = a * (1 - t[:, None, None]) + b * t[:, None, None]
    torch.testing.assert_close(on_the_way(a, b, t, "lerp"), expected)


@pytest.mark.parametrize("path", ["lerp", "slerp"])
@pytest.mark.parametrize("shape", [(3, 6), (3, 4, 6)])
def test_a_walk_is_at_its_stations_bit_for_bit(path: str, shape: tuple[int, ...]) -> None:
    codes = _random(*shape)
    loop = walk(codes, 4, path, loop=True)
    line = walk(codes, 4, path, loop=False)
    assert (len(loop), len(line)) == (12, 9)
    assert torch.equal(loop[::4], codes)
    assert torch.equal(line[::4], codes)
    assert torch.equal(loop[:8], line[:8])
    back = walk(codes.flip(0), 4, path, loop=False).flip(0)
    torch.testing.assert_close(back, line, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all", list(range(10))), ("coarse", [0, 1, 2, 3]), ("middle", [4, 5, 6, 7]),
        ("fine", [8, 9]), ("2-4", [2, 3, 4]), (5, [5]), (["0-1", 8], [0, 1, 8]),
        (["coarse", "2-5"], [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_layers_are_named(text, found: list[int]) -> None:
    assert layers_of(text, STYLEGAN2[:10]) == found


@pytest.mark.parametrize("text", ["10", "0-10", "low", "3-1", "", "-1", None])
def test_layers_that_are_not_there_are_an_error(text) -> None:
    with pytest.raises(ValueError, match="layers=.*0-9"):
        layers_of(text, STYLEGAN2[:10])


def test_the_bands_leave_no_layer_out() -> None:
    assert sorted(i for band in BANDS for i in layers_of(band, STYLEGAN2)) == list(range(18))


# ---- mixing, truncation -----------------------------------------------------------------------


def test_mixing_takes_layers_from_the_column_and_the_rest_from_the_row() -> None:
    rows, columns = _random(2, 4, 5), -_random(3, 4, 5)
    found = mixed(rows, columns, [1, 2]).unflatten(0, (2, 3))
    for r in range(2):
        for c in range(3):
            expected = [rows[r, 0], columns[c, 1], columns[c, 2], rows[r, 3]]
            assert torch.equal(found[r, c], torch.stack(expected))


def test_mixing_all_layers_is_the_column_and_no_seed_changes_with_itself(tool) -> None:
    whole = tool("mix", "stylegan2_child", "rows=[3,4]", "columns=[5,4]", "layers=all")
    part = tool("mix", "stylegan2_child", "rows=[3,4]", "columns=[5,4]", "layers=coarse", out="b")
    tiles = _tiles(whole["mix.png"], 3)
    for place in (4, 7):  # under the column's own image at place 1
        assert np.abs(tiles[place] - tiles[1]).max() <= 1
    tiles = _tiles(part["mix.png"], 3)
    assert np.abs(tiles[8] - tiles[6]).max() <= 1  # seed 4 with seed 4
    assert np.abs(tiles[7] - tiles[6]).max() > 5


def test_truncation_is_that_of_the_mapping_network(files) -> None:
    model, _ = restore(files["stylegan2_source"])
    z, mapping = latents(model, [0, 1]), model.G_ema.mapping
    psis, full = [0.0, 0.3, 1.0], styles(model, latents(model, [0, 1]), Look())
    low = truncated(full, mapping.w_avg, psis, [0, 1, 2]).unflatten(0, (2, 3))
    for i, psi in enumerate(psis):
        expected = mapping(z, truncation_psi=psi, truncation_cutoff=3)
        torch.testing.assert_close(low[:, i], expected)
    assert torch.equal(low[:, 2], full)


@pytest.mark.parametrize("family", FAMILIES)
def test_psi_0_is_one_image_for_all_seeds_and_psi_1_the_seeds_own(tool, files, family) -> None:
    made = tool("truncation", f"{family}_source", "seeds=[2,7]", "psi=[0,1]")
    tiles = _tiles(made["truncation.png"], 2)
    model, _ = restore(files[f"{family}_source"])
    own = sample(model, latents(model, [2, 7]), Look()).transpose(0, 2, 3, 1).astype(int)
    assert np.abs(tiles[0] - tiles[2]).max() <= 1
    assert np.abs(tiles[1] - tiles[3]).max() > 5
    for tile, image in zip(tiles[1::2], own, strict=True):  # enlarged four times
        means = tile.reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.abs(means - image).mean() < 4


# ---- the animation, the record, the encoder ---------------------------------------------------


@pytest.mark.parametrize(
    ("family", "space"), [("stylegan2", "w"), ("stylegan2", "z"), ("dcgan", "z")]
)
def test_a_walk_is_written_with_its_record(tool, files, family: str, space: str) -> None:
    words = ["seeds=[1,2]", "frames=4", f"space={space}", "fps=10"]
    made = tool("interpolate", f"{family}_source", *words)
    with Image.open(made["interpolation.webp"]) as animation:
        assert animation.n_frames == 8
    record = json.loads(made["interpolate.json"].read_text())
    assert (record["tool"], record["command"]) == ("interpolate", "the command")
    assert record["stations"] == ["seed 1", "seed 2"]
    assert (record["space"], record["path"]) == (space, {"w": "lerp", "z": "slerp"}[space])
    source = files[f"{family}_source"]
    assert record["models"]["model"]["sha256"] == _digest(source)
    names = [entry["file"] for entry in record["files"]]
    assert [*names, "interpolate.json"] == list(made)
    assert all(e["sha256"] == _digest(made[e["file"]]) for e in record["files"])


def test_the_same_settings_give_the_same_bytes(tool) -> None:
    words = ["interpolate", "stylegan2_source", "seeds=0-1", "frames=2", "noise=random"]
    first, again = tool(*words), tool(*words, out="again")
    assert _digest(first["interpolation.webp"]) == _digest(again["interpolation.webp"])


def test_mp4_gets_every_frame(tool, tmp_path, monkeypatch) -> None:
    pretend = tmp_path / "bin" / "ffmpeg"
    pretend.parent.mkdir()
    pretend.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\nwc -c >> "$last"\n')
    pretend.chmod(pretend.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{pretend.parent}:/usr/bin:/bin")
    monkeypatch.setattr("stylegan_tl.latent.video.find_spec", lambda name: None)
    made = tool("interpolate", "dcgan_source", "frames=3", "seeds=0-1", "fps=12", "mp4=true")
    command, count = made["interpolation.mp4"].read_text().splitlines()
    assert "-r 12" in command
    assert "-s 512x512" in command
    assert int(count) == 6 * 512 * 512 * 3


def test_without_an_encoder_mp4_says_so_before_any_work(tool, monkeypatch) -> None:
    monkeypatch.setattr("stylegan_tl.latent.video.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="imageio-ffmpeg"):
        tool("interpolate", "no such model", "mp4=true")


def test_an_encoder_that_fails_is_quoted(tool, tmp_path, monkeypatch) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\ncat > /dev/null\necho Unknown encoder libx264 >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("stylegan_tl.latent.video.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Unknown encoder libx264"):
        tool("interpolate", "dcgan_source", "frames=1", "mp4=true")


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("interpolate", "seeds=3", "seeds=3: use 2 seeds"), ("interpolate", "seeds=x", "seeds=x"),
        ("interpolate", "path=straight", "path=straight: use auto, lerp, slerp"),
        ("interpolate", "frames=0", "frames=0"), ("interpolate", "fps=1.5", "fps=1.5"),
        ("mix", "rows=4-2", "rows=4-2"), ("mix", "columns=a", "columns=a"),
        ("truncation", "psi=[0,a]", "psi="), ("truncation", "truncation=0.5", "psi="),
        ("factorise", "directions=0", "directions=0"), ("factorise", "degrees=[]", "degrees="),
        ("project", "count=2", "images=FOLDER or target=DATASET"),
        ("blend", "low=parent", "low=parent: use source, child"),
        ("blend", "width=-1", "width=-1"), ("pair", "space=auto", "space=auto: use z, w"),
    ],
)  # fmt: skip
def test_bad_settings_are_named_before_a_model_is_opened(tool, name, word, message) -> None:
    with pytest.raises(ValueError, match=message):
        tool(name, "no such model", word)


@pytest.mark.parametrize(
    ("name", "model", "word", "message"),
    [
        ("interpolate", "dcgan_source", "space=w", "DCGAN has no mapping network"),
        ("interpolate", "dcgan_source", "latents=nowhere", "latents=nowhere does not exist"),
        ("interpolate", "dcgan_source", "noise=some", "noise=some"),
        ("interpolate", "dcgan_source", "truncation=a", "truncation=a"),
        ("mix", "dcgan_source", "rows=1", "one z for all layers"),
        ("mix", "stylegan2_source", "layers=20", "layers=20"),
        ("truncation", "dcgan_source", "layers=coarse", "layers=coarse"),
        ("factorise", "dcgan_source", "layers=coarse", "layers=coarse"),
        ("factorise", "dcgan_source", "directions=7", "6 dimensions"),
        ("factorise", "stylegan2_source", "layers=7", "layers=7: that w feeds no convolution"),
    ],
)
def test_what_a_model_cannot_do_is_said(tool, tmp_path, name, model, word, message) -> None:
    with pytest.raises(ValueError, match=message):
        tool(name, model, word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["interpolat", "checkpoint=x"], "interpolat: no such tool; did you mean interpolate?"),
        (["checkpoint=x"], f"checkpoint=x: no such tool; there are {', '.join(TOOLS)}"),
    ],
)
def test_a_word_that_is_no_tool_is_answered_in_one_line(words, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["latent", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == f"error: {said}"


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["mixx", "-h"], 0)])
def test_no_word_and_help_show_the_tools(words, code: int, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["latent", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    shown = capsys.readouterr()
    assert all(f"  {name} " in (shown.err if code else shown.out) for name in TOOLS)


ARGUMENTS = {
    "interpolate": ["frames=2", "seeds=0-1"],
    "mix": ["rows=[0]", "columns=[1]"],
    "truncation": ["seeds=[0]", "psi=[0,1]"],
    "factorise": ["seeds=[0]", "directions=1", "degrees=[-1,1]"],
    "blend": ["edge=16", "seeds=[0]"],
    "pair": ["seeds=[0]", "frames=1"],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_nothing_is_written_over_unless_that_is_wished(tool, files, tmp_path, name: str) -> None:
    words = list(ARGUMENTS[name])
    if name in ("blend", "pair"):
        words.append(f"source.checkpoint={files['stylegan2_source']}")
    made = tool(name, "stylegan2_child", *words)
    assert len(made) == len(list((tmp_path / "out").iterdir()))
    for path in made.values():  # each alone is not written over, and then nothing is written
        for other in made.values():
            other.unlink(missing_ok=True)
        path.write_text("mine")
        with pytest.raises(ValueError, match=f"{path.name} would be .* use overwrite=true"):
            tool(name, "stylegan2_child", *words)
        assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["mine"]
    again = tool(name, "stylegan2_child", *words, "overwrite=true")
    assert again.keys() == made.keys()
    assert all(path.read_bytes() != b"mine" for path in again.values())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
