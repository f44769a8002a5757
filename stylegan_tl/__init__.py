"""Which datasets work well together when a GAN is transferred, and what to freeze on the way."""

import os

__version__ = "0.1.0"

# Read when torch is loaded: how long its threads spin for one another before they sleep. With the
# default of 300,000 turns two threads beside another busy process took 14 times as long as with
# these, which cost about 10 % where nothing else runs (experiments/benchmarks/README.md).
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "4000"
