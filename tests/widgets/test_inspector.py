"""The inspector without a browser: the effect of its controls; only its last page needs a model."""

import re
import shutil
import subprocess
import sys

import pytest
from written_run import HOSTILE, IDEAL, append_step, write_run

from r1nb.errors import UserError
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.grading import Graded
from r1nb.runs.activity import TRAINING, asked_to_stop, clear, say_now
from r1nb.training.resume import new_run
from r1nb.views.progress import progress
from r1nb.widgets.inspector import Inspector

GRADED = Graded("4 * 6?", "24", "24", (1,), False, True, True, True, {})


@pytest.fixture
def runs_dir(tmp_path):
    return str(tmp_path / "runs")


def recipe(runs_dir, **settings):
    return load_recipe(runs_dir=runs_dir, **settings)


def test_the_newest_run_is_shown_at_its_last_step(runs_dir):
    write_run(recipe(runs_dir), 20)
    write_run(recipe(runs_dir), 40)
    inspector = Inspector(runs_dir)
    assert [run.name for run in inspector.shown] == ["tiny-cpu-002"]
    assert (inspector.step.value, inspector.step.max) == (40, 40)
    assert bytes(inspector.curves.value).startswith(b"\x89PNG")
    assert "tiny-cpu-002, step 40: 8 of 8 completions" in inspector.completions.value
    assert inspector.stop.layout.display == "none"  # nothing trains


def test_completions_are_sorted_by_advantage_and_searched(runs_dir):
    write_run(recipe(runs_dir), 3, texts=(IDEAL, "nothing [a-z]", "24"))
    inspector = Inspector(runs_dir)
    shown = inspector.completions.value
    assert shown.count("How much is 4 times 6? (3)") == 1  # the question once, above its group
    advantages = [float(number) for number in re.findall(r"<b>([-+]\d\.\d\d)</b>", shown)]
    assert len(advantages) == 8
    assert advantages == sorted(advantages, reverse=True)
    inspector.search.value = "NOTHING [A-Z]"
    assert "3 of 8 completions" in inspector.completions.value
    inspector.search.value = "not there"
    assert "0 of 8 completions" in inspector.completions.value


@pytest.mark.parametrize(
    ("name", "count"),
    [("all completions", 8), ("right", 4), ("wrong", 4), ("cut off", 1), ("best of each group", 1),
     ("worst of each group", 1)],
)  # fmt: skip
def test_completions_are_filtered(runs_dir, name, count):
    write_run(
        recipe(runs_dir, rewards={"int_reward_func": 1.0, "correctness_reward_func": 1.0}), 3, right=2.0
    )
    inspector = Inspector(runs_dir)
    inspector.filter.value = name
    shown = inspector.completions.value
    assert f"{count} of 8 completions" in shown
    assert shown.count("✓ right") == {"all completions": 4, "right": 4, "best of each group": 1}.get(name, 0)
    assert shown.count("✗ wrong") + shown.count("✓ right") == count


def test_slider_and_smoothing_redraw(runs_dir):
    write_run(recipe(runs_dir), 40)
    inspector = Inspector(runs_dir)
    picture, cursor = bytes(inspector.curves.value), inspector.cursor.value
    inspector.step.value = 12
    assert bytes(inspector.curves.value) == picture  # only the line over it moves
    assert inspector.cursor.value != cursor
    assert "step 12: " in inspector.completions.value
    assert "at step 12: total reward <b>0.8</b>" in inspector.values.value
    inspector.smoothing.value = 0.9
    assert bytes(inspector.curves.value) != picture


def test_the_recipes_of_two_runs_are_compared(runs_dir):
    write_run(recipe(runs_dir, seed=5), 20)
    write_run(recipe(runs_dir, rewards={"correctness_reward_func": 1.0}), 30)
    inspector = Inspector(runs_dir)
    inspector.chosen.value = ("tiny-cpu-001", "tiny-cpu-002")
    for word in ("grpo.seed", "rewards.int_reward_func", "–"):  # noqa: RUF001
        assert word in inspector.comparison.value
    assert "learning_rate" not in inspector.comparison.value
    assert inspector.step.max == 30
    assert "tiny-cpu-001 at step 20, its last:" in inspector.values.value
    inspector.chosen.value = ()  # the runs that were shown stay
    inspector.step.value = 3
    inspector.search.value = "24"
    assert len(inspector.shown) == 2


