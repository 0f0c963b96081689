"""What vLLM reads when it is imported: one process, a small cache, nothing sent anywhere."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # two threads wait for each other when anything else runs
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # so that a test can reach into the engine, and it ends with pytest
    VLLM_CPU_KVCACHE_SPACE="1",  # GiB
    VLLM_CPU_OMP_THREADS_BIND="nobind",  # pinned, its threads starve beside any other program
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
)
os.environ.pop("R1NB_SET", None)  # fixtures of a whole module come before clean_environment
