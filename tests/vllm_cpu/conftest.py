"""Environment variables that vLLM reads on import: one process, a small cache, no usage statistics."""

import os

os.environ.update(
    OMP_NUM_THREADS="1",  # two threads would wait for each other when another program runs
    VLLM_ENABLE_V1_MULTIPROCESSING="0",  # tests can access the engine, and it ends with pytest
    VLLM_CPU_KVCACHE_SPACE="1",  # GiB
    VLLM_CPU_OMP_THREADS_BIND="nobind",  # pinned threads get too little time beside other programs
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
)
os.environ.pop("R1NB_SET", None)  # module fixtures run before clean_environment
