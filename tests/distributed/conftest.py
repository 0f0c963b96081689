"""Environment variables for the processes that these tests start."""

import os
import sys
from pathlib import Path

os.environ.update(
    OMP_NUM_THREADS="1",  # two threads would wait for each other when another program runs
    DS_ACCELERATOR="cpu",
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # DeepSpeed builds with ninja
)
os.environ.pop("R1NB_SET", None)  # module fixtures run before clean_environment
