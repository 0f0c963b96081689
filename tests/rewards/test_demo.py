"""The demo's rewards pay what its original code paid, and r1nb's rewards pay what they should."""

import pytest

from r1nb.rewards import demo
from r1nb.rewards.registry import SHIPPED, find_reward
from r1nb.text.prompts import REASONING

FIVE = [find_reward(name) for name in SHIPPED["five"]]
DEMO = [find_reward(f"demo_{func.__name__}") for func in FIVE]
IDEAL = REASONING.format_reply("six times twelve\nis 72", "72")
LINES = "\n".join(f"step {i}" for i in range(100))


def scores(rewards, text, gold="72"):
    return [reward.score(text, gold) for reward in rewards]


# name: (completion, gold, the demo's five scores, r1nb's five scores)
CASES = {
    "ideal, trailing newline": (IDEAL + "\n", "72", [2, 0.5, 0, 0, 0.5], [2, 0.5, 0.5, 0.5, 0.5]),
    "ideal, stops at the end": (IDEAL, "72", [2, 0.5, 0, 0, 0.501 - 0.001 * len(IDEAL)],
                                [2, 0.5, 0.5, 0.5, 0.5]),
    "one line of reasoning": (REASONING.format_reply("six", "72") + "\n", "72", [2, 0.5, 0.5, 0, 0.5],
                              [2, 0.5, 0.5, 0.5, 0.5]),
    "all on one line": ("<reasoning>six</reasoning><answer>72</answer>", "72", [2, 0.5, 0, 0.5, 0],
                        [2, 0.5, 0, 0.5, 0.5]),
    "bare": ("72", "72", [2, 0.5, 0, 0, 0], [0, 0, 0, 0, 0]),
    "a comma in the gold": (REASONING.format_reply("so", "1080") + "\n", "1,080", [0, 0.5, 0.5, 0, 0.5],
                            [2, 0.5, 0.5, 0.5, 0.5]),
    "a comma in the answer": (REASONING.format_reply("so", "1,080") + "\n", "1,080", [2, 0, 0.5, 0, 0.5],
                              [2, 0.5, 0.5, 0.5, 0.5]),
    "preface": (f"Sure!\n{IDEAL}\n", "72", [2, 0.5, 0, 0, 0.5], [2, 0.5, 0, 0.5, 0.5]),
    "negative": (REASONING.format_reply("so", "-5") + "\n", "-5", [2, 0, 0.5, 0, 0.5],
                 [2, 0.5, 0.5, 0.5, 0.5]),
    "superscript": (REASONING.format_reply("so", "²") + "\n", "2", [0, 0.5, 0.5, 0, 0.5],
                    [0, 0, 0.5, 0.5, 0.5]),
    "unclosed answer": ("<reasoning>\nso\n</reasoning>\n<answer>72", "72", [2, 0.5, 0, 0, 0.25],
                        [0, 0, 0, 0, 0.375]),
    "the last answer wins": ("<answer>1</answer><answer>72</answer>", "72", [2, 0.5, 0, 0, 0],
                             [0, 0, 0, 0, 0]),
    "empty reasoning": ("<reasoning>\n\n</reasoning>\n<answer>\n72\n</answer>\n", "72", [2, 0.5, 0.5, 0, 0.5],
                        [2, 0.5, 0, 0, 0.5]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "gold", "theirs", "ours"), CASES.values(), ids=CASES)
def test_both_sets_of_rewards_on_the_same_completion(text, gold, theirs, ours):
    assert scores(DEMO, text, gold) == pytest.approx(theirs)
    assert scores(FIVE, text, gold) == pytest.approx(ours)


def test_the_demo_subtracts_for_every_character():
    long = REASONING.format_reply(LINES, "72")
    assert demo.demo_xmlcount_reward_func.score(long, "72") == pytest.approx(0.501 - 0.001 * len(long))
    assert demo.demo_xmlcount_reward_func.score(REASONING.format_reply(LINES * 10, "72"), "72") < -5


def test_no_completion_here_earns_full_marks_from_the_demo():
    texts = [case[0] for case in CASES.values()]
    assert max(sum(scores(DEMO, text)) for text in texts) == 3.5
    assert max(sum(scores(FIVE, text)) for text in texts) == 4.0
