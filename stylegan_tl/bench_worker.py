"""One cell of `stylegan_tl.bench`, in a process of its own: a model and its training iteration.

`stylegan_tl.bench` starts it with the cell as JSON. It answers with one JSON line when it is ready
and one per line of its standard input: `time N` (seconds of N iterations), `profile FILE` (where
the time of one goes), `derivatives FILE` (what the check compares). A cell that fails says why.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import torch
from torch import Tensor

from stylegan_tl import losses
from stylegan_tl.augment.ada import AdaAugment
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.models.stylegan2 import StyleGAN2

__all__ = ["alone", "build", "compile_steps", "derivatives", "main", "record_steps", "timed"]

_WARM_UP = 3


def build(cell: dict) -> AdversarialModel:
    """Return the model of a cell, ready for `training_step` without a Trainer."""
    options = dict(network=cell["network"], training=cell["training"])
    options |= dict(precision="fp32" if cell["precision"] == "tf32" else cell["precision"])
    options |= dict(pl_weight=cell["pl_weight"])
    family, chosen = StyleGAN2, AdaAugment
    if cell["mode"] == "baseline":
        sys.path.insert(0, cell["baseline"])
        from stylegan_tl.bench_baseline import Augment as chosen
        from stylegan_tl.bench_baseline import Baseline as family
    model = family(**options)
    if cell["ada"] is not None:
        model.augment = chosen(preset="bgc", p=cell["ada"], fixed=True)
    adam = {"baseline": dict(fused=None), "graph": dict(capturable=True)}.get(cell["mode"], {})
    return alone(model, cell["device"], **adam)


def alone(model: AdversarialModel, device: str, **adam: object) -> AdversarialModel:
    """Let `training_step` run without a Trainer: raw optimizers, the other network held by hand.

    `adam` are options of Adam that differ from the model's own.
    """
    model = model.to(device).train()
    raw = model.configure_optimizers()
    for optimizer in raw:
        for group in optimizer.param_groups:
            group.update(adam)

    @contextmanager
    def toggled(optimizer: torch.optim.Optimizer) -> Iterator[None]:
        other = model.D if optimizer is raw[0] else model.G
        held = [p for p in other.parameters() if p.requires_grad]
        other.requires_grad_(False)
        yield
        for parameter in held:
            parameter.requires_grad_(True)

    model.optimizers = lambda: raw
    model.manual_backward = lambda loss: loss.backward()
    model.toggled_optimizer = toggled
    return model


def batch(cell: dict) -> dict[str, Tensor]:
    """Return reals as the data module would, already on the device."""
    size, count = cell["network"]["resolution"], cell["training"]["batch_size"]
    real = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    device = cell["device"]
    return {"image": real.to(device), "label": torch.zeros(count, 0, device=device)}


def compile_steps(model: StyleGAN2) -> None:
    """Compile G and D for the main steps; what is differentiated twice stays eager.

    (torch.compile has no double backward.) Noise comes from the device's own stream, because a
    generator as an argument breaks the graph.
    """
    synthesis, D = model.G.synthesis, model.D
    compiled_G = torch.compile(lambda ws: type(synthesis).forward(synthesis, ws), dynamic=False)
    compiled_D = torch.compile(
        lambda img, chunks: type(D).forward(D, img, None, chunks=chunks), dynamic=False
    )

    def fast(step: Callable[..., dict]) -> Callable[..., dict]:
        def run(*arguments: object) -> dict:
            synthesis.forward = lambda ws, *, generator=None: compiled_G(ws)
            D.forward = lambda img, c=None, *, chunks=1: compiled_D(img, chunks)
            try:
                return step(*arguments)
            finally:
                del synthesis.forward, D.forward

        return run

    model._step_G, model._step_D = fast(model._step_G), fast(model._step_D)


def record_steps(model: StyleGAN2, data: dict[str, Tensor]) -> None:
    """Record each of the four steps, with its optimizer, as one CUDA graph and replay it.

    The generators live as long as the graphs, which draw on from them; everything else that a step
    reads stays where it is. EMA and the clock stay eager.
    """
    device = model.device
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    streams: dict[str, torch.Generator] = {}

    def generator(stream: str) -> torch.Generator:
        if stream not in streams:
            streams[stream] = torch.Generator(device).manual_seed(len(streams))
        return streams[stream]

    model.generator = generator
    opt_G, opt_D = model.optimizers()
    real, label = (data[k].clone() for k in ("image", "label"))
    steps = {"_step_G": (opt_G, label), "_step_D": (opt_D, real, label)}
    if model.G_interval:
        steps["regularise_G"] = (opt_G, label)
    if model.training_plan.r1_gamma:
        steps["_step_R1"] = (opt_D, real, label)
    for name, arguments in steps.items():
        with model.toggled_optimizer(arguments[0]):
            replay = _recorded(getattr(model, name), arguments, streams)
        setattr(model, name, replay)


def _recorded(
    step: Callable[..., dict], arguments: tuple, streams: dict[str, torch.Generator]
) -> Callable[..., dict]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step(*arguments)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    for generator in streams.values():
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        found = step(*arguments)

    def replay(_: object, *inputs: Tensor) -> dict:
        for held, given in zip(arguments[1:], inputs, strict=True):
            held.copy_(given)
        graph.replay()
        return found

    return replay


def timed(model: AdversarialModel, data: dict[str, Tensor], iterations: int) -> dict[str, float]:
    """Return wall and CPU seconds of `iterations` whole iterations, and the peak memory in GB."""
    wait = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(iterations):
        stats = model.training_step(data, index)
    wait()
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    if not all(bool(torch.isfinite(v)) for v in stats.values()):
        raise FloatingPointError(f"the losses are not finite: {stats}")
    return found | {"memory_gb": _memory_gb(model.device)}


def derivatives(model: StyleGAN2, device: str) -> dict[str, list[Tensor]]:
    """Return images, logits and both regularisers' gradients, from inputs drawn on the CPU."""
    model.requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(8, model.G.z_dim, generator=draw).to(device)
    size = model.G.resolution
    real = (torch.rand(8, 3, size, size, generator=draw) * 2 - 1).to(device).requires_grad_()
    noise = torch.randn(real.shape, generator=draw).to(device)
    ws = model.G.mapping(z)
    images, logits = model.G.synthesis(ws, noise="const"), model.D(real)
    totals = {
        "path_length": (model.G, losses.path_lengths(images, ws, noise).square().sum()),
        "r1": (model.D, losses.r1_penalty(real, logits).sum()),
    }
    found = {"images": [images], "logits": [logits]}
    for name, (network, total) in totals.items():
        grads = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
        found[name] = [g for g in grads if g is not None]
    return {k: [t.detach().cpu() for t in v] for k, v in found.items()}