def test_a_run_in_progress_is_followed(runs_dir):
    writer = write_run(recipe(runs_dir), 3)
    say_now(writer, TRAINING)
    inspector = Inspector(runs_dir)
    picture = bytes(inspector.curves.value)
    inspector.clock.value += 1
    assert bytes(inspector.curves.value) == picture  # nothing new to show
    append_step(writer, 4, [])
    inspector.clock.value += 1
    assert bytes(inspector.curves.value) == picture  # drawing again so soon would take too much time
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert inspector.step.value == 4
    assert "step 3: 8 of 8 completions" in inspector.completions.value  # the last ones in the folder
    inspector.step.value = 2
    append_step(writer, 5, [])
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert (inspector.step.value, inspector.step.max) == (2, 5)  # the chosen step is kept
    write_run(recipe(runs_dir), 2)
    inspector.clock.value += 1
    assert [name for _, name in inspector.chosen.options] == ["tiny-cpu-002", "tiny-cpu-001"]
    assert [run.name for run in inspector.shown] == ["tiny-cpu-001"]


def test_one_question_is_followed_through_the_run(runs_dir):
    write_run(recipe(runs_dir), 40)
    moments = Inspector(runs_dir).moments
    assert moments.kind.options == ("validation problems", "questions sampled in training")
    assert moments.moment.options == ("after step 1", "after step 16", "after step 32")
    assert moments.moment.value == "after step 32"
    assert "How much is 4 times 6?" in moments.answer.value
    assert moments.question.label == "1. ✗✗✗ How much is 4 times 6?"
    moments.which.value = "right at the end"
    assert moments.question.options == ()
    assert "no such question" in moments.answer.value
    moments.which.value = "wrong at the end"
    moments.search.value = "HOW MUCH"
    assert "How much is 4 times 6?" in moments.answer.value
    moments.kind.value = "questions sampled in training"
    assert len(moments.question.options) == 40
    moments.question.index = 11
    assert moments.moment.options == ("step 12",)
    assert moments.answer.value.count("&lt;reasoning&gt;") == 4


def test_a_question_that_is_followed_moves_on_with_the_run(runs_dir):
    writer = write_run(recipe(runs_dir), 16)
    say_now(writer, TRAINING)
    inspector = Inspector(runs_dir)
    moments = inspector.moments
    assert moments.moment.value == "after step 16"
    before = moments.answer.value
    writer.write_validation(32, writer.validation(16))
    append_step(writer, 17, [])
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert moments.moment.value == "after step 32"
    assert moments.answer.value == before.replace("after step 16", "after step 32")
    moments.moment.value = "after step 1"
    writer.write_validation(48, writer.validation(16))
    append_step(writer, 18, [])
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert moments.moment.value == "after step 1"  # the chosen moment stays
    assert moments.moment.options[-1] == "after step 48"


def test_the_first_step_is_drawn_at_once_and_so_is_a_run_that_has_ended(runs_dir):
    writer = new_run(recipe(runs_dir))
    say_now(writer, TRAINING)
    inspector = Inspector(runs_dir)
    assert "has no completions up to step 1" in inspector.completions.value
    append_step(writer, 1, [])
    inspector.clock.value += 1
    assert "at step 1: total reward" in inspector.values.value
    append_step(writer, 2, [])
    inspector.clock.value += 1
    assert inspector.step.max == 1  # so soon it is not drawn again
    clear(writer)
    inspector.clock.value += 1
    assert inspector.step.max == 2
    assert "stopped: run it again to resume" in inspector.status.value


def test_the_worst_of_each_group_come_first(runs_dir):
    write_run(recipe(runs_dir), 3, texts=(IDEAL, "nothing [a-z]", "24"))
    inspector = Inspector(runs_dir)
    inspector.filter.value = "worst of each group"
    assert "worst first" in inspector.completions.value


def test_a_run_that_trains_says_what_it_does_and_can_be_stopped(runs_dir):
    run = write_run(recipe(runs_dir), 3)
    say_now(run, "measuring accuracy: 4 of 60")
    inspector = Inspector(runs_dir)
    assert "measuring accuracy: 4 of 60; step 3 of 112" in inspector.status.value
    say_now(run, TRAINING)
    inspector.clock.value += 1
    assert inspector.status.value.endswith("</b>: " + progress(run)[1])
    inspector.stop.click()
    assert asked_to_stop(run)
    assert inspector.stop.disabled
    assert "stopping after this step" in inspector.status.value
    clear(run)
    inspector.clock.value += 1
    assert inspector.stop.layout.display == "none"


