"""Kill real runs at random moments, resume them, and compare them with an undisturbed run: `make torture`.

    python tests/torture.py KILLS [LOG.csv]

Each run is a short `make train` of the tiny policy with the five rewards, which teach it something in a few
steps. A kill -9 ends all its processes, or only the process that trains, or only the fresh process that
proves the saved adapter. Then the same command is run again. The result must equal that of a run which was
not killed: one folder, each step once in the history, and the same adapter to the last bit.
"""

import contextlib
import csv
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from r1nb.runs.run import Run
from r1nb.text.statistics import wilson
from r1nb.views.progress import progress

STEPS = 16
SETTINGS = (
    f"max_steps={STEPS} per_device_train_batch_size=32 save_steps=3 eval_every=4 validation_problems=12 "
    "test_problems=40 samples=2 sampled_problems=8 torch_threads=1"
)
VICTIMS = ("all", "trainer", "proof")
SEED = 5


def start(folder: Path) -> psutil.Popen:
    environment = os.environ | {"R1NB_SET": f"{SETTINGS} runs_dir={folder}"}
    command = [sys.executable, "-m", "r1nb.train", "tiny-five-rewards"]
    return psutil.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill(process: psutil.Popen, victim: str) -> None:
    children = process.children(recursive=True)
    for target in {"all": [process, *children], "trainer": [process], "proof": children}[victim]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has already ended
            target.kill()
    process.wait()


def finish(folder: Path) -> Run:
    process = start(folder)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    (run,) = Run.all(str(folder))  # a resumed run stays in its folder
    assert run.finished
    return run


def adapter(run: Run) -> str:
    return hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()[:16]


def wait_for(process: psutil.Popen, folder: str, step: int, proof: bool) -> None:
    """Wait until a run has trained `step` steps (0: until there is a run). With `proof`, wait also until a
    fresh process loads the saved adapter. Return early if the run ends.
    """
    while process.poll() is None:
        trained = (found := Run.all(folder)) and progress(found[0])[0] >= step
        if trained and (process.children() or not proof):
            return
        time.sleep(0.05)


def disturb(number: int, whole: Run) -> dict:
    """Kill one run, resume it, and compare it with the undisturbed one."""
    chance = random.Random(f"{SEED}-{number}")
    victim, step, later = VICTIMS[number % len(VICTIMS)], chance.randint(0, STEPS), chance.uniform(0, 3)
    step = STEPS if victim == "proof" else step
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder))
        wait_for(process, folder, step, victim == "proof")
        time.sleep(later)
        if running := process.poll() is None:
            kill(process, victim)
        found = Run.all(folder)
        running &= not (found and found[0].finished)
        killed_after = progress(found[0])[0] if found else 0
        run = finish(Path(folder)) if running else found[0]
        resumed = [line["step"] for line in run.history() if "resumed" in line]
        steps = [line["step"] for line in run.history() if "loss" in line]
        summary, other = (r.evaluation()["test"]["after"] for r in (run, whole))
        low, high = wilson(other["lenient"] * other["n"], other["n"])
        return {
            "kill": number,
            "victim": victim,
            "from step": step,
            "seconds later": round(later, 2),
            "killed after step": killed_after if running else "ended",
            "went on from step": resumed[0] if resumed else "",
            "steps": len(steps),
            "each step once": steps == list(range(1, STEPS + 1)),
            "adapter identical": adapter(run) == adapter(whole),
            "lenient": round(summary["lenient"], 4),
            "within its interval": low <= summary["lenient"] <= high,
        }


def main(kills: str, log: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, rows = finish(Path(folder)), []
        for number in range(int(kills)):
            rows.append(disturb(number, whole))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if log:
        with open(log, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    sound = [all(value is not False for value in row.values()) for row in rows]
    print(f"{sum(sound)} passed, {len(sound) - sum(sound)} failed")
    sys.exit(not all(sound))


if __name__ == "__main__":
    main(*sys.argv[1:])
