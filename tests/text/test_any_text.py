"""Rewards and arithmetic on generated text: any text is scored, in range, in linear time."""

import math
import os
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from r1nb import child
from r1nb.rewards.mathematics import math_equal
from r1nb.rewards.reasoning import find_equations
from r1nb.rewards.registry import find_reward
from r1nb.text.arithmetic import SIGNS, evaluate_expression, solve_countdown
from r1nb.text.numbers import to_number
from r1nb.text.prompts import LAYOUTS, REASONING

SLOW = ("judge_reward_func", "math_reward_func", "gym_reward_func")  # a server, a process, tasks made anew
FAST = [name for name in REWARDS if name not in SLOW]
SETTINGS = {"max_completion_length": 10, "overlong_cache": 2, "language": "en"}

ALWAYS = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}

TAGS = sorted({tag for layout in LAYOUTS.values() for tag in layout.tags})
BROKEN = ["<", ">", "</", "<answer", "answer>", "< answer>", "<ANSWER>", "</answer\n>", "<answer/>", "<b>"]
MARKS = [*"+-*/=() ^%$.,:x!", *map(chr, SIGNS), "**", "//", " = ", " + ", "\n= "]
NUMBERS = ["0", "3", "4", "7", "1,080", "3.5", ".5", "007", "1e9", "0x10", "1_0", "9" * 30, "²", "½", "٣"]
SUMS = ["3+4", "(3 + 4)", "4 * 3", "3 + 4 = 7", "7 = 7", "3 / 4 = 75%", "-3 + 7 = 4", "3 + 4 = 8"]
WORDS = ["so", " apples", " or ", "答案", "ответ", "\ud800", "\x00", "\u200b", "e\u0301", "\\frac{", "}"]
SPACES = ["\n", "\r\n", "\t", "\u2028"]

PIECES = st.sampled_from(TAGS + BROKEN + MARKS + NUMBERS + SUMS + WORDS + SPACES)
ARITHMETIC = st.sampled_from(MARKS + NUMBERS + SUMS)
ANSWERS = st.sampled_from(NUMBERS + SUMS + WORDS)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.lists(ARITHMETIC, max_size=8).map("".join),
    st.text(max_size=20),
    ANSWERS,
)


def scores(name: str, completions: list, layout: str, **columns) -> list[float | None]:
    """What a reward pays when it is called as TRL calls it; a column given is the same for each row."""
    same = {"prompts": "", "answer": "7", "completion_ids": [1, 2, 3], "nums": [3, 4], "target": 7} | columns
    func = replace(find_reward(name), settings=SETTINGS | {"layout": layout})
    return func(completions=completions, trainer_state=None, log_extra=None, log_metric=None,
                **{key: [value] * len(completions) for key, value in same.items()})  # fmt: skip


def check(name: str, completions: list, layout: str = "reasoning", **columns) -> None:
    paid = scores(name, completions, layout, **columns)
    assert len(paid) == len(completions)
    for score in paid:
        assert score is None or (type(score) is float and math.isfinite(score)), name
        assert score is None or find_reward(name).low <= score <= find_reward(name).high, name


@settings(max_examples=3400, **ALWAYS)
@given(
    one=TEXTS,
    two=TEXTS,
    role=st.sampled_from(["assistant", "user", "tool"]),
    layout=st.sampled_from(list(LAYOUTS)),
    answer=ANSWERS | st.integers().map(str),
    completion_ids=st.lists(st.integers(0, 9), max_size=12),
    nums=st.lists(st.integers(0, 9), max_size=4) | st.just([3, 4]),
    target=st.integers(-9, 99) | st.just(7),
)
def test_any_completion_is_scored_in_range(one, two, role, layout, **columns):
    completions = [
        one,
        REASONING.format_reply(one, two, layout),
        two + REASONING.format_reply(two, one, layout).replace("\n", " ") + one,
        [{"role": role, "content": one}, {"role": "assistant", "content": two}],
        [{"role": "assistant", "content": [{"type": "text", "text": text} for text in (one, two)]}],
        [
            {"role": "assistant", "content": REASONING.format_reply(one, two, layout) + "\n"},
            {"role": role},
            None,
        ],
    ]
    for name in FAST:
        check(name, completions, layout, **columns)


@pytest.mark.parametrize("completion", [None, "", [], [None], [{}], [{"role": "assistant", "content": None}]])
@pytest.mark.parametrize("name", FAST)
def test_no_text_is_scored_in_range(name, completion):
    check(name, [completion])


@settings(max_examples=200, **ALWAYS)
@given(given_=st.lists(ANSWERS | st.sampled_from(MARKS), max_size=6).map("".join), gold=ANSWERS)
def test_any_answer_is_compared_with_the_gold(given_, gold):
    check("math_reward_func", [REASONING.format_reply("so", given_)], answer=gold)


