"""What each reward pays, case by case: correctness, int, strict, soft, xmlcount."""

import json
import time

import pytest

from r1nb.rewards import five
from r1nb.rewards.registry import SHIPPED, find_reward
from r1nb.text.prompts import REASONING

TAGS = REASONING.tags
FIVE = {name: find_reward(name) for name in SHIPPED["five"]}

IDEAL = "<reasoning>\nsix times twelve\n</reasoning>\n<answer>\n72\n</answer>"
LINES = "\n".join(f"step {i}" for i in range(100))
FULL = (2, 0.5, 0.5, 0.5, 0.5)
SOFT = (2, 0.5, 0, 0.5, 0.5)  # all except strict
BLANK = (2, 0.5, 0, 0, 0.5)  # neither format
ANSWERLESS = (0, 0, 0, 0, 0.5)
NOTHING = (0, 0, 0, 0, 0)

# name: (completion, the five scores for the gold 72)
COMPLETIONS = {
    "ideal": (IDEAL, FULL),
    "ideal, trailing newline": (IDEAL + "\n", FULL),
    "ideal, space around": (f"\n\n {IDEAL} \n\n", FULL),
    "several lines": (REASONING.format_reply("six\n\ntimes twelve", "72"), FULL),
    "hundred lines": (REASONING.format_reply(LINES, "72"), FULL),
    "hundred lines, trailing newline": (REASONING.format_reply(LINES, "72") + "\n", FULL),
    "brackets in reasoning": (REASONING.format_reply("6 < 7 > 5 <b> </b>", "72"), FULL),
    "one line": ("<reasoning>six</reasoning><answer>72</answer>", SOFT),
    "blank line between": (IDEAL.replace("g>\n<a", "g>\n\n<a"), SOFT),
    "carriage returns": (IDEAL.replace("\n", "\r\n"), SOFT),
    "preface": ("Sure!\n" + IDEAL, SOFT),
    "afterword": (IDEAL + "\nDone.", (2, 0.5, 0, 0.5, 0.495)),
    "endless afterword": (IDEAL + "x" * 10_000, (2, 0.5, 0, 0.5, 0.375)),
    "text between": (IDEAL.replace("<answer>", "so\n<answer>"), BLANK),
    "empty reasoning": (REASONING.format_reply("", "72"), BLANK),
    "blank reasoning": (REASONING.format_reply(" \n\t", "72"), BLANK),
    "empty answer": (REASONING.format_reply("six", ""), ANSWERLESS),
    "blank answer": (REASONING.format_reply("six", " \n"), ANSWERLESS),
    "untagged": ("72", NOTHING),
    "untagged hash": ("so #### 72", NOTHING),
    "empty": ("", NOTHING),
    "reasoning only": ("<reasoning>\nsix\n</reasoning>\n72", (0, 0, 0, 0, 0.25)),
    "answer only": ("<answer>\n72\n</answer>", (0, 0, 0, 0, 0.25)),
    "unclosed answer": (IDEAL.removesuffix("</answer>"), (0, 0, 0, 0, 0.375)),
    "unclosed reasoning": (IDEAL.replace("</reasoning>", ""), (0, 0, 0, 0, 0.375)),
    "unopened reasoning": (IDEAL.removeprefix("<reasoning>"), (0, 0, 0, 0, 0.375)),
    "unopened answer": (IDEAL.replace("<answer>", ""), (0, 0, 0, 0, 0.375)),
    "several answers": (IDEAL.replace("72", "1</answer><answer>72"), (0, 0, 0, 0, 0.25)),
    "answer twice": (REASONING.format_reply("<answer>72</answer>", "72"), (0, 0, 0, 0, 0.25)),
    "ideal twice": (IDEAL + "\n" + IDEAL, NOTHING),
    "answer first": ("<answer>72</answer><reasoning>six</reasoning>", NOTHING),
    "tags only": ("".join(TAGS), ANSWERLESS),
    "tags backwards": ("".join(reversed(TAGS)), NOTHING),
    "tags a hundred times": ("".join(TAGS) * 100, NOTHING),
    "upper case": (IDEAL.upper(), NOTHING),
    "tag with a space": (IDEAL.replace("<answer>", "< answer>"), (0, 0, 0, 0, 0.375)),
    "nested": ("<reasoning><answer>72</answer></reasoning>", (0, 0, 0, 0, 0.113)),
    "none": (None, NOTHING),
}
# (answer block, gold, correctness, int); the other three rewards pay in full
ANSWERS = [
    ("1080", "1,080", 2, 0.5),
    ("1,080", "1,080", 2, 0.5),
    ("1,080", "1080", 2, 0.5),
    ("-5", "-5", 2, 0.5),
    ("\N{MINUS SIGN}5", "-5", 2, 0.5),
    ("5", "-5", 0, 0.5),
    ("0", "0", 2, 0.5),
    ("73", "72", 0, 0.5),
    ("$72", "72", 2, 0),
    ("72 dollars", "72", 2, 0),
    ("18 eggs", "18", 2, 0),
    ("72.0", "72", 2, 0),
    ("72.", "72", 2, 0),
    ("72.5.", "72.5", 2, 0),
    ("50%", "50", 2, 0),
    ("71.9", "72", 0, 0),
    ("41 or 42", "42", 0, 0),
    ("NaN", "72", 0, 0),
    ("Infinity", "72", 0, 0),
    ("1e999999999", "72", 0, 0),
    ("9**9**9", "72", 0, 0),
    ("\N{SUPERSCRIPT TWO}", "2", 0, 0),
    ("7\N{SUPERSCRIPT TWO}", "7", 0, 0),
    ("\N{ARABIC-INDIC DIGIT THREE}", "3", 0, 0),
    ("9" * 200_000, "72", 0, 0),
]


