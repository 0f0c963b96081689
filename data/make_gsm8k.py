"""Train a 0.5B model on GSM8K with GRPO, and answer the 1,319 test problems before and after.

    python data/make_gsm8k.py all MODEL           # the whole result again, from the model file
    python data/make_gsm8k.py score               # the table, from the kept answers alone

MODEL is a GGUF file or a model folder; the environment variable R1NB_GSM8K_DIR names the folder with
train.jsonl and test.jsonl. An interrupted command resumes where it stopped. Single parts of `all`:

    python data/make_gsm8k.py answer raw MODEL [ADAPTER]
    python data/make_gsm8k.py keep RUN            # copy recipe, history and adapter of a run

The files are described in data/results/gsm8k-qwen25-coder-0.5b/README.md.
"""

import copy
import csv
import gzip
import json
import os
import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from r1nb.errors import UserError, run_main
from r1nb.paths import user_path, write_json
from r1nb.policy.loading import load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import summarize
from r1nb.runs.run import CARD, Run
from r1nb.studies.real_model import (
    FOLDER,
    POLICIES,
    RECIPE,
    SHOWN,
    compare_rates,
    gain_parts,
    keep_answers,
    read_answers,
)
from r1nb.tasks.rows import load_rows
from r1nb.train import train

BATCH = 200  # problems that are answered together
MODEL = "Qwen/Qwen2.5-Coder-0.5B-Instruct"


def gsm8k() -> str:
    if not (folder := os.environ.get("R1NB_GSM8K_DIR")):
        raise UserError("R1NB_GSM8K_DIR is not set: name the folder with GSM8K's train.jsonl and test.jsonl.")
    return folder


def answer(name: str, model: str, adapter: str = "") -> None:
    """Answer all test problems greedily, with an adapter or without."""
    rows = load_rows(gsm8k(), "test")
    recipe = load_recipe(RECIPE, model_name=model, eval_batch_size=BATCH)
    policy = load_policy(recipe)
    if adapter:
        policy.load_adapter(user_path(adapter))
    FOLDER.mkdir(exist_ok=True)
    partial, lines = FOLDER / f"{name}.json", []
    for i, g in enumerate(keep_answers(policy, rows, recipe, partial)):
        line = {"index": i, "question": g.question, "answer": g.answer, "completion": g.completion}
        lines.append(json.dumps(line | {"tokens": len(g.ids), "cut": g.cut, "strict": g.strict}))
    with gzip.GzipFile(FOLDER / f"{name}.jsonl.gz", "wb", mtime=0) as file:
        file.write("\n".join([*lines, ""]).encode())
    partial.unlink()


def keep(folder: str) -> None:
    """Copy a finished run's recipe, versions, history and adapter, whose weights are rounded to bfloat16."""
    run = Run(user_path(folder))
    (FOLDER / "adapter").mkdir(parents=True, exist_ok=True)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    rounded = {name: value.to(torch.bfloat16) for name, value in weights.items()}
    save_file(rounded, FOLDER / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    config, card = (
        json.loads((run.adapter / name).read_text(encoding="utf-8")) for name in ("adapter_config.json", CARD)
    )
    card["model"]["model_name"] = keep_recipe(run, FOLDER)["model"]["model_name"]
    write_json(FOLDER / "adapter" / "adapter_config.json", config | {"base_model_name_or_path": MODEL})
    write_json(FOLDER / "adapter" / CARD, card)
    for name in ("environment.json", "history.jsonl"):
        shutil.copy(run.folder / name, FOLDER)


def keep_recipe(run: Run, folder: Path) -> dict:
    """Write a run's recipe into a folder, without paths of this machine; returns that recipe."""
    recipe = copy.deepcopy(run.recipe)
    recipe["model"]["model_name"] = Path(recipe["model"]["model_name"]).name
    recipe["data"]["dataset"], recipe["output"] = "openai/gsm8k", {}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return recipe


def score() -> None:
    """Print and write the rates of each file, and compare the model as it comes with the others."""
    graded = {name: read_answers(name) for name in POLICIES if (FOLDER / f"{name}.jsonl.gz").is_file()}
    table = [["policy", "n", *(x for rate in SHOWN for x in (rate, "low", "high")), "cut", "tokens"]]
    for name, found in graded.items():
        s = summarize(found)
        rates = [x for rate in SHOWN for x in (s[rate], *s[f"{rate}_interval"])]
        table.append([name, s["n"], *(f"{rate:.4f}" for rate in [*rates, s["cut"]]), f"{s['tokens']:.1f}"])
    with (FOLDER / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    for row in table:
        print(*row, sep="\t")
    first = graded.pop("raw")
    for name, after in graded.items():
        for rate, comparison in compare_rates(first, after).items():
            print(f"raw -> {name}, {rate}. {comparison}")
        print(f"raw -> {name}, parts of the gain: {gain_parts(first, after)}")


def everything(model: str) -> None:
    """Train the recipe; answer the test problems with the model as it comes and with the adapter; score."""
    run, _ = train(load_recipe(RECIPE, model_name=model, dataset=gsm8k(), test_problems=20))
    keep(str(run.folder))
    answer("raw", model)
    shutil.copy(FOLDER / "raw.jsonl.gz", FOLDER / "start.jsonl.gz")  # GRPO starts from the model as it comes
    answer("after", model, str(FOLDER / "adapter"))
    score()


if __name__ == "__main__":
    commands = {"all": everything, "answer": answer, "keep": keep, "score": score}
    run_main(lambda command="", *words: commands.get(command, lambda *_: print(__doc__))(*words))
