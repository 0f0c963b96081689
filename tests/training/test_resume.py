"""Interrupted runs: which one is resumed, from which step, and with the result of an undisturbed run."""

import contextlib
import errno
import json
import re
import shutil
import signal
import zipfile

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from r1nb.errors import UserError
from r1nb.machine.configs import check_configs, grpo_config
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.runs.activity import TRAINING, ask_to_stop, doing_now
from r1nb.runs.checkpoints import find_damage
from r1nb.runs.disk import full_disk_in_words, is_full
from r1nb.runs.run import Run
from r1nb.tasks.rows import load_splits
from r1nb.training import resume
from r1nb.training.callbacks import Recorder, Validation
from r1nb.training.resume import begin_run, fingerprint, new_run, resumable
from r1nb.training.stages import grpo_trainer
from r1nb.training.trainer import SharedPromptTrainer

STEPS = 4


def recipe_for(folder, **settings):
    return load_recipe(
        "tiny-cpu", runs_dir=str(folder), per_device_train_batch_size=16, save_steps=2, eval_every=2,
        validation_problems=4, test_problems=4, torch_threads=1,
        **{"max_steps": STEPS, "rewards": load_recipe("tiny-five-rewards").rewards} | settings,
    )  # fmt: skip


class At(TrainerCallback):
    """Call a function before a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act()


def train(recipe, *callbacks, rows=None) -> tuple[Run, dict]:
    """Train like notebook 03 on the first `rows` rows; return the run and the weights of the adapter."""
    policy = load_policy(recipe)
    train_rows, validation, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    rows = train_rows.select(range(rows or len(train_rows)))
    run = begin_run(recipe, rows)
    attach_lora(policy, recipe)
    observers = [Recorder(run), Validation(run, policy, validation, recipe)]
    trainer = grpo_trainer(policy, rows, recipe, run.folder, [*observers, *callbacks])
    with resumable(trainer, run) as checkpoint:
        trainer.train(resume_from_checkpoint=checkpoint)
    return run, {name: w.detach() for name, w in policy.model.named_parameters() if "lora_" in name}


def figures(run: Run) -> list[dict]:
    """Return the history without times and without the lines about resuming."""
    clocks = ("time", "step_time", "train_runtime", "resumed")
    lines = [line for line in run.history() if "resumed" not in line]
    return [{k: v for k, v in line.items() if k not in clocks and "per_second" not in k} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(recipe_for(tmp_path_factory.mktemp("whole")))


def resumed(run: Run) -> list[int]:
    """Return the steps after which the run was resumed."""
    return [line["step"] for line in run.history() if "resumed" in line]


def same(weights: dict, others: dict) -> bool:
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_same_recipe_and_seed_give_the_same_history(whole, tmp_path):
    run, weights = train(recipe_for(tmp_path))
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])
    other, others = train(recipe_for(tmp_path, seed=2))
    assert figures(other) != figures(run)
    assert not same(others, weights)


def test_a_run_interrupted_once_ends_like_an_undisturbed_run(whole, tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UserError, match=r"Stopped after step 1 of 4, saved in .*-001: run again"):
        train(recipe_for(tmp_path), At(0, lambda: signal.raise_signal(signal.SIGINT)))
    assert signal.getsignal(signal.SIGINT) is before
    assert "Finishing this step, then saving" in capsys.readouterr().out
    run, weights = train(recipe_for(tmp_path))
    assert "Resuming" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("tiny-*")] == ["tiny-cpu-001"]
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])
    times = run.series("time")[1]
    assert times == sorted(times)


def test_another_process_can_ask_a_run_to_stop(whole, tmp_path, capsys):
    def ask():
        run = Run(tmp_path / "tiny-cpu-001")
        assert doing_now(run) == TRAINING
        ask_to_stop(run)

    with pytest.raises(UserError, match=r"Stopped after step 2 of 4, saved in .*-001: run again"):
        train(recipe_for(tmp_path), At(1, ask))
    assert doing_now(Run(tmp_path / "tiny-cpu-001")) == ""
    run, weights = train(recipe_for(tmp_path))
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])


def test_a_wish_to_stop_before_the_first_step_is_kept_and_an_old_one_forgotten(whole, tmp_path):
    class Early(TrainerCallback):
        def on_init_end(self, args, state, control, **kwargs):
            ask_to_stop(Run(tmp_path / "tiny-cpu-001"))

    with pytest.raises(UserError, match=r"Stopped after step 1 of 4, saved in .*-001: run again"):
        train(recipe_for(tmp_path), Early())
    ask_to_stop(Run(tmp_path / "tiny-cpu-001"))  # as a process leaves it that is killed meanwhile
    _, weights = train(recipe_for(tmp_path))
    assert same(weights, whole[1])


def crash():
    raise RuntimeError("the machine is gone")


def test_steps_after_the_checkpoint_are_trained_again(whole, tmp_path):
    with pytest.raises(RuntimeError, match="the machine is gone"):
        train(recipe_for(tmp_path), At(3, crash))
    torn = Run(tmp_path / "tiny-cpu-001")
    assert torn.series("reward")[0] == [1, 2, 3]
    run, weights = train(recipe_for(tmp_path))
    assert run.series("reward")[0] == [1, 2, 3, 4]
    assert run.series("validation/n")[0] == [0, 2, 4]
    assert resumed(run) == [2]
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])
    lines = (run.folder / "history.jsonl").read_text().splitlines()
    assert sum('"step": 3' in line for line in lines) == 2  # the undone step stays in the file


def test_a_run_interrupted_twice_stops_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(UserError, match=r"Stopped at once; .* keeps its checkpoint of step 2"):
        train(recipe_for(tmp_path), At(3, twice))


def test_a_run_interrupted_in_the_last_step_stops_too(whole, tmp_path, capsys):
    with pytest.raises(UserError, match=r"Stopped after step 4 of 4, saved in .*-001: run"):
        train(recipe_for(tmp_path), At(3, lambda: signal.raise_signal(signal.SIGINT)))
    run, weights = train(recipe_for(tmp_path))
    assert "All 4 steps are trained already." in capsys.readouterr().out
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])


def test_a_run_that_a_callback_ended_early_is_an_error(tmp_path):
    class Warned(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                (run,) = Run.all(str(tmp_path))
                run.append({"step": 2, "alarm": "not_finite", "sentence": "The loss is NaN."})
                control.should_training_stop = True

    with pytest.raises(UserError, match=r"The training ended after step 2 of 4\. The loss is NaN\."):
        train(recipe_for(tmp_path), Warned())


def test_a_run_whose_steps_are_all_trained_is_not_trained_further(tmp_path, capsys):
    run, weights = train(recipe_for(tmp_path))
    again, loaded = train(recipe_for(tmp_path))
    assert again.folder == run.folder
    assert "All 4 steps are trained already." in capsys.readouterr().out
    assert again.series("reward")[0] == [1, 2, 3, 4]
    assert same(weights, loaded)


def begun(recipe, rows):
    """Return an unfinished run."""
    run = new_run(recipe, data=fingerprint(rows))
    run.append({"step": 1, "loss": 0.0, "time": 1.0})
    return run


@pytest.fixture
def rows(tiny_recipe):
    return load_splits(tiny_recipe.data, tiny_recipe.evaluation, tiny_recipe.rewards)[0]


def test_only_an_unfinished_run_of_the_same_recipe_and_data_is_resumed(tmp_path, rows):
    recipe = recipe_for(tmp_path)
    first = begun(recipe, rows)
    assert begin_run(recipe, rows).folder == first.folder
    assert begin_run(recipe_for(tmp_path, learning_rate=1e-3), rows).name == "tiny-cpu-002"
    assert begin_run(recipe, rows.select(range(9))).name == "tiny-cpu-003"
    assert begin_run(recipe_for(tmp_path, resume=False), rows).name == "tiny-cpu-004"
    (first.folder / "proof.json").write_text("{}")  # finished; the newest unfinished one is 004
    assert begin_run(recipe, rows).name == "tiny-cpu-004"
    (tmp_path / "tiny-cpu-004" / "proof.json").write_text("{}")
    assert begin_run(recipe, rows).name == "tiny-cpu-005"
    assert first.history() == [{"step": 1, "loss": 0.0, "time": 1.0}]


def test_a_named_run_is_resumed_by_its_name_and_only_by_it(tmp_path, rows, capsys):
    first = begun(recipe_for(tmp_path, name="first try"), rows)
    assert first.name == "first-try-001"
    assert begin_run(recipe_for(tmp_path), rows).name == "tiny-cpu-001"
    assert begin_run(recipe_for(tmp_path, name="second try"), rows).name == "second-try-001"
    assert "did not finish" not in capsys.readouterr().out
    for name in ("first try", "first-try"):
        assert begin_run(recipe_for(tmp_path, name=name), rows).folder == first.folder
    assert begin_run(load_recipe(first), rows).folder == first.folder
    assert begin_run(recipe_for(tmp_path, name="first try", seed=2), rows).name == "first-try-002"


def test_a_run_that_another_process_trains_is_not_resumed(tmp_path, rows, monkeypatch, capsys):
    monkeypatch.setattr(resume, "PATIENCE", 0.2)
    recipe = recipe_for(tmp_path)
    run = begun(recipe, rows)
    with FileLock(run.folder / ".lock"):
        assert begin_run(recipe, rows).name == "tiny-cpu-002"
    assert "is being trained by another process" in capsys.readouterr().out
    assert run.series("loss")[0] == [1]


@pytest.mark.parametrize("text", ["- no recipe", "a: [", "\x00", "grpo: 1\nrewards: 1\ndata: 1"])
def test_a_damaged_folder_of_another_run_is_ignored(tmp_path, rows, text):
    recipe = recipe_for(tmp_path)
    (tmp_path / "tiny-cpu-001").mkdir()
    (tmp_path / "tiny-cpu-001" / "recipe.yaml").write_text(text)
    assert begin_run(recipe, rows).name == "tiny-cpu-002"


def test_a_run_with_a_loss_that_is_not_finite_is_not_resumed(tmp_path, rows):
    recipe = recipe_for(tmp_path)
    begun(recipe, rows).append({"step": 1, "alarm": "not_finite", "sentence": "NaN."})
    assert begin_run(recipe, rows).name == "tiny-cpu-002"


def test_a_run_that_the_canary_stopped_says_so_and_is_not_resumed(tmp_path, monkeypatch):
    recipe = recipe_for(tmp_path)
    sample = SharedPromptTrainer._generate_single_turn

    def broken(self, *args, **kwargs):
        for name, weight in self.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        with self.model.disable_adapter():
            return sample(self, *args, **kwargs)

    monkeypatch.setattr(SharedPromptTrainer, "_generate_single_turn", broken)
    with pytest.raises(UserError, match="from the base model") as error:
        train(recipe)
    (run,) = Run.all(str(tmp_path))
    (alarm,) = run.alarms()
    assert (alarm["alarm"], alarm["sentence"]) == ("samples_base", str(error.value))
    assert f"After step {alarm['step']} the" in str(error.value)
    assert run.series("loss")[0][-1] == alarm["step"]
    assert begin_run(recipe, load_splits(recipe.data, recipe.evaluation, recipe.rewards)[0]).name != run.name


def test_running_the_training_cell_again_does_not_train_a_finished_run(whole, tmp_path):
    run = new_run(recipe_for(tmp_path))
    (run.folder / "proof.json").write_text("{}")

    class Trainer:
        args = grpo_config(recipe_for(tmp_path), run.folder)

    with (
        pytest.raises(UserError, match="is finished: run the notebook from the top"),
        resumable(Trainer, run),
    ):
        pass


def cut(name, keep=0.5):
    def spoil(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def flip(name):
    def spoil(folder):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 255
        (folder / name).write_bytes(data)

    return spoil


def poison(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    weights[next(iter(weights))][0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors")


def misplace(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | {"global_step": 9}))


def with_state(**values):
    def spoil(folder):
        state = json.loads((folder / "trainer_state.json").read_text())
        (folder / "trainer_state.json").write_text(json.dumps(state | values))

    return spoil


def another_zip(name):
    def spoil(folder):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("a", "b")

    return spoil


def into_folder(folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").mkdir()


DAMAGES = {
    "a new key": (with_state(key_of_tomorrow=1), "key_of_tomorrow"),
    "a folder": (into_folder, "it is incomplete or damaged"),
    "no state": (lambda folder: (folder / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    "torn state": (cut("trainer_state.json"), "it is incomplete or damaged"),
    "another step's": (misplace, "from step 9"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "its weights are missing"),
    "torn weights": (cut("adapter_model.safetensors", 0.9), "it is incomplete or damaged"),
    "weights that are not finite": (poison, "not finite"),
    "no optimizer": (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "torn optimizer": (cut("optimizer.pt"), "it is incomplete or damaged"),
    "a flipped byte": (flip("optimizer.pt"), "optimizer.pt is damaged"),
    "no random state": (lambda folder: (folder / "rng_state.pth").unlink(), "rng_state.pth is missing"),
    "an empty file": (cut("scheduler.pt", 0), "it is incomplete or damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_of_a_checkpoint_is_found(whole, tmp_path, name):
    spoil, words = DAMAGES[name]
    folder = tmp_path / "checkpoint-2"
    shutil.copytree(whole[0].folder / "checkpoint-2", folder)
    assert find_damage(folder, 2) == ""
    spoil(folder)
    assert words in find_damage(folder, 2)


def test_a_damaged_checkpoint_is_skipped_and_the_one_before_is_used(whole, tmp_path, capsys):
    shutil.copytree(whole[0].folder, tmp_path / "tiny-cpu-001", ignore=shutil.ignore_patterns(".lock"))
    cut("optimizer.pt")(tmp_path / "tiny-cpu-001" / "checkpoint-4")
    run, weights = train(recipe_for(tmp_path))
    assert "checkpoint-4 is skipped: it is incomplete or damaged" in capsys.readouterr().out
    assert resumed(run) == [2]
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])
    assert find_damage(run.folder / "checkpoint-4", 4) == ""


def test_without_a_whole_checkpoint_a_run_starts_again_in_the_same_folder(whole, tmp_path, capsys):
    shutil.copytree(whole[0].folder, tmp_path / "tiny-cpu-001", ignore=shutil.ignore_patterns(".lock"))
    for number in (2, 4):
        (tmp_path / "tiny-cpu-001" / f"checkpoint-{number}" / "trainer_state.json").unlink()
    run, weights = train(recipe_for(tmp_path))
    assert "from step 0, since there is no checkpoint" in capsys.readouterr().out
    assert figures(run) == figures(whole[0])
    assert same(weights, whole[1])


def cut_and_go_on(recipe, step: int, rows=None) -> tuple[Run, dict]:
    with pytest.raises(RuntimeError, match="the machine is gone"):
        train(recipe, At(step, crash), rows=rows)
    return train(recipe, rows=rows)


def test_with_a_kl_term_the_adapter_is_restored_too(tmp_path):
    """With TRL's reference adapter in the checkpoint, transformers does not load the trained adapter."""
    undisturbed, weights = train(recipe_for(tmp_path / "whole", beta=0.04))
    run, again = cut_and_go_on(recipe_for(tmp_path / "cut", beta=0.04), 3)
    assert figures(run) == figures(undisturbed)
    assert same(weights, again)
    assert run.series("kl")[1][-1] > 0
    _, loaded = train(recipe_for(tmp_path / "cut", beta=0.04))  # all steps are trained already
    assert same(weights, loaded)


