"""Generate word problems in GSM8K's format, for the bundled files and for the tiny policy's corpus.

    python data/make_problems.py      # writes data/problems/*.jsonl, always the same bytes

A *kind* is a story whose numbers are left open. A hash of kind and numbers alone assigns a problem to
the test, validation or training split. So a test problem cannot reach the training split or the corpus
with other names or another wording.
"""

import hashlib
import json
import operator
import random
import re
from dataclasses import dataclass
from pathlib import Path

NAMES = [
    "Ana",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gita",
    "Hugo",
    "Iris",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tara",
    "Uri",
    "Vera",
    "Will",
    "Yara",
    "Zoe",
]
ITEMS = [
    "apples",
    "books",
    "cards",
    "coins",
    "cookies",
    "eggs",
    "flowers",
    "marbles",
    "mugs",
    "oranges",
    "pears",
    "pencils",
    "pens",
    "plums",
    "shells",
    "stamps",
    "stickers",
    "toys",
]
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a // b if b and a % b == 0 else -1,  # -1: draw again
}


@dataclass(frozen=True)
class Kind:
    """A story: the ranges of its numbers, its wordings, and its steps.

    In a step, ``[c=a*b]`` computes c and is written as GSM8K writes it: ``4*6=<<4*6=24>>24``.
    """

    numbers: dict[str, tuple[int, int]]
    questions: tuple[str, ...]
    steps: tuple[str, ...]
    seen: bool = True  # False: pretraining sees this kind, GRPO never does