def scores(completion, gold="72"):
    return [func(completions=[completion], answer=[gold])[0] for func in FIVE.values()]


@pytest.mark.parametrize(("completion", "expected"), COMPLETIONS.values(), ids=COMPLETIONS)
def test_scores_of_a_completion(completion, expected):
    assert scores(completion) == pytest.approx(expected)
    assert scores([{"role": "assistant", "content": completion}]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "gold", "correct", "integer"), ANSWERS, ids=[ascii(row[0][:20]) for row in ANSWERS]
)
def test_scores_of_an_answer_block(given, gold, correct, integer):
    assert scores(REASONING.format_reply("six", given), gold) == [correct, integer, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("reasoning", ["one line", LINES], ids=["one line", "hundred lines"])
@pytest.mark.parametrize("end", ["", "\n"], ids=["no newline", "newline"])
def test_the_ideal_completion_earns_exactly_four(reasoning, end):
    assert sum(scores(REASONING.format_reply(reasoning, "72") + end)) == 4.0


@pytest.mark.parametrize("func", FIVE.values(), ids=FIVE)
def test_each_completion_gets_one_float_within_the_range(func):
    texts = [text for text, _ in COMPLETIONS.values()]
    texts += [REASONING.format_reply("six", row[0]) for row in ANSWERS]
    paid = func(prompts=texts, completions=texts, completion_ids=texts, answer=["72"] * len(texts))
    assert len(paid) == len(texts)
    assert {type(score) for score in paid} == {float}
    assert min(paid) == func.low
    assert max(paid) == func.high


def test_names_and_highest_scores():
    highs = {"correctness": 2.0, "int": 0.5, "strict_format": 0.5, "soft_format": 0.5}
    highs = {f"{name}_reward_func": high for name, high in (highs | {"xmlcount": 0.5}).items()}
    assert {name: func.high for name, func in FIVE.items()} == highs
    assert all(getattr(five, name) is func for name, func in FIVE.items())


@pytest.mark.parametrize("piece", ["9", "1,000,", "-", "$", " ", "\n", "<", *TAGS, "".join(TAGS)])
def test_a_megabyte_is_scored_in_seconds(piece):
    text = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    for completion in (text, REASONING.format_reply(text, "72"), REASONING.format_reply("six", text)):
        scores(completion)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gsm8k_gold_earns_four(gsm8k_dir, split):
    lines = (gsm8k_dir / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in lines]
    assert any("," in gold for gold in golds)
    for gold in golds:
        assert sum(scores(REASONING.format_reply("six", gold), gold)) == 4.0, gold
        assert sum(scores(REASONING.format_reply("six", gold.replace(",", "")), gold)) == 4.0, gold
