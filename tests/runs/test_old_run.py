"""A run folder of r1nb 0.1, whose files and keys had other names, can still be read.

It was written by `make train` of commit 2866b14 with CHANGES; parts that the tests do not use are left out.
"""

import json

import pandas
import pytest

from r1nb.policy.loading import starting_adapter
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import CARD, Run
from r1nb.tasks.rows import load_splits
from r1nb.training.resume import begin_run
from r1nb.views.plots import png, training_curves
from r1nb.views.progress import progress

RECIPE = """\
name: tiny-cpu
about: The tiny policy that ships with r1nb, on any CPU, in about three minutes.
model:
  model_name: tiny-policy
  engine: transformers
  max_seq_length: 320
  dtype: float32
  load_in_4bit: false
  fast_inference: false
  max_lora_rank: null
  gpu_memory_utilization: null
  unsloth_vllm_standby: false
  torch_threads: 1
  processes: null
lora:
  r: 16
  lora_alpha: 32
  target_modules: all-linear
  lora_dropout: 0.0
  start_from: null
  use_gradient_checkpointing: null
data:
  dataset: bundled
  train_split: train
  test_splits:
  - test
  - test_unseen_kinds
  max_prompt_length: 192
  validation_split: validation
  validation_rows: null
  min_pass_rate: null
  max_pass_rate: null
  question_column: null
  answer_column: null
  layout: reasoning
scoring:
  language: en
  overlong_cache: null
  judge_url: null
  judge_model: null
evaluation:
  eval_every: 2
  validation_problems: 8
  test_problems: 8
  eval_batch_size: 150
  samples: 8
  sampled_problems: 60
output:
  runs_dir: RUNS_DIR
  resume: true
sft: {}
grpo:
  max_steps: 3
  learning_rate: 0.002
  lr_scheduler_type: constant_with_warmup
  warmup_steps: 5.0
  optim: adamw_torch
  weight_decay: 0.0
  adam_beta1: 0.9
  adam_beta2: 0.99
  max_grad_norm: 0.2
  num_generations: 8
  per_device_train_batch_size: 16
  gradient_accumulation_steps: 1
  num_iterations: 1
  max_completion_length: 112
  temperature: 1.0
  top_p: 1.0
  top_k: 0
  loss_type: dapo
  scale_rewards: group
  beta: 0.0
  epsilon: 0.2
  importance_sampling_level: token
  mask_truncated_completions: false
  gradient_checkpointing: false
  bf16: false
  use_cpu: true
  logging_steps: 1.0
  save_steps: 16.0
  report_to: none
  seed: 1
rewards:
  correctness_reward_func: 1.0
  int_reward_func: 1.0
  strict_format_reward_func: 1.0
  soft_format_reward_func: 1.0
  xmlcount_reward_func: 1.0
why:
  beta: no KL term, as TRL does and later papers recommend
"""
ENVIRONMENT = {
    "machine": "2 CPU cores, 25 GB of memory, no CUDA GPU",
    "processor": "x86_64",
    "instructions": "AVX512",
    "threads": 1,
    "system": "Linux",
    "python": "3.11.7",
    "versions": {
        "r1nb": "0.1.0",
        "torch": "2.13.0+cpu",
        "transformers": "5.17.0",
        "trl": "1.14.2",
        "peft": "0.21.2",
        "datasets": "4.8.5",
        "accelerate": "1.15.0",
    },
    "commit": "2866b14",
    "rewards": {
        "correctness_reward_func": [0.0, 2.0],
        "int_reward_func": [0.0, 0.5],
        "strict_format_reward_func": [0.0, 0.5],
        "soft_format_reward_func": [0.0, 0.5],
        "xmlcount_reward_func": [0.0, 0.5],
    },
    "data": {"rows": 1500, "sha256": "1f71e55e4de6708ec098cda3703da81dbeb054507ecd2e5b7b252158d48e51c0"},
}
RATES = {
    "held_out/strict": 0.0, "held_out/lenient": 0.0, "held_out/format": 0.0, "held_out/tokens": 2.0,
    "held_out/n": 8,
}  # fmt: skip
HISTORY = [
    {"step": 0, **RATES},
    {"step": 1, "time": 1.37, "loss": 0.0, "reward": 0.0, "reward_std": 0.0, "adapter/norm": 0.0},
    {"step": 2, **RATES},
    {"step": 2, "time": 2.835, "loss": -1.248, "reward": 0.5, "reward_std": 1.366, "adapter/norm": 0.097},
    {"step": 3, **RATES},
    {"step": 3, "time": 3.569, "loss": -1.137, "reward": 0.25, "reward_std": 1.0, "adapter/norm": 0.233},
]
ALARM = {"step": 2, "advice": "no_variance", "sentence": "All completions of a group earn the same."}
ANSWER = {
    "question": "Uri buys 5 packs of toys. Each pack holds 3 toys. How many toys does Uri have?",
    "answer": "15",
    "completion": "25", "ids": [20, 23], "cut": False, "strict": False, "lenient": False, "format": False,
    "rewards": {"correctness_reward_func": 0.0, "int_reward_func": 0.0, "strict_format_reward_func": 0.0,
                "soft_format_reward_func": 0.0, "xmlcount_reward_func": 0.0},
    "given": "25", "right": False, "kind": "packs", "steps": 1,
}  # fmt: skip
REJECTED = {"problems": 4, "samples": 16, "kept": 3, "solved": 2, "dropped": {"cut off": 13}}
CHANGES = {
    "max_steps": 3, "per_device_train_batch_size": 16, "test_problems": 8, "validation_problems": 8,
    "eval_every": 2, "torch_threads": 1,
}  # fmt: skip
# CHANGES, and the values that tiny-cpu had then.
THEN = CHANGES | {
    "rewards": load_recipe("tiny-five-rewards").rewards, "learning_rate": 2e-3,
    "lr_scheduler_type": "constant_with_warmup",
}  # fmt: skip


