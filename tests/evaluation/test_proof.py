"""The verdict on a saved adapter: what it says, and whether the proof holds."""

import pytest
from datasets import Dataset

from r1nb.evaluation import proof
from r1nb.evaluation.proof import Proof
from r1nb.rewards.grading import Graded, make_judge

ALL, NONE = [1.0, 0.7, 1.0], [0.0, 0.0, 0.3]  # strict accuracy of the trained policy, with its interval
DISTRUST = "NOT faithful: do not trust this adapter."


@pytest.mark.parametrize(
    ("made", "holds", "verdict"),
    [
        (Proof(10, 10, 10, 0.5, 1.0, ALL, 0.0, 0.002), True, "Faithful: the saved adapter is what was"),
        (Proof(10, 10, 10, None, 1.0, ALL, 0.0, 0.002), True, "Faithful: the saved model is what was"),
        # right on 0 %, like the base: the file is right, the training was in vain
        (Proof(10, 10, 10, 0.5, 0.0, NONE, 0.0, 1.0), True, "Faithful, and close to the base: "),
        (Proof(100, 100, 9, 0.5, 1.0, ALL, 0.0, 0.002), True, "Few answers differ from the base model's."),
        (Proof(10, 9, 10, 0.5, 1.0, ALL, 0.0, 0.002), True, "Probably faithful: "),
        (Proof(10, 10, 0, 0.5, 0.0, NONE, 0.0, 1.0), False, "no answer differs from the base model's."),
        (Proof(10, 10, 0, 0.0, 0.0, NONE, 0.0, 1.0), False, "Faithful, but without effect: "),
        (Proof(10, 0, 0, 0.0, 0.0, ALL, 0.0, 1.0), False, DISTRUST),
        (Proof(10, 9, 0, 0.0, 1.0, ALL, 1.0, 1.0), False, DISTRUST),
        (Proof(0, 0, 0, not_run="no memory."), False, "saved, but not yet checked: no memory."),
    ],
)  # fmt: skip
def test_the_verdict_says_faithful_only_of_what_was_trained(made, holds, verdict):
    assert made.holds == holds
    last = str(made).splitlines()[-1]
    assert verdict in last
    assert ("NOT" in last) == verdict.startswith("NOT")
    assert "Proven" not in str(made)


def test_the_base_models_accuracy_is_compared_with_the_reloaded_adapters():
    """The base is right on nothing, the adapter on all of eight: McNemar's p is 2 / 2**8."""
    rows = Dataset.from_list([{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(8)])
    judge = make_judge({"correctness_reward_func": 1.0})
    texts = [f"<reasoning>\n</reasoning>\n<answer>\n{i + 1}\n</answer>" for i in range(8)]

    def graded(strict: bool, ids: tuple) -> list[Graded]:
        return [
            Graded(row["question"], row["answer"], "", ids, False, strict, strict, True, {}) for row in rows
        ]

    fresh = {"answers": [[text, [7], False] for text in texts], "norm": 0.5}
    made = proof._compare(fresh, rows, judge, trained=graded(True, (7,)), base=graded(False, (9,)))
    assert (made.n, made.same_as_trained, made.differs_from_base) == (8, 8, 8)
    assert (made.strict, made.trained[0], made.base) == (1.0, 1.0, 0.0)
    assert made.p == pytest.approx(2 / 2**8)
    assert "base model: 0.0%.\nFaithful: " in str(made)