def test_a_run_resumed_after_an_epoch_continues_the_order_of_rows(tmp_path):
    """Four rows are two steps: step 4 ends the second epoch."""
    undisturbed, weights = train(recipe_for(tmp_path / "whole", max_steps=6), rows=4)
    run, again = cut_and_go_on(recipe_for(tmp_path / "cut", max_steps=6), 5, rows=4)
    assert resumed(run) == [4]
    assert figures(run) == figures(undisturbed)
    assert same(weights, again)


def test_the_training_cell_can_be_run_again_without_the_cells_before_it(tmp_path, whole):
    """The trainer then starts from the checkpoint, not from its own weights."""
    recipe = recipe_for(tmp_path)
    policy = load_policy(recipe)
    rows, validation, _ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    run = begin_run(recipe, rows)
    attach_lora(policy, recipe)
    stop = At(1, lambda: signal.raise_signal(signal.SIGINT))
    observers = [Recorder(run), Validation(run, policy, validation, recipe)]
    trainer = grpo_trainer(policy, rows, recipe, run.folder, [*observers, stop])
    for _ in range(2):
        with contextlib.suppress(UserError), resumable(trainer, run) as checkpoint:
            trainer.train(resume_from_checkpoint=checkpoint)
    assert resumed(run) == [2]
    assert figures(run) == figures(whole[0])
    weights = {name: w.detach() for name, w in policy.model.named_parameters() if "lora_" in name}
    assert same(weights, whole[1])


