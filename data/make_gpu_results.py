"""Turn bundles of `make gpu-bench` into data/results/gpu-*.csv.

    python data/make_gpu_results.py BUNDLE.zip ...

A bundle is named after its card and when it began. Other bundles in the tables stay there; the same one,
with more parts, is replaced. A bundle from a machine without a GPU is a rehearsal, and is refused.
"""

import csv
import json
import re
import zipfile
from pathlib import Path

from r1nb.errors import UserError, run_main
from r1nb.paths import user_path

RESULTS = Path(__file__).parent / "results"
NOT_YET = "No GPU has run it yet."
TABLES = {
    "cards": (
        "gpu", "driver", "cuda", "python", "torch", "transformers", "trl", "unsloth", "vllm", "r1nb",
        "commit",
    ),
    "steps": (
        "recipe", "way", "model", "engine", "vllm", "load_in_4bit", "completions", "max_completion_length",
        "plan_gb", "peak_gb", "reserved_gb", "plan_low_seconds", "plan_high_seconds", "step_seconds",
        "tokens_per_second", "failed",
    ),
    "accuracy": (
        "recipe", "model", "engine", "dataset", "split", "n", "strict", "strict_low", "strict_high",
        "lenient", "format", "cut", "tokens", "p", "minutes", "steps", "failed",
    ),
}  # fmt: skip
IN_TABLE = {"environment": "cards", "memory": "steps", "speed": "steps", "accuracy": "accuracy"}


def read_bundle(path: Path) -> dict[str, dict]:
    """{part: its result} of a bundle; raises UserError if it is none, or comes from a rehearsal."""
    why = f"{path} holds no results of make gpu-bench"
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith(".json")]
            parts = {name.removesuffix(".json"): json.loads(file.read(name)) for name in names}
        if parts["environment"]["gpu"]:
            return parts
        why = f"{path} is a rehearsal without a GPU"
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        pass
    raise UserError(f"{why}: give the gpu-bench.zip of a machine with a GPU.")


def rows_of(parts: dict[str, dict]) -> dict[str, list[dict]]:
    """{table: its rows} of a bundle's parts."""
    rows = {table: [] for table in TABLES}
    for name, part in parts.items():
        if table := IN_TABLE.get(name.partition("-")[0]):
            low, high = part.get("plan_step_seconds") or (None, None)
            row = {"part": name, "plan_low_seconds": low, "plan_high_seconds": high, **part}
            row["strict_low"], row["strict_high"] = part.get("strict_interval") or (None, None)
            row |= part.get("versions", {})
            row["driver"] = next(iter(part.get("nvidia_smi", [])), {}).get("driver_version")
            rows[table].append(row)
    return rows


def add(table: str, bundle: str, rows: list[dict]) -> None:
    """Write the rows of a bundle into a table, in place of those that it has there already."""
    path, kept = RESULTS / f"gpu-{table}.csv", []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["bundle"] != bundle]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("bundle", "part", *TABLES[table]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*kept, *({"bundle": bundle} | row for row in rows)])
    print(f"{path.name}: {len(kept) + len(rows)} rows")


def main(*bundles: str) -> None:
    if not bundles:
        print(__doc__)
        return
    for name in bundles:
        parts = read_bundle(user_path(name))
        environment = parts["environment"]
        bundle = re.sub(r"[^\w-]+", "-", f"{environment['gpu']} {environment['began']}".lower())
        for table, rows in rows_of(parts).items():
            add(table, bundle, rows)
    page = RESULTS / "README.md"
    text = page.read_text(encoding="utf-8")
    said = "Data: " + ", ".join(f"[gpu-{table}.csv](gpu-{table}.csv)" for table in TABLES) + "."
    page.write_text(text.replace(NOT_YET, said), encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