def profiled(model: AdversarialModel, data: dict[str, Tensor], rows: int = 25) -> str:
    """Return a table of where the time of one iteration with every lazy step goes."""
    from torch.profiler import ProfilerActivity, profile

    cuda = model.device.type == "cuda"
    model.nimg = 0
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as found:
        timed(model, data, 1)
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    return found.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=70)


def main() -> None:
    """Serve one cell until the standard input ends."""
    cell, answers = json.loads(sys.argv[1]), _own_stdout()
    try:
        _set_up(cell)
        model, data = build(cell), batch(cell)
        _answer(answers, _ready(cell))
        prepared = False
        for line in sys.stdin:
            command, argument = line.split(maxsplit=1)
            if command != "derivatives" and not prepared:
                _prepare(cell, model, data)
                prepared = True
            _answer(answers, _serve(command, argument.strip(), cell, model, data))
    except Exception as error:  # whatever it is, the other cells go on
        import traceback

        traceback.print_exc()
        reason = (str(error).strip().splitlines() or [""])[0]
        _answer(answers, {"error": f"{type(error).__name__}: {reason}"[:300]})
        sys.exit(1)


def _serve(
    command: str, argument: str, cell: dict, model: AdversarialModel, data: dict[str, Tensor]
) -> dict:
    if command == "time":
        found = timed(model, data, int(argument))
        if cell["mode"] == "graph":  # their memory counts as free between replays
            found["memory_gb"] = torch.cuda.memory_reserved() / 1e9
        return found
    if command == "profile":
        with open(argument, "w", encoding="utf-8") as file:
            file.write(profiled(model, data))
        return {}
    torch.save(derivatives(model, cell["device"]), argument)
    return {}


def _set_up(cell: dict) -> None:
    torch.manual_seed(0)
    if cell["threads"]:
        torch.set_num_threads(cell["threads"])
    torch.backends.cudnn.benchmark = True
    tf32 = cell["precision"] == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def _prepare(cell: dict, model: AdversarialModel, data: dict[str, Tensor]) -> None:
    """Warm up: builds, caches, autotuning, compilation, graphs; then forget the peak of memory."""
    if cell["mode"] == "compile":
        compile_steps(model)
    if cell["mode"] == "graph":
        record_steps(model, data)
    timed(model, data, cell["warm_up"])
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _ready(cell: dict) -> dict:
    """Say what this runs on, and which kernels serve it."""
    from cuda_ops.compile import cpu_kernels, cuda_kernels

    cuda = cell["device"] == "cuda"
    kernels = None if cell["mode"] == "baseline" else (cuda_kernels if cuda else cpu_kernels)()
    return {
        "kernels": "none" if kernels is None else cell["device"],
        "device": torch.cuda.get_device_name() if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _memory_gb(device: torch.device) -> float:
    """Peak memory: what the GPU's allocator handed out, or on a CPU the size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _own_stdout() -> TextIO:
    """Keep the standard output for answers; what libraries print goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, what: dict) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
