"""What the processes that these tests start find in their environment."""

import os
import sys
from pathlib import Path

os.environ.update(
    OMP_NUM_THREADS="1",  # two threads wait for each other when anything else runs
    DS_ACCELERATOR="cpu",
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # ninja builds for DeepSpeed
)
os.environ.pop("R1NB_SET", None)  # fixtures of a whole module come before clean_environment
