"""The training benchmark: published settings, the model's own step, cells that fail alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_tl import bench, bench_worker
from stylegan_tl.networks import stylegan2

OPTIONS = dict(precision="fp32", device="cpu", ada=0.5, threads=None, baseline=None, warm_up=1)


def _tiny(mode: str = "eager", **options) -> dict:
    return bench.cell("auto", 16, mode=mode, batch=4, quick=True, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("resolution", "batch", "base", "gamma"),
    # batch, widths and R1 weight that the published `auto` configuration has on one GPU
    [(64, 32, 16384, 0.0256), (128, 32, 16384, 0.1024), (256, 16, 16384, 0.8192),
     (512, 8, 32768, 6.5536)],
)  # fmt: skip
def test_auto_is_what_was_published(resolution, batch, base, gamma) -> None:
    found = bench.cell("auto", resolution, mode="ref", quick=False, **OPTIONS)
    assert found["training"]["batch_size"] == batch
    assert found["network"]["channel_base"] == base
    assert found["training"]["r1_gamma"] == pytest.approx(gamma)
    assert found["ada"] == 0.5


def test_paper256_has_the_published_number_of_parameters() -> None:
    network = bench.cell("paper256", 256, mode="ref", quick=False, **OPTIONS)["network"]
    mbstd = network.pop("mbstd_group_size")
    widths = {k: network[k] for k in ("resolution", "channel_base", "channel_max")}
    with torch.device("meta"):
        G = stylegan2.Generator(**network)
        D = stylegan2.Discriminator(**widths, mbstd_group_size=mbstd)
    counts = [sum(p.numel() for p in network.parameters()) for network in (G, D)]
    assert counts == [24_767_458, 24_001_089]


def test_small_is_the_configuration_of_the_published_ratio() -> None:
    for resolution, base in ((32, 2048), (64, 4096)):
        found = bench.cell("small", resolution, mode="ref", quick=False, **OPTIONS)
        assert found["network"] == {
            "resolution": resolution, "z_dim": 128, "w_dim": 128, "num_mapping_layers": 2,
            "channel_base": base, "channel_max": 128, "mbstd_group_size": 4,
        }  # fmt: skip
        assert (found["training"]["batch_size"], found["training"]["r1_interval"]) == (16, 16)
        assert (found["pl_weight"], found["ada"]) == (0, None)


def test_an_iteration_is_the_models_own_with_every_lazy_step() -> None:
    what = _tiny()
    model = bench_worker.build(what)
    before = {n: [p.clone() for p in getattr(model, n).parameters()] for n in ("G", "D", "G_ema")}
    stats = model.training_step(bench_worker.batch(what), 0)
    assert {"loss_G", "path_length", "loss_D", "r1"} <= stats.keys()
    assert model.augment.p == 0.5
    assert model.nimg == 4
    for name, old in before.items():
        new = list(getattr(model, name).parameters())
        assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True)), name
    assert "path_length" not in model.training_step(bench_worker.batch(what), 1)


class _Generator(torch.Generator):
    @property
    def device(self) -> torch.device:
        return torch.device("meta")


class _Traffic(TorchDispatchMode):
    """Notes what passes between the host and a device without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            given = [a for a in args if isinstance(a, torch.Tensor) and a.ndim]
            self.found += [f"{func} {a.shape}" for a in given if a.device != out.device]
        return out


def test_steps_keep_to_the_device(monkeypatch) -> None:
    """Recording in CUDA graphs forbids copies from the host and waits for the device."""
    model = bench_worker.build(_tiny())
    model.augment._probability = lambda: 0.5  # the host knows it: fixed
    model = model.to("meta")
    monkeypatch.setattr(model, "generator", lambda stream: _Generator())
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    opt_G, opt_D = model.optimizers()
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    real, label = torch.empty(4, 3, 16, 16, device="meta"), torch.empty(4, 0, device="meta")
    steps = {
        "_step_G": (opt_G, label), "regularise_G": (opt_G, label),
        "_step_D": (opt_D, real, label), "_step_R1": (opt_D, real, label),
    }  # fmt: skip
    made = torch.tensor

    def tensor(data, **options):
        assert str(options.get("device")) != "meta", "a constant travels to the device"
        return made(data, **options)

    for name, arguments in steps.items():
        for attempt in range(2):  # the first may fill caches
            with _Traffic() as traffic, model.toggled_optimizer(arguments[0]):
                monkeypatch.setattr(torch, "tensor", tensor if attempt else made)
                getattr(model, name)(*arguments)
        monkeypatch.setattr(torch, "tensor", made)
        assert not traffic.found, name


def test_memory_and_seconds_are_measured_and_losses_must_be_finite() -> None:
    what = _tiny(ada=None)
    model, data = bench_worker.build(what), bench_worker.batch(what)
    found = bench_worker.timed(model, data, 1)
    assert found.keys() == {"wall", "cpu", "memory_gb"}
    assert min(found.values()) > 0
    with pytest.raises(FloatingPointError):
        bench_worker.timed(model, data | {"image": data["image"] * float("nan")}, 1)


