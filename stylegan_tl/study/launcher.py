"""The Hydra launcher `local`: one machine, one fresh process per trial, as many as there are slots.

    python -m stylegan_tl.study run study=rooms                        all GPUs, one trial on each
    python -m stylegan_tl.study run study=rooms per_gpu=3              several small trials on a GPU
    python -m stylegan_tl.study run study=rooms gpus=[] processes=4    four trials on the CPU
    python -m stylegan_tl.train -m freeze=none,freeze_d seed=0,1 hydra/launcher=local

The same command again skips what is complete and resumes what was interrupted; with
`retry_failed=true` it also runs again what failed. Several launchers, on several machines with a
shared disk too, may work on one study: each trial is run by one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from stylegan_tl.errors import user_errors
from stylegan_tl.study.job import Job, job_of
from stylegan_tl.study.pool import PROGRAM, Pool
from stylegan_tl.study.progress import Progress, summary
from stylegan_tl.study.queue import Status
from stylegan_tl.study.slots import check_devices, make_slots

__all__ = ["LocalLauncher", "TrialNotComplete"]


class TrialNotComplete(RuntimeError):
    """A trial failed, or did not run; the message is the reason."""


class LocalLauncher(Launcher):
    """Runs jobs in a `Pool`; the options are explained in conf/hydra/launcher/local.yaml."""

    keeps_order = True  # knows itself which trials wait for a source model or for another trial

    def __init__(
        self,
        gpus: Sequence[int] | None = None,
        per_gpu: int = 1,
        gpu_memory: float | None = None,
        processes: int | None = None,
        threads: int | None = None,
        attempts: int = 3,
        retry_failed: bool = False,
        program: Sequence[str] | None = None,
    ) -> None:
        self.slots = make_slots(gpus, per_gpu, processes, threads)
        self.gpu_memory, self.attempts, self.retry_failed = gpu_memory, attempts, retry_failed
        self.program = list(program or PROGRAM)
        self.config: DictConfig | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the configuration; trials compose their own, in their own processes."""
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; exits with 128 + n when signal n stopped it."""
        setup_globals()
        jobs = [self._job(overrides) for overrides in job_overrides]
        with user_errors():
            for job in jobs:
                default = str(self.config.trainer.devices)
                check_devices(self.slots, job.values.get("trainer.devices", default))
        pool = Pool(
            jobs,
            self.slots,
            Progress(jobs),
            program=[*self.program, *_passed_on(self.config)],
            retry_failed=self.retry_failed,
            attempts=self.attempts,
            memory=self.gpu_memory,
        )
        print(f"{len(pool.jobs)} trials in {len(self.slots)} slots", flush=True)
        outcomes = pool.run()
        print(summary(pool.jobs, outcomes), flush=True)
        if pool.stopped is not None:
            sys.exit(128 + pool.stopped)
        return [_returned(job, outcomes[job.folder]) for job in jobs]

    def _job(self, overrides: Sequence[str]) -> Job:
        config: Any = self.config
        return job_of(overrides, config.runs, config.study.name, config.seed)


def _passed_on(config: Any) -> list[str]:
    """What the command line said of Hydra itself that a trial must know: folders of options."""
    sources = OmegaConf.to_container(config.hydra.runtime.config_sources)
    own = [s["path"] for s in sources if s["provider"] == "command-line"]
    flags = [word for path in own for word in ("--config-dir", path)]
    return flags + [o for o in config.hydra.overrides.hydra if o.startswith("hydra.searchpath")]


def _returned(job: Job, found: Status) -> JobReturn:
    """A job's end in Hydra's terms: reading the value of one that is not complete raises."""
    result = JobReturn(overrides=list(job.overrides), working_dir=str(job.folder))
    if found.state == "complete":
        result.status, result.return_value = JobStatus.COMPLETED, None
    else:
        result.status = JobStatus.FAILED
        result.return_value = TrialNotComplete(f"{found.state}: {found.reason}")
    return result
