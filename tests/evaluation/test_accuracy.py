"""A policy's answers to many problems: they are generated in batches and returned in order."""

import pytest
from datasets import Dataset

from r1nb.errors import Interrupted
from r1nb.evaluation.accuracy import evaluate, evaluate_tests, sample_groups
from r1nb.policy.policy import Completion
from r1nb.recipes.settings import Sampling
from r1nb.rewards.grading import make_judge
from r1nb.runs.activity import is_idle
from r1nb.text.prompts import REASONING
from r1nb.training.resume import begin_run

JUDGE = make_judge({"correctness_reward_func": 1.0})


class Recalling:
    """A policy that answers each question with its index in a list, and records the batches."""

    def __init__(self, questions):
        self.questions, self.batches = questions, []

    def generate(self, prompts, sampling, adapter, prefill):
        asked = [prompt[-1]["content"] for prompt in prompts]
        self.batches.append(asked)
        places = [str(self.questions.index(question)) for question in asked]
        return [Completion(REASONING.format_reply("so", place), (7,), False) for place in places]

    def rest(self):
        pass


def test_batches_are_sorted_by_length_and_answers_keep_their_order():
    questions = ["a long question " * (7 * i % 5) + str(i) for i in range(10)]
    rows = Dataset.from_list([
        {"prompt": REASONING.build_messages(q), "question": q, "answer": str(i)}
        for i, q in enumerate(questions)
    ])  # fmt: skip
    policy = Recalling(questions)
    graded = evaluate(policy, rows, JUDGE, Sampling(9), batch_size=4)
    assert [g.question for g in graded] == questions
    assert all(g.strict for g in graded)
    lengths = [len(question) for batch in policy.batches for question in batch]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in policy.batches] == [4, 4, 2]
    groups = sample_groups(policy, rows, JUDGE, Sampling(9, seed=1), batch_size=4, samples=3)
    assert [[g.question for g in group] for group in groups] == [[q] * 3 for q in questions]


def test_an_interrupted_measurement_says_so_in_a_sentence(tiny_recipe):
    class Interrupting(Recalling):
        def generate(self, *args):
            raise KeyboardInterrupt

    run = begin_run(tiny_recipe)
    rows = Dataset.from_list([{"prompt": REASONING.build_messages("1?"), "question": "1?", "answer": "1"}])
    assert not is_idle(run)
    with pytest.raises(Interrupted, match=r"accuracy before training was measured.*run this again"):
        evaluate_tests(run, "before", Interrupting([]), {"test": rows}, tiny_recipe)
    assert is_idle(run)