def test_a_profile_names_operators() -> None:
    what = _tiny(ada=None)
    table = bench_worker.profiled(bench_worker.build(what), bench_worker.batch(what))
    assert "Self CPU" in table
    assert "aten::" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_say_what_they_need() -> None:
    what = _tiny("graph")
    with pytest.raises(RuntimeError, match="CUDA device"):
        bench_worker.record_steps(bench_worker.build(what), bench_worker.batch(what))


def test_compiled_steps_leave_the_networks_as_they_were(monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    what = _tiny("compile", ada=None)
    model = bench_worker.build(what)
    seen = []
    model._step_G = lambda *arguments: seen.append("forward" in vars(model.D)) or {}
    bench_worker.compile_steps(model)
    model._step_G(None, None)
    assert seen == [True]
    assert "forward" not in vars(model.D)
    assert "forward" not in vars(model.G.synthesis)


_NETWORKS = """
import torch
from torch import nn

class Mapping(nn.Module):
    def __init__(self, z_dim, w_dim):
        super().__init__()
        self.fc = nn.Linear(z_dim, w_dim)
    def forward(self, z, c):
        return self.fc(z).unsqueeze(1).repeat(1, 4, 1)

class Synthesis(nn.Module):
    def __init__(self, w_dim, size):
        super().__init__()
        self.size, self.fc = size, nn.Linear(w_dim, 3 * size * size)
    def forward(self, ws):
        return self.fc(ws.mean(1)).tanh().unflatten(1, (3, self.size, self.size))

class Generator(nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs,
                 synthesis_kwargs):
        super().__init__()
        self.z_dim, self.img_resolution = z_dim, img_resolution
        self.mapping, self.synthesis = Mapping(z_dim, w_dim), Synthesis(w_dim, img_resolution)

class Discriminator(nn.Module):
    def __init__(self, c_dim, img_resolution, img_channels, channel_base, channel_max,
                 epilogue_kwargs):
        super().__init__()
        self.fc = nn.Linear(3 * img_resolution ** 2, 1)
    def forward(self, img, c):
        return self.fc(img.flatten(1)).square()
"""
_AUGMENT = """
import torch

class AugmentPipe(torch.nn.Module):
    def __init__(self, xflip, rotate90, xint, scale, rotate, aniso, xfrac, brightness, contrast,
                 lumaflip, hue, saturation):
        super().__init__()
        self.register_buffer("p", torch.ones([]))
    def forward(self, images):
        return images * self.p
"""
_GRADFIX = """
import contextlib
enabled = False

@contextlib.contextmanager
def no_weight_gradients():
    yield
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Write a stand-in with the interface that the baseline documents."""
    files = {
        "training/networks.py": _NETWORKS, "training/augment.py": _AUGMENT,
        "torch_utils/ops/conv2d_gradfix.py": _GRADFIX,
        "torch_utils/ops/grid_sample_gradfix.py": _GRADFIX,
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def test_cells_run_side_by_side_and_fail_alone(checkout: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "rows.json"
    command = ["--device", "cpu", "--quick", "--mode", "eager", "graph", "--threads", "1"]
    bench.main([*command, "--baseline", str(checkout), "--out", str(out)])
    result = json.loads(out.read_text())
    eager, graph, baseline = result["rows"]
    assert eager["s_per_kimg"] > 0
    assert eager["x_baseline"] == pytest.approx(
        baseline["s_per_kimg"] / eager["s_per_kimg"], rel=1e-6
    )
    assert "goal" not in eager  # tiny sizes promise nothing
    if not torch.cuda.is_available():
        assert "CUDA device" in graph["error"]
    assert eager["ready"]["threads"] == 1
    assert "CUDA device" in capsys.readouterr().out


def test_a_worker_that_dies_gives_its_last_words(monkeypatch) -> None:
    monkeypatch.setattr(bench.sys, "executable", "false")
    worker = bench.Worker({"mode": "eager", "threads": None})
    assert worker.ask() == {}
    assert worker.error == "ended with 1: no word"
    assert worker.ask("time 1") == {}
    worker.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "fast"], "invalid choice: 'fast'"),
        (["--baseline", "nowhere"], "no checkout of stylegan2-ada-pytorch"),
        (["--resolution", "100"], "powers of two"),
        (["--config", "paper256", "--resolution", "128"], "--resolution 256"),
        (["--iterations", "5"], "a multiple of 16"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--device", "cpu", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


class _Inside:
    """A worker in this very process, for speed; `error` of its images when told so."""

    error = None

    def __init__(self, what: dict) -> None:
        self.what = what

    def ask(self, command: str | None = None) -> dict:
        if command:
            found = bench_worker.derivatives(bench_worker.build(self.what), self.what["device"])
            found["images"][0] *= 1.5 if self.what["mode"] == "eager" else 1
            torch.save(found, command.split()[1])
        return {}

    def close(self) -> None:
        pass


def test_the_check_compares_derivatives_with_the_reference(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "Worker", _Inside)
    bench.main(["--device", "cpu", "--quick", "--check", "--resolution", "8"])
    (ref, eager) = capsys.readouterr().out.splitlines()
    assert ref.endswith("images 0, logits 0, path_length 0, r1 0")
    assert eager.endswith("images 0.5, logits 0, path_length 0, r1 0")
