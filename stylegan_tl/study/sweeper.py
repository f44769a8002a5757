"""The Hydra sweeper `study`: the trials of study=… for whatever launcher was chosen.

    python -m stylegan_tl.train -m study=rooms                                one after another
    python -m stylegan_tl.train -m study=rooms hydra/launcher=local           our own, one machine
    python -m stylegan_tl.train -m study=rooms hydra/launcher=submitit_slurm \\
        hydra.launcher.timeout_min=240 hydra.launcher.gpus_per_node=1 \\
        hydra.launcher.array_parallelism=32
    python -m stylegan_tl.train -m study=rooms hydra/launcher=ray \\
        +hydra.launcher.ray.init.address=auto

SLURM needs `pip install 'stylegan_tl[slurm]'`, Ray `pip install 'stylegan_tl[ray]'`, and both a
folder `runs=` and a `cache=` that all machines share. With them, and with Hydra's own launcher, the
trials go in rounds, so that no job holds a machine while it waits for another one's model: first
one trial for each source model that is not there yet, and all that need none; then the rest; then
the further steps of chains. Complete trials are not launched, failed ones only with
`hydra.sweeper.retry_failed=true`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from stylegan_tl.study.job import Job
from stylegan_tl.study.opened import Opened, open_study
from stylegan_tl.study.pool import complete_sources
from stylegan_tl.study.progress import summary
from stylegan_tl.study.queue import Status, note, status

__all__ = ["StudySweeper", "rounds"]


class StudySweeper(Sweeper):
    """Turns a study into jobs; `count` tells how many images of a dataset there are to train on.

    `check` raises ValueError for a configuration that cannot run.
    """

    def __init__(
        self,
        count: Callable[..., int],
        check: Callable[[dict[str, Any]], None],
        retry_failed: bool = False,
    ) -> None:
        self.count, self.check, self.retry_failed = count, check, retry_failed
        self.config: Any = None
        self.hydra_context: Any = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher."""
        from hydra.core.plugins import Plugins

        own = [o for o in config.hydra.overrides.hydra if not o.startswith("hydra.sweeper.")]
        with flag_override(config, "readonly", False):
            config.hydra.overrides.hydra = own  # trials compose without a study, so without these
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if getattr(self.launcher, "keeps_order", False):
            self.launcher.retry_failed |= self.retry_failed

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run the study; exits with 1 if a trial is not complete in the end, after listing them."""
        jobs = [trial.job for trial in self._open(arguments).trials]
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        if getattr(self.launcher, "keeps_order", False):
            results = list(self.launcher.launch([list(job.overrides) for job in jobs], 0))
        else:
            results = self._in_rounds(jobs)
        failed = any(result.status == JobStatus.FAILED for result in results)
        dry = any(job.values.get("dry_run", "").lower() == "true" for job in jobs)
        if failed or not (dry or all(status(job).state == "complete" for job in jobs)):
            sys.exit(1)
        return results

    def _open(self, arguments: list[str]) -> Opened:
        from stylegan_tl.errors import user_errors

        loader = self.hydra_context.config_loader

        def compose(overrides: Sequence[str]) -> dict[str, Any]:
            config = loader.load_sweep_config(self.config, list(overrides))
            masked = OmegaConf.masked_copy(config, [k for k in config if k != "hydra"])
            return OmegaConf.to_container(masked, resolve=True)

        def options(group: str) -> list[str]:
            return loader.get_group_options(group, ObjectType.CONFIG)

        study = OmegaConf.to_container(self.config.study, resolve=True)
        with user_errors():
            return open_study(study, arguments, compose, options, self.count, self.check)

    def _in_rounds(self, jobs: Sequence[Job]) -> list[JobReturn]:
        found = {job.folder: status(job) for job in jobs}
        over = ("complete",) if self.retry_failed else ("complete", "failed")
        todo = [job for job in jobs if found[job.folder].state not in over]
        results: list[JobReturn] = []
        for batch in rounds(todo, complete_sources(jobs)):
            ready = [job for job in batch if self._can_start(job, found)]
            if ready:
                self._launch(ready, len(results), results)
            found |= {job.folder: status(job) for job in ready}
        print(summary(jobs, found), flush=True)
        return results

    def _can_start(self, job: Job, found: dict[Path, Status]) -> bool:
        before = found.get(job.after) if job.after is not None else None
        if before is None or before.state == "complete":
            return True
        reason = f"starts from {job.after}, which is {before.state}"
        found[job.folder] = Status("waiting", reason)
        return False

    def _launch(self, jobs: Sequence[Job], number: int, results: list[JobReturn]) -> None:
        """Launch one round; how each failed is noted in its folder."""
        commands = [[*job.overrides, *_place(job)] for job in jobs]
        try:
            returned = self.launcher.launch(commands, number)
        except Exception as error:  # a lost worker must not keep the further rounds from running
            print(f"the launcher lost trials: {type(error).__name__}: {error}", flush=True)
            return
        results += returned
        for job, result in zip(jobs, returned, strict=True):
            if result.status == JobStatus.FAILED:
                error = result._return_value
                note(job, "failed", f"{type(error).__name__}: {error}")


def rounds(jobs: Sequence[Job], sources: set[str]) -> list[list[Job]]:
    """Jobs in the order of what they wait for; none waits for another of its own round.

    `sources` are the source models that are there.
    """
    first, rest = [], []
    there = set(sources)
    for job in jobs:
        alone = job.source is None and job.after is None
        (first if alone or (job.source and job.source not in there) else rest).append(job)
        if job.source:
            there.add(job.source)
    batches = [first, [job for job in rest if job.after is None]]
    left = [job for job in rest if job.after is not None]
    while left:
        placed = {job.folder for job in left}
        batches.append([job for job in left if job.after not in placed])
        left = [job for job in left if job.after in placed]
    return [batch for batch in batches if batch]


def _place(job: Job) -> list[str]:
    """Where the trial runs: Hydra's own answer, which a worker elsewhere cannot compute."""
    return [
        f"hydra.sweep.dir='{job.folder.parents[1]}'",
        f"hydra.sweep.subdir='{'/'.join(job.folder.parts[-2:])}'",
    ]
