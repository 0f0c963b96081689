"""Measure r1nb on this machine's GPU, in parts of at most eight minutes that can fail, and pack the results.

    make gpu-bench       # or: python -m r1nb.studies.gpu_bench [FOLDER]

FOLDER (default runs/gpu-bench) keeps one JSON file and one log for each part as it ends. The same command
goes on where it was interrupted, and tries again what failed. It writes FOLDER/gpu-bench.zip, without
secrets, paths, and names of host and user; python data/make_gpu_results.py makes tables of it. Without a GPU
everything is rehearsed with the tiny policy.

R1NB_SET="model_name=FOLDER dataset=FOLDER" changes the model and the data whose accuracy is measured; both
are downloaded otherwise. It may name the splits and columns of the data, too.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.machine.hardware import GB, LADDER, Machine, environment, suggest_recipe, this_machine
from r1nb.paths import read_json, runs_folder, shown, write_json
from r1nb.recipes.loading import check_writable, environment_overrides, load_recipe
from r1nb.runs.disk import is_full
from r1nb.studies.gpu_bundle import pack
from r1nb.studies.gpu_parts import SIZES, WAYS, weights_folder
from r1nb.studies.random_model import is_complete

LIMIT = 480  # seconds that one process may take
STOP_AFTER = 0.75 * LIMIT  # seconds after which it begins nothing more
# What all cards train with when accuracy is measured, so that the first step fits into a process on each.
TRAINED = {"max_completion_length": 448, "gradient_accumulation_steps": 2, "test_problems": 1319}
SETTABLE = ("model_name", "dataset", "train_split", "test_splits", "question_column", "answer_column")


def begin(folder: Path, machine: Machine, given: dict) -> None:
    """Write environment.json: the card, its driver, versions, and `given`, what R1NB_SET sets.

    Raises UserError if the folder holds parts of another card, other versions or other settings.
    """
    facts = {"gpu": machine.gpu, "set": given, **environment()}
    if kept := read_json(folder / "environment.json", {}):
        old, new = (
            {"GPU": f.get("gpu") or "none"} | f.get("set", {}) | f.get("versions", {}) for f in (kept, facts)
        )
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        if names:
            differ = "; ".join(
                f"{name}: {old.get(name, 'none')}, now {new.get(name, 'none')}" for name in names
            )
            raise UserError(
                f"{shown(folder)} was begun with another set-up ({differ}): delete it, or name another "
                "folder (python -m r1nb.studies.gpu_bench FOLDER)."
            )
        return
    import torch

    facts |= {"began": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "cuda": torch.version.cuda}
    facts["disk_free_gb"] = shutil.disk_usage(folder).free / GB
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        asked = ("name", "driver_version", "memory.total", "memory.used", "power.limit", "compute_cap")
        command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        facts["nvidia_smi"] = [dict(zip(asked, line.split(", "), strict=False)) for line in lines]
    write_json(folder / "environment.json", facts)


def settings() -> dict:
    """What R1NB_SET sets; raises UserError if that is anything but the model and its data.

    It is unset then: the parts that need it get it as arguments, and the others must not.
    """
    given = environment_overrides()
    if wrong := [key for key in given if key.rpartition(".")[2] not in SETTABLE]:
        why = f"R1NB_SET sets {wrong[0]}, and the bench takes only {', '.join(SETTABLE)}"
        raise UserError(f"{why}: leave the others out.")
    os.environ.pop("R1NB_SET", None)
    return given


def choose_parts(folder: Path, machine: Machine, given: dict) -> dict[str, tuple[str, dict]]:
    """{part: (function of gpu_parts, its arguments)} for a machine; without a GPU, a rehearsal.

    `given` are settings of the model and the data whose accuracy is measured.
    """
    best, why = suggest_recipe(machine)
    if best not in LADDER:
        if machine.gpu:
            raise UserError(f"There is nothing to measure here: {why}.")
        print(f"This is a rehearsal with the tiny policy: {why}.")
        small = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 32}
        parts = list_parts(folder, ["tiny-cpu"], best, small, {"test_problems": 60} | given, minutes=0.5)
        del parts["speed-unsloth"]
        return parts
    fitting = [name for name, least in LADDER.items() if least <= machine.gpu_memory_gb]
    if find_spec("bitsandbytes") is None:
        print("bitsandbytes is missing, so recipes with 4-bit weights are left out; `make gpu` installs it.")
        fitting = [name for name in fitting if not load_recipe(name).model.load_in_4bit]
        best = fitting[-1]
    return list_parts(folder, fitting, best, SIZES, TRAINED | given, minutes=30)


def list_parts(
    folder: Path, recipes: list[str], best: str, sizes: dict, trained: dict, minutes: float
) -> dict:
    """The parts: what can be imported, memory of `recipes`, step time and accuracy of the recipe `best`.

    `sizes` are settings for the step time, which all trainers have in common; `trained` are those for the
    accuracy.
    """
    parts = {"imports": ("imports", {})}
    measured = {"folder": str(folder), "stop_after": STOP_AFTER}
    one_batch = {"gradient_accumulation_steps": 1}  # with vLLM, peak memory does not depend on their number
    for name in recipes:  # one step: with the longest completions more would not fit into the time
        arguments = {"recipe": name, "way": "r1nb", "changes": one_batch, "count": 1}
        parts[f"memory-{name}"] = ("steps", measured | arguments)
    for way in WAYS:
        arguments = {"recipe": best, "way": way, "changes": sizes, "count": 3}
        parts[f"speed-{way}"] = ("steps", measured | arguments)
    constant = {"runs_dir": str(folder / "runs"), "max_steps": 10_000, "save_total_limit": 2,
                "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 5}  # fmt: skip
    changes = {"recipe": best, "changes": constant | trained}
    parts["download"] = ("download", changes)
    parts["accuracy-before"] = ("answer", measured | changes | {"moment": "before"})
    parts["accuracy-train"] = ("train", measured | changes | {"minutes": minutes})
    parts["accuracy-after"] = ("answer", measured | changes | {"moment": "after"})
    return parts


def run_parts(folder: Path, parts: dict, limit: float = LIMIT) -> list[str]:
    """Run each part that has no result yet; returns the names of those that failed.

    A part that answers {"more": ...} has used its time and is started again, to go on; "with" in its answer
    are arguments that replace others. Random weights are written before the parts that load them.
    """
    failed = []
    for number, (name, (function, arguments)) in enumerate(parts.items(), 1):
        file, said = folder / f"{name}.json", f"{number} of {len(parts)}, {name}: "
        result = read_json(file, {"more": "begins"})
        if "failed" in result:
            result = {"more": "is tried again"}
        while "more" in result:
            arguments = arguments | result.get("with", {})
            if function == "steps":
                write_weights(folder, arguments["recipe"], limit)
            else:
                shutil.rmtree(folder / "models", ignore_errors=True)
            print(said + result["more"], flush=True)
            result = run_part(file, function, arguments, limit)
            pack(folder, parts)
        if "failed" in result:
            print(f"{said}failed. {result['failed']}", flush=True)
            failed.append(name)
    return failed


def write_weights(folder: Path, recipe: str, limit: float) -> None:
    """Write random weights of the shape of a recipe's model, in a process, unless they are there."""
    if not is_complete(weights_folder(str(folder), recipe)):
        print(f"Random weights for {recipe} are written.", flush=True)
        arguments = {"folder": str(folder), "recipe": recipe}
        run_part(folder / f"weights-{recipe}.json", "weights", arguments, limit)


