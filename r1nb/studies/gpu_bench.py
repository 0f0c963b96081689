"""Measure r1nb on this machine's GPU, in parts of at most eight minutes that can fail, and pack the results.

    make gpu-bench       # or: python -m r1nb.studies.gpu_bench [FOLDER]

FOLDER (default runs/gpu-bench) keeps one JSON file and one log for each part as it ends. The same command
goes on where it was interrupted, and tries again what failed. It writes FOLDER/gpu-bench.zip, without
secrets, paths, and names of host and user; python data/make_gpu_results.py makes tables of it. Without a GPU
everything is rehearsed with the tiny policy.

R1NB_SET="model_name=FOLDER dataset=FOLDER" changes the model and the data whose accuracy is measured; both
are downloaded otherwise.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.machine.hardware import LADDER, Machine, suggest_recipe, this_machine
from r1nb.paths import PACKAGE, read_json, runs_folder, shown, write_json
from r1nb.recipes.loading import check_writable
from r1nb.studies.gpu_parts import SIZES, WAYS

LIMIT = 480  # seconds that one process may take
SECRET = re.compile(r"token|key|secret|passw|credential|auth|cookie", re.IGNORECASE)  # names of variables
LOOKS_SECRET = re.compile(
    r"\b(?:hf_|gh[a-z]_|github_pat_|sk-|glpat-|xox[a-z]-|AKIA)[\w-]{12,}|(?<=://)[^/\s@]+(?=@)"
)
FOLDERS = re.compile(
    r"(?<![\w./~-])(?:file://|~|[A-Za-z]:)?(?:/[^\s/:;,|'\"<>(){}]+)+/|\b[A-Za-z]:(?:\\[^\\:\"<>|\n]+)+\\"
)
ADDRESS = re.compile(r"\b\d+(?:\.\d+){3}(?=:\d)|\bGPU-[0-9a-f-]{36}")


def choose_parts(folder: Path, machine: Machine) -> dict[str, tuple[str, dict]]:
    """{part: (function of gpu_parts, its arguments)} for a machine; without a GPU, a rehearsal."""
    best, why = suggest_recipe(machine)
    if best not in LADDER:
        if machine.gpu:
            raise UserError(f"There is nothing to measure here: {why}.")
        print(f"This is a rehearsal with the tiny policy: {why}.")
        small = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 32}
        parts = list_parts(folder, ["tiny-cpu"], best, small, problems=60, minutes=0.5)
        del parts["speed-unsloth"]
        return parts
    fitting = [name for name, least in LADDER.items() if least <= machine.gpu_memory_gb]
    return list_parts(folder, fitting, best, SIZES, problems=1319, minutes=30)


def list_parts(
    folder: Path, recipes: list[str], best: str, sizes: dict, problems: int, minutes: float
) -> dict:
    """The parts: the environment, memory of `recipes`, and step time and accuracy of the recipe `best`.

    `sizes` are settings for the step time, which all trainers have in common.
    """
    where, parts = {"folder": str(folder)}, {}
    one_batch = {"gradient_accumulation_steps": 1}  # peak memory does not depend on how many there are
    parts["environment"] = ("environment", where)
    for name in recipes:
        arguments = {"recipe": name, "way": "r1nb", "changes": one_batch, "count": 2}
        parts[f"memory-{name}"] = ("steps", where | arguments)
    for way in WAYS:
        arguments = {"recipe": best, "way": way, "changes": sizes, "count": 3}
        parts[f"speed-{way}"] = ("steps", where | arguments)
    trained = {"runs_dir": str(folder / "runs"), "test_problems": problems, "save_total_limit": 2,
               "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5}  # fmt: skip
    accuracy = where | {"recipe": best, "changes": trained, "stop_after": 0.75 * LIMIT}
    parts["accuracy-before"] = ("answer", accuracy | {"moment": "before"})
    parts["accuracy-train"] = ("train", accuracy | {"minutes": minutes})
    parts["accuracy-after"] = ("answer", accuracy | {"moment": "after"})
    return parts


def run_parts(folder: Path, parts: dict, limit: float = LIMIT) -> list[str]:
    """Run each part that has no result yet; returns the names of those that failed.

    A part that answers {"more": ...} has used its time and is started again, to go on.
    """
    failed = []
    for number, (name, (function, arguments)) in enumerate(parts.items(), 1):
        file, said = folder / f"{name}.json", f"{number} of {len(parts)}, {name}: "
        result = read_json(file, {"more": "begins"})
        if "failed" in result:
            result = {"more": "is tried again"}
        while "more" in result:
            print(said + result["more"], flush=True)
            result = run_part(file, function, arguments, limit)
            pack(folder)
        if "failed" in result:
            print(f"{said}failed. {result['failed']}", flush=True)
            failed.append(name)
    return failed


def run_part(file: Path, function: str, arguments: dict, limit: float) -> dict:
    """Run a function of gpu_parts in a process of its own for at most `limit` seconds; its result."""
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "r1nb.studies.gpu_parts", function, json.dumps(arguments), str(file)]
    fixed = function == "steps"  # what it measures cannot be changed
    environment = {key: value for key, value in os.environ.items() if key != "R1NB_SET" or not fixed}
    environment |= {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}  # the log is whole if the process is killed
    why = ""
    with file.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                   env=environment, start_new_session=True)  # fmt: skip
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            why = f"It was stopped after {limit:.0f} seconds."
        finally:
            with contextlib.suppress(ProcessLookupError):  # with all processes that it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdin.close()
    if not file.is_file():
        write_json(file, {"failed": why or f"It ended with exit code {process.returncode} and no result."})
    return read_json(file, {"failed": "Its result cannot be read."})


def pack(folder: Path) -> Path:
    """Write the results and logs of a folder into one zip file, cleaned; returns its path."""
    clean = cleaner()
    bundle = folder / "gpu-bench.zip"
    partial = bundle.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.log")]):
            text = path.read_text(encoding="utf-8", errors="replace")
            if path.suffix == ".json":
                text = json.dumps(_each_text(json.loads(text), clean), indent=1)
            file.writestr(path.name, clean(text) if path.suffix == ".log" else text)
    partial.replace(bundle)
    return bundle


def cleaner():
    """A function that takes secrets, folders, addresses, and the names of host and user out of a text.

    Secrets are the values of environment variables with such names, the token of the Hub, and what looks like
    a token. Of a path only its last name stays.
    """
    from huggingface_hub import get_token

    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) > 5}
    secrets |= {token} if (token := get_token()) else set()
    host, user = socket.gethostname(), os.environ.get("USER", "")
    names = {host: "<host>", host.partition(".")[0]: "<host>", user: "<user>", Path.home().name: "<user>"}
    patterns = [(re.escape(secret), "<secret>") for secret in sorted(secrets, key=len, reverse=True)]
    ours = {Path.home(), Path.cwd(), PACKAGE.parent, Path(sys.prefix), Path(tempfile.gettempdir())}
    ours = sorted((str(path) for path in ours if path != Path("/")), key=len, reverse=True)
    patterns += [(re.escape(path), "/<folder>") for path in ours]  # with spaces, perhaps
    patterns += [(LOOKS_SECRET, "<secret>"), (FOLDERS, "<folder>/"), (ADDRESS, "<address>")]
    patterns += [(rf"\b{re.escape(name)}\b", said) for name, said in names.items() if name]

    def clean(text: str) -> str:
        for pattern, said in patterns:
            text = re.sub(pattern, said, text)
        return text

    return clean


def _each_text(value, change):
    """A value of JSON in which each text has been changed, but no key."""
    if isinstance(value, dict):
        return {key: _each_text(held, change) for key, held in value.items()}
    if isinstance(value, list):
        return [_each_text(held, change) for held in value]
    return change(value) if isinstance(value, str) else value


def main(where: str = "runs/gpu-bench") -> None:
    folder, machine = runs_folder(where), this_machine()
    check_writable(folder)
    began = read_json(folder / "environment.json", {}).get("gpu", machine.gpu)
    if began != machine.gpu:
        raise UserError(f"{shown(folder)} was begun on {began}, and this is {machine}: name another folder.")
    print(f"This machine: {machine}. Each part is kept in {shown(folder)} as it ends.")
    failed = run_parts(folder, choose_parts(folder, machine))
    shutil.rmtree(folder / "models", ignore_errors=True)
    bundle = shown(pack(folder))
    if failed:
        print(f"Failed: {', '.join(failed)}. The logs say more, and the same command tries them again.")
    print(f"Results: {bundle}. Tables of it: python data/make_gpu_results.py {bundle}")


if __name__ == "__main__":
    run_main(main)