KINDS = {
    "packs": Kind(
        {"a": (2, 9), "b": (3, 19)},
        (
            "{N} buys {a} packs of {I}. Each pack holds {b} {I}. How many {I} does {N} have?",
            "There are {a} boxes with {b} {I} in each box. How many {I} are there in all?",
        ),
        ("There are [c=a*b] {I}.",),
    ),
    "share": Kind(
        {"a": (12, 99), "b": (2, 9)},
        (
            "{N} shares {a} {I} equally among {b} friends. How many {I} does each friend get?",
            "{N} puts {a} {I} into {b} bags, the same number in each. How many are in one bag?",
        ),
        ("Each gets [c=a/b] {I}.",),
    ),
    "eaten": Kind(
        {"a": (2, 9), "b": (3, 19), "c": (4, 50)},
        (
            "{N} has {a} bags with {b} {I} each and gives away {c} {I}. How many are left?",
            "{N} fills {a} shelves with {b} {I} each. Then {c} {I} are sold. How many remain?",
        ),
        ("At first there are [d=a*b] {I}.", "Then [e=d-c] {I} are left."),
    ),
    "loose": Kind(
        {"a": (2, 9), "b": (3, 19), "c": (4, 50)},
        (
            "{N} has {a} bags of {b} {I} and {c} loose {I}. How many {I} does {N} have in all?",
            "A shop gets {a} crates of {b} {I} and finds {c} more {I}. How many are there now?",
        ),
        ("The full ones hold [d=a*b] {I}.", "With the others that is [e=d+c] {I}."),
    ),
    "split_sum": Kind(
        {"a": (5, 60), "b": (5, 60), "c": (2, 9)},
        (
            "{N} has {a} {I} and finds {b} more, then shares them equally among {c} friends. "
            "How many {I} does each get?",
            "{N} has {a} {I} and {M} has {b}. They split all of them into {c} equal piles. "
            "How many {I} are in a pile?",
        ),
        ("Together there are [d=a+b] {I}.", "Each part has [e=d/c] {I}."),
    ),
    "times": Kind(
        {"a": (4, 30), "b": (2, 6)},
        (
            "{N} has {a} {I}. {M} has {b} times as many. How many {I} do they have together?",
            "{N} finds {a} {I} and {M} finds {b} times that number. How many is that in all?",
        ),
        ("{M} has [c=a*b] {I}.", "Together they have [d=a+c] {I}."),
    ),
    "change": Kind(
        {"a": (2, 9), "b": (3, 19), "c": (30, 99)},
        (
            "{N} buys {a} {I} at {b} dollars each and pays with {c} dollars. "
            "How many dollars does {N} get back?",
            "{N} has {c} dollars and buys {a} {I} for {b} dollars each. How much money is left?",
        ),
        ("The {I} cost [d=a*b] dollars.", "So [e=c-d] dollars are left."),
    ),
    "two_prices": Kind(
        {"a": (2, 9), "b": (2, 15), "c": (2, 9), "d": (2, 15)},
        (
            "{N} buys {a} {I} at {b} dollars each and {c} {J} at {d} dollars each. How much does {N} pay?",
            "One of the {I} costs {b} dollars, one of the {J} {d} dollars. {N} takes {a} {I} and "
            "{c} {J}. What is the total in dollars?",
        ),
        (
            "The {I} cost [e=a*b] dollars.",
            "The {J} cost [f=c*d] dollars.",
            "Together that is [g=e+f] dollars.",
        ),
    ),
    "savings": Kind(
        {"a": (3, 15), "b": (2, 9), "c": (5, 50), "d": (5, 50)},
        (
            "{N} saves {a} dollars a week for {b} weeks. {N} had {c} dollars before and spends {d} "
            "dollars. How many dollars does {N} have now?",
            "{N} starts with {c} dollars, earns {a} dollars a day for {b} days and spends {d} "
            "dollars. How much money does {N} have?",
        ),
        (
            "New money is [e=a*b] dollars.",
            "With the old money that is [f=e+c] dollars.",
            "After spending, [g=f-d] dollars are left.",
        ),
    ),
    "fewer": Kind(
        {"a": (10, 50), "b": (4, 40), "c": (2, 4)},
        (
            "{N} has {a} {I}. {M} has {b} fewer. {O} has {c} times as many as {M}. How many {I} do "
            "{M} and {O} have together?",
            "{M} picks {b} {I} fewer than {N}, who picks {a}. {O} picks {c} times what {M} picks. "
            "How many do {M} and {O} pick?",
        ),
        (
            "{M} has [d=a-b] {I}.",
            "{O} has [e=d*c] {I}.",
            "Together they have [f=d+e] {I}.",
        ),
    ),
    "bus": Kind(
        {"a": (20, 60), "b": (3, 30), "c": (3, 30), "d": (3, 30), "e": (3, 30)},
        (
            "A bus starts with {a} people. First {b} get off and {c} get on, then {d} get off and "
            "{e} get on. How many people are on the bus?",
            "A library has {a} visitors. {b} leave and {c} come, then {d} leave and {e} come. How "
            "many visitors are there?",
        ),
        (
            "First there are [f=a-b] people.",
            "Then there are [g=f+c] people.",
            "Then there are [h=g-d] people.",
            "At last there are [i=h+e] people.",
        ),
    ),
    "bakery": Kind(
        {"a": (3, 9), "b": (5, 20), "c": (2, 6), "d": (3, 9), "e": (2, 6)},
        (
            "A baker makes {a} trays of {b} {I} and sells {c} bags of {d} {I}. The rest is put "
            "into {e} equal boxes. How many {I} are in a box?",
            "{N} packs {a} crates of {b} {I}, ships {c} parcels of {d} {I} and shares the others "
            "among {e} friends. How many {I} does each get?",
        ),
        (
            "At first there are [f=a*b] {I}.",
            "Gone are [g=c*d] {I}.",
            "That leaves [h=f-g] {I}.",
            "Each part has [i=h/e] {I}.",
        ),
    ),
    # Kinds that GRPO never sees.
    "given": Kind(
        {"a": (20, 99), "b": (5, 90)},
        (
            "{N} has {a} {I} and gives {b} of them to {M}. How many {I} does {N} keep?",
            "Of {a} {I} in a shop, {b} are sold. How many {I} are not sold?",
        ),
        ("There remain [c=a-b] {I}.",),
        seen=False,
    ),
    "pages": Kind(
        {"a": (40, 99), "b": (3, 19), "c": (2, 7)},
        (
            "A book has {a} pages. {N} reads {b} pages a day for {c} days. How many pages are left?",
            "{N} must walk {a} miles and walks {b} miles a day for {c} days. How many are left?",
        ),
        ("Done are [d=b*c].", "Still left are [e=a-d]."),
        seen=False,
    ),
    "wages": Kind(
        {"a": (2, 9), "b": (2, 15), "c": (2, 9), "d": (2, 15)},
        (
            "{N} works {a} hours at {b} dollars an hour and {c} hours at {d} dollars an hour. "
            "How many dollars does {N} earn?",
            "{N} gets {b} dollars an hour for {a} hours and {d} dollars an hour for {c} hours. "
            "What is the pay in dollars?",
        ),
        (
            "The first job pays [e=a*b] dollars.",
            "The second job pays [f=c*d] dollars.",
            "The pay is [g=e+f] dollars.",
        ),
        seen=False,
    ),
    "garden": Kind(
        {"a": (3, 20), "b": (3, 20), "c": (2, 4)},
        (
            "A garden is {a} meters long and {b} meters wide. A fence costs {c} dollars a meter. "
            "How many dollars does a fence all around cost?",
            "{N} runs around a field of {a} by {b} meters, {c} times. How many meters is that?",
        ),
        (
            "One long and one wide side make [d=a+b] meters.",
            "All around it is [e=d*2] meters.",
            "In all that is [f=e*c].",
        ),
        seen=False,
    ),
}
SEEN = [kind for kind, spec in KINDS.items() if spec.seen]
UNSEEN = [kind for kind, spec in KINDS.items() if not spec.seen]
SIZES = {"train": 1500, "validation": 240, "test": 300, "test_unseen_kinds": 240}


