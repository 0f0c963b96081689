"""Rejection sampling, and runs that start from the adapter of another run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate_tests
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.policy import Completion
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import grade
from r1nb.tasks.rows import load_splits
from r1nb.text.prompts import REASONING
from r1nb.training.rejection import (
    FORMAT,
    LANGUAGE,
    REASONS,
    STEP,
    TWICE,
    WRONG,
    sample_examples,
    select,
    why_not,
)
from r1nb.training.resume import begin_run, new_run
from r1nb.training.stages import finish, grpo_trainer
from r1nb.views.stage_results import equal_steps, examples_table, rejection_table, stages_table, work

GOOD = REASONING.format_reply("There are 2*3=6 eggs.\nThen 6+1=7 eggs.", "7")
TEXTS = {
    GOOD: "",
    REASONING.format_reply("That is seven.", "7"): "",  # no equation to check
    REASONING.format_reply("2*3=6, 6+1=7", "7"): "",  # no words whose language could be checked
    GOOD + " and more": FORMAT,
    "#### 7": FORMAT,
    REASONING.format_reply("There are 2*3=6 eggs.", "6"): WRONG,
    REASONING.format_reply("There are 2*3=5 eggs.\nThen 6+1=7 eggs.", "7"): STEP,
    REASONING.format_reply("There are 2*3=6 яиц.\nThen 6+1=7 eggs.", "7"): LANGUAGE,
    REASONING.format_reply("", "7"): FORMAT,
}


def graded(recipe, texts, cut=False):
    """Return the texts as graded completions of one problem with the answer 7."""
    rows = {"question": ["How many?"] * len(texts), "answer": ["7"] * len(texts)}
    return grade(rows, [Completion(text, (1, 2), cut) for text in texts], recipe.judge())


@pytest.mark.parametrize(("text", "reason"), TEXTS.items(), ids=range(len(TEXTS)))
def test_a_completion_is_dropped_for_the_first_reason_that_holds(tiny_recipe, text, reason):
    (one,) = graded(tiny_recipe, [text])
    assert why_not(one, REASONING, "en") == reason
    (cut,) = graded(tiny_recipe, [text], cut=True)
    assert why_not(cut, REASONING, "en") == "cut off"


def test_every_completion_is_either_kept_or_counted_as_dropped(tiny_recipe):
    groups = [graded(tiny_recipe, [*TEXTS, GOOD, GOOD]), graded(tiny_recipe, [GOOD])]
    kept, counts = select(groups, REASONING, "en")
    assert [g.completion for g in kept[0]] == [text for text, reason in TEXTS.items() if not reason]
    assert [g.completion for g in kept[1]] == [GOOD]  # the same text is kept for another problem
    assert tuple(counts) == REASONS
    assert counts[TWICE] == 2
    assert sum(map(len, kept)) + sum(counts.values()) == sum(map(len, groups))


class Scripted:
    """A policy that answers from a list of texts, in which {answer} stands for the gold."""

    def __init__(self, rows, *texts):
        self.golds = {row["question"]: row["answer"] for row in rows}
        self.texts, self.asked = texts, 0

    def generate(self, prompts, *args, **kwargs):
        self.asked += len(prompts)
        made = [self.texts[i % len(self.texts)] for i in range(len(prompts))]
        golds = [self.golds[prompt[-1]["content"]] for prompt in prompts]
        return [Completion(t.replace("{answer}", g), (1,), False) for t, g in zip(made, golds, strict=True)]

    def rest(self):
        pass


@pytest.fixture
def rows(tiny_recipe):
    return load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)[0].select(range(4))


def test_kept_completions_become_examples_and_are_not_sampled_again(tiny_recipe, rows):
    run = new_run(tiny_recipe)
    policy = Scripted(rows, REASONING.format_reply("So it is.", "{answer}"), "no tags")
    examples = sample_examples(run, policy, rows, tiny_recipe, samples=4)
    assert len(examples) == len(rows)  # 2 of 4 samples are right and equal: one is kept
    for row, example in zip(rows, examples, strict=True):
        assert example["prompt"] == row["prompt"]
        assert example["completion"][0]["content"] == REASONING.format_reply("So it is.", row["answer"])
    found = json.loads((run.folder / "rejection.json").read_text())
    assert (found["samples"], found["kept"], found["solved"], found["problems"]) == (16, 4, 4, 4)
    assert found["dropped"][FORMAT] == 8
    assert found["dropped"][TWICE] == 4
    assert work(run) == (16, 0)
    shown = rejection_table(run).to_html()
    assert "50.0%" in shown
    assert "4 of 4" in shown
    assert "So it is." in examples_table(run, 2).to_html()
    again = sample_examples(run, None, rows, tiny_recipe, samples=4)  # nothing is sampled
    assert again[:] == examples[:]
    (run.folder / "rejection.json").write_text("{")  # torn
    with pytest.raises(UserError, match=r"no readable rejection\.json"):
        rejection_table(run)


def test_if_no_completion_is_kept_the_error_says_why_and_the_parent_is_unchanged(tiny_recipe, rows):
    parent = new_run(tiny_recipe)
    before = sorted(path.read_bytes() for path in parent.folder.iterdir())
    run = begin_run(tiny_recipe, rows, parent=parent.name)
    with pytest.raises(UserError, match=r"kept none of 8 completions \(8 not well-formed\): sample more"):
        sample_examples(run, Scripted(rows, "no tags"), rows, tiny_recipe, samples=2)
    assert not (run.folder / "examples.json").exists()
    assert sorted(path.read_bytes() for path in parent.folder.iterdir()) == before


def test_a_judge_that_does_not_answer_is_reported_before_a_run_is_created(tiny_recipe, rows, tmp_path):
    recipe = load_recipe(
        "tiny-cpu", runs_dir=str(tmp_path / "judged"), rewards={"judge_reward_func": 1.0},
        judge_url="http://127.0.0.1:9/v1", judge_model="any",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"judge_url = 'http://127.0.0.1:9/v1'.*could not be asked"):
        begin_run(recipe, rows)
    assert not list((tmp_path / "judged").iterdir())
    policy = Scripted(rows, REASONING.format_reply("So it is.", "{answer}"))
    with pytest.raises(UserError, match=r"The judge scored none of the completions"):
        sample_examples(new_run(recipe), policy, rows.select(range(1)), recipe, samples=1)


def test_a_missing_or_unfinished_parent_is_refused_before_the_base_is_loaded(tiny_recipe):
    runs_dir = tiny_recipe.output.runs_dir
    with pytest.raises(UserError, match=r"start from 'nowhere': there is no run and no folder.*: none"):
        load_policy(load_recipe("tiny-cpu", runs_dir=runs_dir, start_from="nowhere"))
    run = new_run(tiny_recipe)
    with pytest.raises(UserError, match=rf"start from '{run.name}': it did not finish"):
        load_policy(load_recipe("tiny-cpu", runs_dir=runs_dir, start_from=run.name))
    with pytest.raises(UserError, match=r"it is not the folder of a run, and it has no adapter"):
        load_policy(load_recipe("tiny-cpu", runs_dir=runs_dir, start_from=runs_dir))


@pytest.fixture
def stage(tiny_recipe):
    """Return a finished run, its policy, its data and the answers of the base model."""
    policy = load_policy(tiny_recipe)
    rows, _, tests = load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)
    run = begin_run(tiny_recipe, rows)
    base = evaluate_tests(run, "before", policy, tests, tiny_recipe)
    evaluate_tests(run, "prefilled", policy, tests, tiny_recipe)
    attach_lora(policy, tiny_recipe)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.01)
    finish(run, policy, tests, tiny_recipe, base)
    return run, policy, rows, tests, base


def lora(policy) -> dict:
    return {n: w.detach().clone() for n, w in policy.model.named_parameters() if "lora_" in n}


def test_a_stage_continues_from_the_adapter_of_its_parent_and_records_it(
    tiny_recipe, stage, capsys, tmp_path, monkeypatch
):
    parent, policy, rows, tests, base = stage
    left = lora(policy)
    settings = {"runs_dir": tiny_recipe.output.runs_dir, "max_steps": 1, "per_device_train_batch_size": 16,
                "test_problems": 6, "torch_threads": 1, "start_from": parent.name,
                "warmup_steps": 0, "rewards": {"language_reward_func": 1.0}}  # fmt: skip
    recipe = load_recipe("tiny-cpu", **settings)
    run = begin_run(recipe, rows, reuse=True, parent=parent.name)
    assert run.environment["parent"] == parent.name
    assert "parent" not in parent.environment
    attach_lora(policy, recipe)
    begun = lora(policy)
    assert all(torch.equal(left[name], begun[name]) for name in left)
    assert all(w.requires_grad for n, w in policy.model.named_parameters() if "lora_" in n)
    grpo_trainer(policy, rows, recipe, run.folder).train()
    assert any(not torch.equal(left[name], weight) for name, weight in lora(policy).items())
    assert not run.finished
    finish(run, policy, tests, recipe, base)
    # A finished stage is not trained again, except for another parent or without `reuse`.
    again = begin_run(recipe, rows, reuse=True, parent=parent.name)
    assert again.folder == run.folder
    assert "is finished and stays as it is" in capsys.readouterr().out
    assert begin_run(recipe, rows, reuse=True).folder == run.folder  # its parent is start_from
    assert begin_run(recipe, rows, reuse=True, parent="another").folder != run.folder
    assert begin_run(recipe, rows, parent=parent.name).folder != run.folder

    # An adapter's own folder will do, too, also a relative path of a folder that is no run.
    shutil.copytree(parent.adapter, tmp_path / "given" / "mine")
    monkeypatch.chdir(tmp_path)
    for folder, named in {str(parent.adapter): parent.name, "given/mine": "mine"}.items():
        recipe = load_recipe("tiny-cpu", **settings | {"start_from": folder})
        assert recipe.lora.start_from == str(Path(folder).resolve())
        attach_lora(policy, recipe)
        assert all(torch.equal(left[name], weight) for name, weight in lora(policy).items())
        assert begin_run(recipe, rows).environment["parent"] == named

    shown = stages_table({"first": parent, "second": run}, "test").to_html()
    for words in ("the base, prefilled", "first", "second", parent.name):
        assert words in shown
    with pytest.raises(UserError, match=r"has rank 16, not 8: set r=16"):
        attach_lora(policy, load_recipe("tiny-cpu", **settings, r=8))


def test_work_counts_completions_sampled_and_trained_on(tiny_recipe, tmp_path):
    recipe = load_recipe("tiny-r1", runs_dir=str(tmp_path / "r1"))
    grpo, sft, both = new_run(recipe), new_run(recipe), new_run(recipe, processes=2)
    for step in (1, 2, 3):
        grpo.append({"step": step, "loss": 0.0, "reward": 1.0})
        both.append({"step": step, "loss": 0.0, "reward": 1.0})
        sft.append({"step": step, "loss": 0.5})
    rejected = dict.fromkeys(("problems", "kept", "solved"), 9) | {"samples": 100, "dropped": {}}
    (sft.folder / "harvest.json").write_text(json.dumps(rejected))
    assert work(grpo) == (192, 192)
    assert work(both) == (384, 384)
    twice = new_run(load_recipe("tiny-r1", runs_dir=str(tmp_path / "r1"), num_iterations=2, save_steps=2))
    for step in range(1, 5):  # TRL logs rewards only in steps that sample
        twice.append({"step": step, "loss": 0.0} | ({"reward": 1.0} if step % 2 else {}))
    assert work(twice) == (128, 256)
    assert work(sft) == (100, 192)
    assert equal_steps([grpo, sft], batch=64) == round((384 + 292) / 128)