WRAPS = {
    "bare": lambda text: text,
    "reasoning": lambda text: REASONING.format_reply(text, "7"),
    "answer": lambda text: REASONING.format_reply("so", text),
    "unclosed": lambda text: "<reasoning>" + text,
    "afterword": lambda text: REASONING.format_reply("so", "7") + text,
}


def seconds(name: str, text: str) -> float:
    start = time.process_time()
    check(name, [text])
    return time.process_time() - start


@settings(max_examples=45, phases=[Phase.explicit, Phase.generate], **ALWAYS)
@given(piece=st.lists(PIECES, min_size=1, max_size=6).map("".join), wrap=st.sampled_from(list(WRAPS)))
@example(piece="1", wrap="reasoning")
@example(piece="1,000,", wrap="answer")
@example(piece="(", wrap="reasoning")
@example(piece="中a", wrap="bare")
@example(piece="</reasoning><answer>", wrap="unclosed")
def test_a_megabyte_takes_time_in_proportion(piece, wrap):
    for name in FAST:
        before = None
        for length in (16_000, 64_000, 250_000, 1_000_000):  # stops before a square takes minutes
            now = seconds(name, WRAPS[wrap](piece * (length // len(piece))))
            assert before is None or now < 12 * before + 0.3, f"{name}: {before:.2f} s, then {now:.2f} s"
            before = now


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=500, **ALWAYS)
@given(reasoning=TEXTS, number=st.integers())
def test_the_ideal_completion_earns_exactly_four(reasoning, number, layout):
    assume(reasoning.strip() and not any(tag in reasoning for tag in LAYOUTS[layout].tags))
    ideal = REASONING.format_reply(reasoning, str(number), layout)
    paid = [scores(name, [ideal], layout, answer=str(number))[0] for name in list(REWARDS)[:5]]
    assert sum(paid) == 4.0
    assert scores("r1_format_reward_func", [ideal], layout) == [1.0]


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else None,
}
SHOWN = {"+": ["+"], "-": ["-", "−", "–"], "*": ["*", "×"], "/": ["/", "÷"]}  # noqa: RUF001
LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2}


@st.composite
def joined(draw, terms):
    """(text, value, numbers, level) of two such terms under an operator, in parentheses where needed."""
    (left, a, used, low), (right, b, more, high) = draw(terms), draw(terms)
    sign = draw(st.sampled_from(list(OPERATORS)))
    left = f"({left})" if low < LEVEL[sign] or draw(st.integers(0, 9)) == 0 else left
    right = f"({right})" if high <= LEVEL[sign] else right
    space, shown = draw(st.sampled_from(["", " "])), draw(st.sampled_from(SHOWN[sign]))
    value = None if a is None or b is None else OPERATORS[sign](a, b)
    return f"{left}{space}{shown}{space}{right}", value, used + more, LEVEL[sign]


def expressions(most: int):
    leaves = st.integers(0, 20).map(lambda n: (str(n), Fraction(n), [n], 3))
    return joined(st.recursive(leaves, joined, max_leaves=most - 1)).filter(lambda made: len(made[2]) <= most)


@settings(max_examples=1000, **ALWAYS)
@given(expressions(8))
def test_an_expression_has_its_value(made):
    text, value, numbers, _ = made
    evaluated = evaluate_expression(f" {text}\n")
    assert evaluated == (None if value is None else (value, numbers))
    if value is not None:
        assert [found[1:] for found in find_equations(f"So {text} = {value}.")] == [(value, True)]
        assert [found[1:] for found in find_equations(f"So {text} = {value + 1}.")] == [(value + 1, False)]


@settings(max_examples=1000, **ALWAYS)
@given(st.lists(ARITHMETIC, max_size=60).map("".join) | TEXTS, st.integers(1, 300))
def test_any_text_is_evaluated_in_no_time(text, times):
    start = time.process_time()
    for hostile in (text, text * times):
        evaluated = evaluate_expression(hostile)
        assert evaluated is None or type(evaluated[0]) is Fraction
    assert time.process_time() - start < 1