def split_of(kind: str, numbers: tuple[int, ...]) -> str:
    """The split of a problem: 'test', 'validation' or 'train'. The order of the numbers does not matter."""
    digest = hashlib.sha256(f"{kind}:{sorted(numbers)}".encode()).digest()
    return {0: "test", 1: "validation"}.get(digest[0] % 12, "train")


@dataclass(frozen=True)
class Step:
    text: str  # "Then [] eggs are left.", where [] stands for the sum
    sum: str  # "24-5"
    value: int


@dataclass(frozen=True)
class Problem:
    kind: str
    numbers: tuple[int, ...]
    question: str
    steps: tuple[Step, ...]
    unit: str

    @property
    def value(self) -> int:
        return self.steps[-1].value

    def row(self) -> dict:
        """The problem as a row of GSM8K, with its kind."""
        lines = [s.text.replace("[]", f"{s.sum}=<<{s.sum}={s.value}>>{s.value}") for s in self.steps]
        answer = "\n".join(lines) + f"\n#### {self.value}"
        return {"question": self.question, "answer": answer, "kind": self.kind}


def draw(rng: random.Random, kind: str, split: str) -> Problem:
    """Draw a problem of a kind from a split; all its results are between 1 and 99."""
    spec = KINDS[kind]
    while True:
        values = {name: rng.randint(*bounds) for name, bounds in spec.numbers.items()}
        numbers = tuple(values.values())
        if split_of(kind, numbers) != split:
            continue
        steps = []
        for sentence in spec.steps:
            name, a, op, b = re.search(r"\[(\w)=(\w)([-+*/])(\w)\]", sentence).groups()
            left, right = values[a], values[b] if b in values else int(b)
            values[name] = OPERATORS[op](left, right)
            text = re.sub(r"\[.*?\]", "[]", sentence)
            steps.append(Step(text, f"{left}{op}{right}", values[name]))
        if all(0 < step.value < 100 for step in steps):
            break
    people = dict(zip("NMO", rng.sample(NAMES, 3), strict=True))
    items = dict(zip("IJ", rng.sample(ITEMS, 2), strict=True))
    words = values | people | items
    steps = tuple(Step(s.text.format(**words), s.sum, s.value) for s in steps)
    question = rng.choice(spec.questions).format(**words)
    unit = "dollars" if "dollar" in question else items["I"]
    return Problem(kind, numbers, question, steps, unit)


def bundled(split: str) -> list[Problem]:
    """The problems of a bundled file, with the kinds in turn; no question occurs twice."""
    rng = random.Random(f"r1nb {split}")
    kinds = UNSEEN if split == "test_unseen_kinds" else SEEN
    source = "test" if split.startswith("test") else split
    problems: dict[str, Problem] = {}
    while len(problems) < SIZES[split]:
        problem = draw(rng, kinds[len(problems) % len(kinds)], source)
        problems.setdefault(problem.question, problem)
    return list(problems.values())


def write(folder: Path, splits, bundled) -> None:
    """Write a file of JSON lines for each split, with the problems that bundled(split) returns."""
    folder.mkdir(exist_ok=True)
    for split in splits:
        lines = [json.dumps(problem.row()) + "\n" for problem in bundled(split)]
        (folder / f"{split}.jsonl").write_text("".join(lines))
        print(f"{split}: {len(lines)} problems")


if __name__ == "__main__":
    write(Path(__file__).parent / "problems", SIZES, bundled)
