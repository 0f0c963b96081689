"""Training with GRPO and SFT: runs from the first step to the proof in a fresh process."""

import pytest
from trl import GRPOTrainer

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import evaluate, evaluate_tests
from r1nb.evaluation.proof import prove
from r1nb.machine.configs import grpo_config
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.trained import load_trained
from r1nb.recipes.loading import load_recipe
from r1nb.rewards import registry
from r1nb.rewards.registry import reward
from r1nb.runs.checkpoints import last_checkpoint
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_splits
from r1nb.text.prompts import REASONING, format_prompt
from r1nb.training.callbacks import Recorder, Validation, Watchdog
from r1nb.training.resume import begin_run, new_run, resumable
from r1nb.training.stages import _as_tokens, finish, grpo_trainer, sft, solution_examples
from r1nb.widgets.live import LiveView


@pytest.fixture
def parts(tiny_recipe):
    policy = load_policy(tiny_recipe)
    return tiny_recipe, policy, *load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)


def test_a_run_records_training_validation_evaluation_and_proof(parts):
    recipe, policy, train, validation, tests = parts
    run = new_run(recipe)
    before = evaluate_tests(run, "before", policy, tests, recipe)
    attach_lora(policy, recipe)
    watchdog = Watchdog(run, recipe.judge())
    callbacks = [Recorder(run), Validation(run, policy, validation, recipe), LiveView(run), watchdog]
    trainer = grpo_trainer(policy, train, recipe, run.folder, callbacks)
    trainer.train()
    assert all(callback.seconds > 0 for callback in callbacks)

    assert run.series("reward")[0] == [1, 2]
    assert run.alarms() == []
    assert run.series("validation/strict")[0] == [0, 1, 2]
    for name in recipe.rewards:
        assert run.series(f"rewards/{name}/mean")[0] == [1, 2]
    log = run.completions(2)
    assert len(log) == recipe.grpo["per_device_train_batch_size"]
    assert set(log["answer"]) <= set(train["answer"])
    assert (log["tokens"] > 0).all()
    assert {"prompt", "completion", "advantage", *recipe.rewards} <= set(log.columns)
    assert (log["total"] == log[list(recipe.rewards)].sum(axis=1)).all()
    assert log["cut"].mean() == run.series("completions/clipped_ratio")[1][1]
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert run.validated() == [0, 1, 2]
    assert len(run.validation(2)) == len(validation)

    after = evaluate_tests(run, "after", policy, tests, recipe)
    policy.save_adapter(run.adapter, run)
    assert not run.finished  # the proof is missing
    assert set(run.evaluation()) == set(recipe.data.test_splits)
    proof = prove(run, tests["test"], trained=after["test"], base=before["test"])
    assert proof.same_as_trained == proof.n == len(tests["test"])
    assert proof.norm == pytest.approx(run.series("adapter/norm")[1][-1])
    assert proof.strict == proof.trained[0]
    assert proof.holds == (proof.differs_from_base > 0)
    held = evaluate_tests(run, "before", None, tests, recipe)  # answers in the run are reused
    assert held == before
    fewer = {split: rows.select(range(2)) for split, rows in tests.items()}
    again = evaluate_tests(run, "before", policy, fewer, recipe)  # other problems are asked
    assert [g.ids for g in again["test"]] == [g.ids for g in before["test"][:2]]  # with the base
    assert run.finished


def test_columns_that_trl_would_use_do_not_reach_it(parts, tmp_path, monkeypatch):
    """An empty images column makes TRL take the policy for one that sees."""
    monkeypatch.setattr(registry, "_OWN", {})

    @reward(high=1.0)
    def kind_reward_func(text, answer, text_too, kind=""):
        return float(text_too == kind)

    recipe, policy, train, *_ = parts
    rewards = recipe.rewards | {"kind_reward_func": 1.0}
    recipe = recipe.model_copy(update={"rewards": rewards, "grpo": recipe.grpo | {"max_steps": 1}})
    names = ("text", "text_too", "kind", "images", "image", "completions", "prompts", "tools",
             "trainer_state", "log_extra", "environment", "completion", "completion_ids", "self")  # fmt: skip
    train = train.map(lambda row: row | dict.fromkeys(names, None) | {"text_too": "x", "kind": "x"})
    attach_lora(policy, recipe)
    trainer = grpo_trainer(policy, train, recipe, tmp_path)
    assert set(trainer.train_dataset.column_names) == {"prompt", "answer", "text_too", "kind"}
    trainer.train()
    assert trainer.state.log_history[0]["rewards/kind_reward_func/mean"] == 1.0


def test_a_run_whose_loss_is_not_finite_is_stopped_with_an_alarm(parts, capsys):
    recipe, policy, train, *_ = parts
    recipe.grpo.update(max_steps=4)
    attach_lora(policy, recipe)

    class Poisoned(GRPOTrainer):
        def compute_loss(self, *args, **kwargs):
            spoilt = float("nan") if self.state.global_step == 1 else 1
            return super().compute_loss(*args, **kwargs) * spoilt

    run = new_run(recipe)
    trainer = Poisoned(
        model=policy.model, processing_class=policy.tokenizer, reward_funcs=recipe.reward_funcs(),
        args=grpo_config(recipe, run.folder), train_dataset=train,
        callbacks=[Recorder(run), Watchdog(run, recipe.judge())],
    )  # fmt: skip
    trainer.train()
    assert run.series("reward")[0] == [1, 2]
    (said,) = run.alarms()
    assert (said["step"], said["alarm"]) == (2, "not_finite")
    assert said["sentence"] in capsys.readouterr().out
    for act in (
        lambda: policy.save_adapter(run.adapter),
        lambda: evaluate_tests(run, "after", policy, {"test": train.select(range(2))}, recipe),
    ):
        with pytest.raises(UserError, match="not finite, so the policy is neither evaluated nor saved"):
            act()
    assert not run.adapter.exists()