@settings(max_examples=150, **ALWAYS)
@given(expressions(4))
def test_a_solution_of_countdown_earns_one(made):
    _, target, numbers, _ = made
    assume(target is not None)
    solution = solve_countdown(numbers, target)
    for answer in (solution, f"{solution} = {target}"):
        ideal = REASONING.format_reply("so", answer)
        assert scores("countdown_reward_func", [ideal], "reasoning", nums=numbers, target=target) == [1.0]
    wrong = REASONING.format_reply("so", f"{solution} + 0")
    assert scores("countdown_reward_func", [wrong], "reasoning", nums=numbers, target=target) == [0.0]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("(3 + 4) * 5", 1),
        ("(3 + 4) × 5 = 35", 1),  # noqa: RUF001
        ("(3 + 4)\n* 5", 1),
        ("(" * 60 + "(3 + 4) * 5" + ")" * 60, 1),
        ("35", 0),
        ("35 = (3 + 4) * 5", 0),
        ("(3 + 4) * 5 = 36", 0),
        ("(3 + 4) * 5 = 35 = 35", 0),
        ("(3 + 4) * 5 + 0", 0),
        ("(3 + 4)(5)", 0),
        ("(2.99999999999999999999 + 4) * 5", 0),
        ("(3 + 4) * 5 # = 35", 0),
        ("(3 + 4) * 5 // 1", 0),
        ("(3 + 4) * +5", 0),
        ("(3 - -4) * 5", 0),
        ("(0x3 + 4) * 5", 0),
        ("(3e0 + 4) * 5", 0),
        ("(3 + 4) * ٣", 0),
        ("(3 + 4) * 5 / (3 - 3)", 0),
        ("3 ** 4 ** 5", 0),
        ("9**9**9", 0),
        ("__import__('os')", 0),
        ("(" * 200 + "35" + ")" * 200, 0),
        ("1" * 10_000, 0),
    ],
    ids=ascii,
)
def test_countdown(answer, score):
    text = REASONING.format_reply("so", answer)
    assert scores("countdown_reward_func", [text], "reasoning", nums=[3, 4, 5], target=35) == [score]


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("-3 + 5 = 2", True),
        ("- 5 + 3 = 8", True),  # an item of a list
        ("2^3 + 1 = 9", True),
        ("√9 + 1 = 4", True),
        ("(1 + 2)(3 + 4) = 21", True),
        ("50 * 100 = 5 × 10^3", True),  # noqa: RUF001
        ("5 * 5 = 5²", True),
        ("10 / 2 = -2 + 7", True),
        ("1 - 10 = -2 + 7", False),
        ("2 + 3 = 5^2", False),
        ("2 * 5 = 10²", False),
        ("3/10 = 33.3%", False),
        ("1/3 = 33.3%", True),
        ("3/4 * 100 = 75%", True),
    ],
)
def test_no_step_is_misjudged(text, true):
    """A step that is not understood may be passed over."""
    assert (not true) not in [holds for _, _, holds in find_equations(text)]


@pytest.mark.parametrize(
    ("reasoning", "answer"), [("3 / 4 = 75%", "75%"), ("3 / 4 = 75%", "0.75"), ("1/2 + 1/3 = 5/6", "5/6")]
)
def test_an_answer_follows_from_a_step_that_is_written_like_it(reasoning, answer):
    assert scores("steps_reward_func", [REASONING.format_reply(reasoning, answer)], "reasoning") == [1.0]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", REASONING.format_reply("3² + 4² is 5², and ½ is .5", "5")),
        ("ja", REASONING.format_reply("人々のデータ", "5")),
        ("zh", REASONING.format_reply("人々〇", "5")),
        ("zh", "<reasoning>\n中文"),
    ],
)
def test_a_text_in_one_language(language, text):
    func = replace(find_reward("language_reward_func"), settings={"language": language})
    assert func(completions=[text]) == [1.0]


@pytest.mark.parametrize(
    "text",
    ["5π", "5i", "5k", "5 pi", "5 dozen", "2 halves", "5 hundreds", "5 trillion", "5 squared", "5 over two"],
)
def test_a_word_that_changes_the_number_is_no_unit(text):
    assert to_number(text) is None


class Interrupted:
    """A stream whose reader is interrupted, as by Ctrl-C, before it has the reply."""

    def __init__(self, stream):
        self.stream = stream

    def readline(self):
        raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_an_interrupted_comparison_leaves_no_reply_for_the_next(monkeypatch):
    assert math_equal("1/2", "0.5")
    process = child._child("r1nb.rewards.mathematics:compare", "math_verify", os.getpid()).process
    with monkeypatch.context() as patch:
        patch.setattr(process, "stdout", Interrupted(process.stdout))
        with pytest.raises(KeyboardInterrupt):
            math_equal("1/2", "0.5")
    assert math_equal("1", "2") is False


EVALUATED = ["countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "spiral_matrix",
             "intermediate_integration", "string_insertion", "n_queens", "binary_matrix"]  # fmt: skip


@pytest.mark.parametrize("task", EVALUATED)
def test_an_answer_that_is_a_program_does_nothing(gym, task, tmp_path):
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
        for answer, score in (("-4", 1.0), ("-5", 0.0)):  # and the next score is that of the next answer
            assert (
                find_reward("gym_reward_func").score(
                    REASONING.format_reply("so", answer), problem="chain_sum:1"
                )
                == score
            )
    assert not trace.exists()


@pytest.mark.parametrize(("task", "answer"), [("countdown", "9**9**9"), ("coin_flip", "1e99999999")])
def test_an_answer_that_takes_for_ever_is_stopped(gym, task, answer, monkeypatch):
    monkeypatch.setattr("r1nb.rewards.gym.SECONDS", 3)
    score, reason = find_reward("gym_reward_func").explain(
        REASONING.format_reply("so", answer), problem=f"{task}:0"
    )
    assert (score, reason) == (0.0, f"{task} could not score the answer within 3 seconds")
