"""How every file of a tool was made: command, seeds, models and digests, as JSON beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylegan_tl.files import file_sha256, write_atomic
from stylegan_tl.source.portable import SourceModel
from stylegan_tl.study.provenance import commit, versions

__all__ = ["Made", "write_record"]


@dataclass
class Made:
    """What a tool wrote, from which models by role, and what it found on the way."""

    files: list[Path]
    models: dict[str, SourceModel]
    facts: dict[str, Any] = field(default_factory=dict)


def write_record(made: Made, config: dict[str, Any], command: str) -> Path:
    """Write `<tool>.json` beside the files: all that it takes to make them again."""
    folder = made.files[0].parent
    record = {
        "tool": config["tool"],
        "command": command,
        "config": config,
        "models": {role: _model(model) for role, model in made.models.items()},
        "files": [{"file": path.name, "sha256": file_sha256(path)} for path in made.files],
        **made.facts,
        "versions": versions(),
        "commit": commit(),
    }
    path = folder / f"{config['tool']}.json"
    write_atomic(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def _model(model: SourceModel) -> dict[str, Any]:
    return {
        "file": str(model.path),
        "sha256": model.sha256,
        "model": model.model,
        "dataset": model.dataset,
        "kimg": model.nimg / 1000,
    }