def test_an_sft_start_teaches_the_format(parts):
    recipe, policy, train, *_ = parts
    recipe.sft.update(
        max_steps=24, learning_rate=5e-3, per_device_train_batch_size=8, use_cpu=True,
        gradient_checkpointing=False, save_strategy="no", seed=1, bf16=False,
    )  # fmt: skip
    rows = train.select(range(24))
    attach_lora(policy, recipe)
    run = new_run(recipe)

    def well_formed() -> float:
        graded = evaluate(policy, rows, recipe.judge(), recipe.greedy, batch_size=24)
        return sum(g.format for g in graded) / len(rows)

    before = well_formed()
    assert sft(policy, solution_examples(train, recipe.layout), recipe, run.folder / "sft") > 0
    assert well_formed() > before + 0.5


def test_a_run_without_an_adapter_trains_and_saves_the_whole_model(tmp_path):
    recipe = load_recipe(
        "tiny-cpu", lora=None, learning_rate=1e-3, warmup_steps=0, max_steps=2,
        per_device_train_batch_size=16, test_problems=6, validation_problems=6, samples=2,
        sampled_problems=2, torch_threads=1,
        runs_dir=str(tmp_path / "runs"),
    )  # fmt: skip
    rows, _, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    policy = load_policy(recipe)
    run = begin_run(recipe, rows)
    before = evaluate_tests(run, "before", policy, tests, recipe)
    attach_lora(policy, recipe)
    with pytest.raises(UserError, match=r"no adapter: policy\.save_trained"):
        policy.save_adapter(run.adapter)
    trainer = grpo_trainer(policy, rows, recipe, run.folder, [Recorder(run)])
    with resumable(trainer, run) as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    proof = finish(run, policy, tests, recipe, before)
    assert proof.norm is None
    assert proof.same_as_trained == proof.n == 6
    assert "the saved model gave the trained policy's answer to 6 of 6" in str(proof)
    assert run.finished
    assert run.series("adapter/norm") == ([], [])
    assert not run.adapter.exists()
    assert Run.latest(recipe.output.runs_dir).folder == run.folder
    again, loaded, folder = load_trained(run.folder)
    assert (folder, again.has_adapter, loaded.lora) == (run.model, False, None)
    weights = dict(policy.model.named_parameters())
    assert all(weight.equal(weights[name]) for name, weight in again.model.named_parameters())
    assert (run.model / "README.md").read_text().count("# Full fine-tuning of tiny-policy") == 1


APPENDED = "{{ m.role + ': ' + (m.content if m.role != 'assistant' else %s) + '<|im_end|>\\n' }}"


@pytest.mark.parametrize(
    "reply",
    ["m.content", "'<think>\\n\\n</think>\\n\\n' + m.content", "m.content.split('</reasoning>')[-1]", "''"],
    ids=["as it is", "an empty block before it", "without its reasoning", "dropped"],
)
def test_sft_trains_the_reply_that_the_rewards_will_see(parts, reply):
    _, policy, train, *_ = parts
    template = "{% for m in messages %}" + APPENDED % reply + "{% endfor %}"
    policy.tokenizer.chat_template = template + "{% if add_generation_prompt %}assistant: {% endif %}"
    example = solution_examples(train.select(range(1)), REASONING)[0]
    tokens = _as_tokens(example, policy.tokenizer)
    written = [label for label in tokens["labels"] if label != -100]
    end = "<|im_end|>\n" if reply == "m.content" else "<|im_end|>"  # as the template ends it
    assert policy.tokenizer.decode(written) == example["completion"][0]["content"] + end
    prompt = policy.tokenizer.decode(tokens["input_ids"][: -len(written)])
    assert prompt == format_prompt(policy.tokenizer, example["prompt"])
    assert tokens["input_ids"][-len(written) :] == written


def test_an_adapter_on_head_and_embedding_is_trained_saved_and_proven(tiny_recipe):
    tiny_recipe.lora.target_modules = ["embed_tokens", "lm_head"]
    recipe = tiny_recipe.model_copy(
        update={"grpo": tiny_recipe.grpo | {"learning_rate": 0.05, "save_steps": 1}}
    )
    rows, _, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    policy = load_policy(recipe)
    run = begin_run(recipe, rows)
    before = evaluate_tests(run, "before", policy, tests, recipe)
    attach_lora(policy, recipe)
    trainer = grpo_trainer(policy, rows, recipe, run.folder, [Recorder(run)])
    with resumable(trainer, run) as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    proof = finish(run, policy, tests, recipe, before)
    assert proof.norm > 0
    assert run.series("adapter/norm")[1][-1] == pytest.approx(proof.norm)
    assert proof.same_as_trained == proof.n
    assert load_trained(run.folder)[0].has_adapter
    assert last_checkpoint(run)[0] == 2