def test_a_trained_run_whose_accuracy_is_measured_cannot_be_stopped(runs_dir):
    run = write_run(recipe(runs_dir), 3)
    say_now(run, TRAINING)
    inspector = Inspector(runs_dir)
    assert inspector.stop.layout.display == ""
    run.append({"step": 112, "time": 99.0, "reward": 2.0})
    inspector.clock.value += 1
    assert inspector.stop.layout.display == "none"
    inspector.stop.click()
    assert not asked_to_stop(run)


def test_the_list_says_what_each_run_is_and_follows_it(runs_dir):
    writer = write_run(recipe(runs_dir, name="first try"), 3)
    write_run(recipe(runs_dir, seed=5), 2)
    inspector = Inspector(runs_dir)
    assert [label.rpartition(" · ")[0] for label, _ in inspector.chosen.options] == [
        "tiny-cpu-001 · tiny-policy · bundled · step 2 of 112",
        "first-try-001 · tiny-policy · bundled · step 3 of 112",
    ]
    inspector.chosen.value = ("first-try-001",)
    inspector.chosen.value = ()  # the run that is shown stays
    append_step(writer, 4, [])
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert " · step 4 of 112 · " in inspector.chosen.options[1][0]
    assert inspector.chosen.value == ("first-try-001",)
    writer.write_evaluation("before", {"test": [GRADED]})
    writer.write_evaluation("after", {"test": [GRADED]})
    inspector.next_drawing = 0.0
    inspector.clock.value += 1
    assert " · bundled · 100 → 100 % · " in inspector.chosen.options[1][0]


def test_completions_that_are_being_written_are_not_shown_yet(runs_dir):
    run = write_run(recipe(runs_dir), 3)
    path = run.folder / "completions" / "completions_00003.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert "no completions of step 3" in Inspector(runs_dir).completions.value


def test_a_run_deleted_and_created_again_is_read_again(runs_dir):
    shutil.rmtree(write_run(recipe(runs_dir), 20).folder)
    write_run(recipe(runs_dir), 12)
    inspector = Inspector(runs_dir)
    shutil.rmtree(inspector.shown[0].folder)
    inspector.clock.value += 1  # no run exists now: the old one is still shown
    write_run(recipe(runs_dir), 4)
    inspector.clock.value += 1
    assert inspector.step.max == 4


def test_a_run_without_steps_can_be_shown(runs_dir):
    new_run(recipe(runs_dir))
    inspector = Inspector(runs_dir)
    assert "no completions" in inspector.completions.value


def test_without_a_run_one_sentence_says_what_to_do(runs_dir):
    with pytest.raises(UserError, match="There is no run in 'runs' yet"):
        Inspector(runs_dir)


def test_it_loads_no_model_library(runs_dir):
    write_run(recipe(runs_dir), 3)
    code = (
        f"import sys; from r1nb.widgets.inspector import Inspector; Inspector({runs_dir!r});"
        "print([m for m in ('torch', 'trl', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_in_completions_is_escaped(runs_dir, text):
    write_run(recipe(runs_dir), 1, texts=(text,))
    shown = Inspector(runs_dir).completions.value
    assert not any(tag in shown for tag in ("<script", "<img", "<style", "<b on", "\x1b", "\u202e", "\u200f"))


def test_with_a_policy_a_grpo_step_is_taken_on_the_question_that_is_shown(runs_dir):
    settings = recipe(runs_dir, torch_threads=1, max_completion_length=16)
    write_run(settings, 3)
    assert Inspector(runs_dir).one_step is None
    policy = load_policy(settings)
    attach_lora(policy, settings)
    inspector = Inspector(runs_dir, policy=policy)
    assert inspector.tabs.get_title(len(inspector.tabs.children) - 1) == "One GRPO step"
    sampler = inspector.one_step.sampler
    assert (sampler.question.value, sampler.gold.value) == ("How much is 4 times 6? (3)", "24")
    inspector.step.value = 2
    assert sampler.question.value == "How much is 4 times 6? (2)"
    sampler.sample.press()
    inspector.one_step.step.press()
    assert (sampler.sample.said.value, inspector.one_step.step.said.value) == ("", "")
    assert inspector.one_step.steps.taken == 1