def test_save_steps_must_fit_completions_that_are_used_in_several_steps():
    share = {"logging_steps": 0.25, "max_steps": 8}
    for wrong in ({"num_iterations": 2}, {"logging_steps": 2}, {"generation_batch_size": 128}, share):
        with pytest.raises(UserError, match="save_steps = 3: a run can be resumed after every 2 steps only"):
            check_configs(load_recipe("tiny-cpu", save_steps=3, **wrong))
        check_configs(load_recipe("tiny-cpu", save_steps=4, **wrong))
    check_configs(load_recipe("tiny-cpu", save_steps=3, logging_strategy="epoch", logging_steps=2))


def differing(changes: dict, folder, capsys, rows=None, **first) -> str:
    """Begin a run, and then one with changes; return what is said, or "" if the first is resumed."""
    name = begin_run(recipe_for(folder, **first), rows).name
    resume._LOCKS.clear()
    capsys.readouterr()
    other = begin_run(recipe_for(folder, **first | changes), rows).name
    said = capsys.readouterr().out
    assert (name == other) == ("Resuming" in said)
    return "" if name == other else said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "tiny-cpu-001 did not finish, but differs from this new run in grpo.seed (1, now 2)."),
        ({"r": 8}, "in lora.r (16, now 8)."),
        ({"rewards": {"int_reward_func": 1.0}}, "in rewards ({"),
        ({"seed": 2, "r": 8, "beta": 0.1, "top_k": 5, "top_p": 0.5}, " and 1 more."),
        ({"eval_batch_size": 5}, "in evaluation.eval_batch_size (150, now 5)."),
        ({"lora": None}, "in lora ({"),
        ({"epsilon_high": 0.3}, "in grpo.epsilon_high (None, now 0.3)."),
        ({"sft": {"max_steps": 1}}, "in sft.max_steps (-1, now 1)."),
    ],
)
def test_a_new_run_says_in_what_it_differs_from_the_unfinished_one(tmp_path, capsys, changes, words):
    assert words in differing(changes, tmp_path, capsys)


