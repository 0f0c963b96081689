"""Parsers of a model's answer run in a subprocess with a time limit and without side effects."""

import multiprocessing
import os
import threading
import time

import pytest

from r1nb.errors import UserError
from r1nb.rewards import sandbox
from r1nb.rewards.mathematics import math_equal
from r1nb.rewards.registry import find_reward
from r1nb.text.prompts import REASONING

TOWER = "10^{10^{10^{10}}}"


def hang() -> tuple[bool | None, float, bool | None]:
    start = time.monotonic()
    answer = math_equal(TOWER, "5", seconds=1)
    seconds = time.monotonic() - start
    return answer, seconds, math_equal("1/2", "0.5", seconds=60)


def hang_into(queue):
    queue.put(hang())


@pytest.mark.parametrize("where", ["main thread", "another thread", "fork", "spawn"])
def test_a_comparison_stops_at_its_time_limit(where):
    results = []
    if where == "main thread":
        results.append(hang())
    elif where == "another thread":
        thread = threading.Thread(target=lambda: results.append(hang()))
        thread.start()
        thread.join()
    else:
        context = multiprocessing.get_context(where)
        queue = context.Queue()
        worker = context.Process(target=hang_into, args=(queue,), daemon=True)
        worker.start()
        results.append(queue.get(timeout=120))
        worker.join()
    answer, seconds, after = results[0]
    assert answer is None
    assert seconds < 30
    assert after is True  # the next comparison works


def test_threads_do_not_read_each_others_answers():
    pairs = [(str(i), str(i if i % 2 else i + 1)) for i in range(40)]
    found = {}

    def ask(given, gold):
        found[given] = math_equal(given, gold)

    threads = [threading.Thread(target=ask, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {given: given == gold for given, gold in pairs}


def test_a_library_that_is_missing_is_named_with_the_fix():
    with pytest.raises(UserError, match=r"^no_such_library is missing or did not start: pip install 'r1nb\["):
        sandbox.run_sandboxed("r1nb.rewards.mathematics:compare", "no_such_library", "1", "1", seconds=60)


class Interrupted:
    """A stream that raises KeyboardInterrupt, like Ctrl-C before the reply is read."""

    def __init__(self, stream):
        self.stream = stream

    def readline(self):
        raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_an_interrupted_comparison_leaves_no_reply_for_the_next(monkeypatch):
    assert math_equal(r"\sqrt{4}", "2")
    process = sandbox._sandbox("r1nb.rewards.mathematics:compare", "math_verify", os.getpid()).process
    with monkeypatch.context() as patch:
        patch.setattr(process, "stdout", Interrupted(process.stdout))
        with pytest.raises(KeyboardInterrupt):
            math_equal(r"\sqrt{4}", "2")
    assert math_equal(r"\sqrt{4}", "3") is False


EVALUATED = ["countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "spiral_matrix",
             "intermediate_integration", "string_insertion", "n_queens", "binary_matrix"]  # fmt: skip


@pytest.mark.parametrize("task", EVALUATED)
def test_an_answer_that_is_a_program_has_no_effect(gym, task, tmp_path):
    trace = tmp_path / "trace"
    for program in (
        f'__import__("pathlib").Path("{trace}").touch()',
        f'__import__("os").system("touch {trace}")',
        f'__import__("subprocess").run(["touch", "{trace}"])',
        f'open("{trace}", "w")',
        f'exec("im" + "port subprocess; subprocess.run([\\"touch\\", \\"{trace}\\"])")',
        'exec("im" + "port os; os.write(1, b\\"1.0\\\\n\\")")',
        f'ｅｖａｌ("open(\\"{trace}\\", \\"w\\")")',  # noqa: RUF001
    ):
        assert (
            find_reward("gym_reward_func").score(REASONING.format_reply("so", program), problem=f"{task}:0")
            <= 0.1
        )
        for answer, score in (("-4", 1.0), ("-5", 0.0)):  # later scores are still right
            assert (
                find_reward("gym_reward_func").score(
                    REASONING.format_reply("so", answer), problem="chain_sum:1"
                )
                == score
            )
    assert not trace.exists()


@pytest.mark.parametrize(("task", "answer"), [("countdown", "9**9**9"), ("coin_flip", "1e99999999")])
def test_scoring_that_takes_too_long_is_stopped(gym, task, answer, monkeypatch):
    monkeypatch.setattr("r1nb.rewards.gym.SECONDS", 3)
    score, reason = find_reward("gym_reward_func").explain(
        REASONING.format_reply("so", answer), problem=f"{task}:0"
    )
    assert (score, reason) == (0.0, f"{task} could not score the answer within 3 seconds")
