"""Imports go one way (the layout's rule), and importing a command costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RANK = {
    "cuda_ops": 0,
    "stylegan_tl.networks": 1,
    "stylegan_tl.losses": 1,
    "stylegan_tl.ema": 1,
    "stylegan_tl.augment": 1,
    "stylegan_tl.errors": 0,
    "stylegan_tl.files": 0,
    "stylegan_tl.page": 0,
    "stylegan_tl.study": 1,
    "stylegan_tl.data": 2,
    "stylegan_tl.metrics": 2,
    "stylegan_tl.source": 2,
    "stylegan_tl.pictures": 2,
    "stylegan_tl.tracking": 1,
    "stylegan_tl.tensorboard": 1,
    "stylegan_tl.processes": 0,
    "stylegan_tl.models": 3,
    "stylegan_tl.freeze": 3,
    "stylegan_tl.config": 3,
    "stylegan_tl.callbacks": 4,
}
COMMANDS = 5
FORBIDDEN = {
    "stylegan_tl.models": ("freeze", "source", "metrics", "data"),
    "stylegan_tl.study": ("networks", "models", "data", "metrics", "source", "freeze", "callbacks"),
}
FILES = sorted([*ROOT.glob("cuda_ops/**/*.py"), *ROOT.glob("stylegan_tl/**/*.py")])


def _package(module: str) -> str:
    if module.endswith(".__main__"):
        return module  # a command, like every other file of no package
    parts = module.split(".")
    return "cuda_ops" if parts[0] == "cuda_ops" else ".".join(parts[:2])


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{a.name}" for a in node.names if not a.name.startswith("__")}
            found |= names if node.module == "stylegan_tl" else {node.module}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_go_one_way(file: Path) -> None:
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = _package(module)
    for name in _imports(file):
        if name.split(".")[0] not in ("stylegan_tl", "cuda_ops"):
            continue
        other = _package(name)
        if other in (own, "stylegan_tl"):
            continue
        assert RANK.get(other, COMMANDS) <= RANK.get(own, COMMANDS), f"{module} imports {name}"
        assert other.split(".")[-1] not in FORBIDDEN.get(own, ()), f"{module} imports {name}"


def test_study_imports_no_torch() -> None:
    for file in ROOT.glob("stylegan_tl/study/**/*.py"):
        assert not {n for n in _imports(file) if n.split(".")[0] in ("torch", "pytorch_lightning")}


@pytest.mark.parametrize(
    "command",
    ["train", "evaluate", "generate", "prepare", "distance", "convert", "latent.__main__"],
)
def test_importing_a_command_imports_no_torch(command: str) -> None:
    code = (
        f"import sys, stylegan_tl.{command}; "
        "print(sorted({'torch', 'pytorch_lightning', 'wandb', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