def run_part(file: Path, function: str, arguments: dict, limit: float) -> dict:
    """Run a function of gpu_parts in a process of its own for at most `limit` seconds; its result."""
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "r1nb.studies.gpu_parts", function, json.dumps(arguments), str(file)]
    # With this the log is whole if the process is killed.
    variables = os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    why = ""
    with file.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                   env=variables, start_new_session=True)  # fmt: skip
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


def main(where: str = "runs/gpu-bench") -> None:
    folder, machine, given = runs_folder(where), this_machine(), settings()
    check_writable(folder)
    parts = choose_parts(folder, machine, given)
    begin(folder, machine, given)
    print(f"This machine: {machine}. Each part is kept in {shown(folder)} as it ends.")
    try:
        failed = run_parts(folder, parts)
    except OSError as error:
        if not is_full(error):
            raise
        raise UserError(f"The disk of {shown(folder)} is full: free some of it, then start again.") from None
    finally:
        shutil.rmtree(folder / "models", ignore_errors=True)
    bundle = shown(pack(folder, parts))
    if failed:
        print(f"Failed: {', '.join(failed)}. The logs say more, and the same command tries them again.")
    print(f"Results: {bundle}. Tables of it: python data/make_gpu_results.py {bundle}")


if __name__ == "__main__":
    run_main(main)
