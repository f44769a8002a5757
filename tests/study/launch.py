"""A launcher in a process of its own, so that a test can kill it: `launch.py jobs.json`."""

import json
import sys
from pathlib import Path

from stylegan_tl.study.job import job_of
from stylegan_tl.study.pool import Pool
from stylegan_tl.study.progress import Progress, summary
from stylegan_tl.study.slots import make_slots

if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    jobs = [job_of(overrides, given["runs"], "s") for overrides in given["overrides"]]
    slots = make_slots([], processes=given["slots"])
    pool = Pool(jobs, slots, Progress(jobs), program=given["program"], **given["options"])
    outcomes = pool.run()
    print(summary(jobs, outcomes))
    sys.exit(128 + pool.stopped if pool.stopped else 0)