@pytest.mark.parametrize(
    "changes",
    [
        {"resume_from_checkpoint": "true"},
        {"resume_from_checkpoint": True},
        {"min_p": None},  # TRL's default
        {"repetition_penalty": 1.0},
        {"save_strategy": "steps", "logging_first_step": False},
    ],
)
def test_what_does_not_matter_begins_no_new_run(tmp_path, capsys, changes):
    assert differing(changes, tmp_path, capsys) == ""


def test_an_old_recipe_without_keys_of_today_is_resumed(tmp_path, capsys):
    run = begin_run(recipe_for(tmp_path))
    resume._LOCKS.clear()
    text = (run.folder / "recipe.yaml").read_text()
    for line in ("  layout: reasoning\n", "  min_pass_rate: null\n", "  judge_url: null\n", "sft: {}\n"):
        assert line in text
        text = text.replace(line, "")
    (run.folder / "recipe.yaml").write_text(text)
    assert begin_run(recipe_for(tmp_path)).name == run.name


def test_a_project_that_moved_is_resumed_if_its_rows_are_the_same(tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "train.jsonl").write_text(
        "\n".join(json.dumps({"question": f"{n} + 7?", "answer": f"#### {n + 7}"}) for n in range(30))
    )
    shutil.copytree(DATA / "tiny-policy", here / "model")

    def begin(home, name="train.jsonl"):
        resume._LOCKS.clear()
        recipe = recipe_for(
            home / "runs", dataset=str(home / name), model_name=str(home / "model"), test_splits="train[-5:]",
            validation_split=None, validation_rows=5,
        )  # fmt: skip
        rows, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
        return begin_run(recipe, rows).name

    first = begin(here)
    here.rename(there)
    assert begin(there) == first
    moved = load_recipe(there / "runs" / first)
    assert Run(there / "runs" / first).recipe == moved.model_dump()
    assert (moved.model.model_name, moved.data.dataset) == (str(there / "model"), str(there / "train.jsonl"))
    (there / "train.jsonl").rename(there / "renamed.jsonl")
    assert begin(there, "renamed.jsonl") == first
    lines = (there / "renamed.jsonl").read_text().splitlines()[1:]
    (there / "renamed.jsonl").write_text("\n".join(lines))
    capsys.readouterr()
    assert begin(there, "renamed.jsonl") != first
    assert "differs from this new run in data." in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_ends_in_a_sentence_that_says_what_is_kept(tiny_recipe, error):
    run = new_run(tiny_recipe)
    with (
        pytest.raises(
            UserError, match=r"The disk of .* is full .*keeps its records and no checkpoint yet"
        ) as caught,
        full_disk_in_words(run),
    ):
        raise error
    assert str(caught.value).endswith("free some space, then run this again to resume.")
    with pytest.raises(ZeroDivisionError), full_disk_in_words(run):
        1 / 0  # noqa: B018


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_a_file_that_torch_cannot_read_does_not_mean_a_full_disk(tmp_path, name):
    another_zip(name)(tmp_path)
    with pytest.raises(RuntimeError, match="inline_container") as caught:
        torch.load(tmp_path / name)
    assert not is_full(caught.value)


def test_a_run_that_cannot_be_locked_is_not_resumed(tiny_recipe, capsys):
    run = new_run(tiny_recipe)
    (run.folder / ".lock").mkdir()
    assert begin_run(tiny_recipe).name == "tiny-cpu-002"
    assert re.search(r"tiny-cpu-001 cannot be written to \(Is a directory\)", capsys.readouterr().out)


def test_a_run_that_cannot_be_created_is_refused_in_a_sentence(tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"A run cannot be created in .*file"):
        Run.create(str(tmp_path / "file"), tiny_recipe.model_dump(), {})


def test_a_disk_that_fills_up_while_training_loses_no_checkpoint(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    act = At(2, lambda: monkeypatch.setattr(torch, "save", full))
    recipe = recipe_for(tmp_path)
    with pytest.raises(UserError, match=r"full .*keeps its records and its checkpoint of step 2; free"):
        train(recipe, act, rows=64)
    monkeypatch.undo()
    run, _ = train(recipe, rows=64)
    assert resumed(run) == [2]