@pytest.fixture
def old(tmp_path):
    """Return the run, unfinished: without proof.json and adapter/."""
    folder = tmp_path / "tiny-cpu-001"
    for name in ("completions", "evaluation", "held_out"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.replace("RUNS_DIR", str(tmp_path)))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    lines = [json.dumps(line) + "\n" for line in (*HISTORY, ALARM)]
    (folder / "history.jsonl").write_text("".join(lines))
    (folder / "harvest.json").write_text(json.dumps(REJECTED))
    summary = {"n": 1, "cut": 0.0, "tokens": 2.0, "rewards": ANSWER["rewards"]}
    for rate in ("strict", "lenient", "format"):
        summary |= {rate: 0.0, f"{rate}_interval": [0.0, 0.7935]}
    whole = {"test": dict.fromkeys(("before", "prefilled", "after"), summary)}
    (folder / "evaluation.json").write_text(json.dumps(whole))
    for moment in whole["test"]:
        (folder / "evaluation" / f"{moment}-test.json").write_text(json.dumps([ANSWER]))
    for step in (0, 2, 3):
        (folder / "held_out" / f"{step:05d}.json").write_text(
            json.dumps([ANSWER | {"completion": f"{step}"}])
        )
    for step in (1, 2, 3):
        columns = {"step": step, "prompt": ANSWER["question"], "completion": ["25"], "advantage": 0.0}
        log = pandas.DataFrame(columns | dict.fromkeys(ANSWER["rewards"], 0.5))
        log.to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
    return Run(folder)


def test_its_recipe_is_read_with_the_names_of_today(old):
    recipe = load_recipe(old)
    expected = load_recipe("tiny-cpu", runs_dir=str(old.folder.parent), **THEN)
    assert recipe.model_dump(exclude={"why", "about"}) == expected.model_dump(exclude={"why", "about"})
    assert old.reward_weights == expected.rewards
    assert old.best_total() == 4.0


def test_its_validations_are_read(old):
    assert old.validated() == [0, 2, 3]
    assert [answer["completion"] for answer in old.validation(3)] == ["3"]
    assert old.series("validation/strict") == ([0, 2, 3], [0.0, 0.0, 0.0])
    assert old.series("held_out/strict") == ([], [])


def test_its_alarms_are_read(old):
    assert old.alarms() == [{"step": 2, "alarm": "no_variance", "sentence": ALARM["sentence"]}]


def test_its_rejection_sampling_is_read(old):
    assert old.rejection() == REJECTED
    (old.folder / "rejection.json").write_text(json.dumps(REJECTED | {"kept": 4}))
    assert old.rejection()["kept"] == 4
    (old.folder / "rejection.json").unlink()
    (old.folder / "harvest.json").unlink()
    assert old.rejection() == {}


def test_its_figures_and_evaluations_are_read(old):
    assert old.series("reward") == ([1, 2, 3], [0.0, 0.5, 0.25])
    assert progress(old) == (3, "step 3 of 3, reward 0.25, in 4 s")
    assert list(old.completions()["step"]) == [1, 2, 3]
    assert list(old.graded("after")) == ["test"]
    assert old.graded("before")["test"][0].completion == "25"
    assert png(training_curves(old))


def test_records_after_a_step_are_undone(old):
    old.undo_after(2)
    old = Run(old.folder)
    assert old.validated() == [0, 2]
    assert old.series("reward")[0] == [1, 2]
    assert set(old.evaluation()["test"]) == {"before", "prefilled"}
    assert (old.logged(3), old.logged(1)) == (2, 1)
    assert len(old.alarms()) == 1
    old.write_validation(3, [ANSWER])
    old.append({"step": 3, "validation/strict": 1.0})
    assert old.validated() == [0, 2, 3]
    assert old.validation(3) == [ANSWER]
    assert old.series("validation/strict") == ([0, 2, 3], [0.0, 0.0, 1.0])
    old.undo_after(0)
    assert (Run(old.folder).validated(), Run(old.folder).alarms()) == ([0], [])


def test_the_same_recipe_resumes_it_unless_it_is_finished(old, capsys):
    recipe = load_recipe("tiny-cpu", runs_dir=str(old.folder.parent), **THEN)
    rows, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert begin_run(recipe, rows).folder == old.folder
    assert "Resuming" in capsys.readouterr().out
    (old.folder / "proof.json").write_text("{}")
    (old.folder / "adapter").mkdir()
    (old.folder / "adapter" / CARD).write_text("{}")
    assert begin_run(recipe, rows, reuse=True).folder == old.folder
    further = load_recipe("tiny-cpu", runs_dir=str(old.folder.parent), start_from="tiny-cpu-001")
    assert starting_adapter(further) == old.adapter
    assert Run.latest(str(old.folder.parent)).folder == old.folder
    assert begin_run(recipe, rows).name == "tiny-cpu-002"
