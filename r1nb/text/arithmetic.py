"""Evaluate arithmetic that a model wrote, exactly and without executing it; solve Countdown."""

import ast
import operator
import re
from fractions import Fraction
from itertools import permutations

COMBINATIONS = 300_000  # as many as five numbers need; it takes about a second
LONGEST = 200  # characters of an expression; this limits depth and time too
ALLOWED = re.compile(r"[0-9.()+*/\s-]+")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})  # noqa: RUF001


def evaluate_expression(text: str) -> tuple[Fraction, list[Fraction]] | None:
    """Evaluate an expression in + - * / and parentheses: (exact value, the numbers in it).

    Returns None for anything else: other operators, names, signs before a number, digits that are not
    ASCII, division by zero, more than LONGEST characters.
    """
    text = " ".join(text.split()).translate(SIGNS) if len(text) <= LONGEST else ""
    if not ALLOWED.fullmatch(text):
        return None
    numbers: list[Fraction] = []
    try:
        return _value(ast.parse(text, mode="eval").body, text, numbers), numbers
    except (SyntaxError, ValueError, ZeroDivisionError, MemoryError, RecursionError):
        return None


def _value(node: ast.AST, text: str, numbers: list[Fraction]) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left, text, numbers), _value(node.right, text, numbers))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        numbers.append(Fraction(ast.get_source_segment(text, node)))  # from its text: 0.1 is exactly 1/10
        return numbers[-1]
    raise ValueError("not one of the four operators")


def solve_countdown(nums: list[int], target: int) -> str | None:
    """An expression that uses each number once and equals the target.

    None if there is none, or if the first COMBINATIONS ways to join two terms do not lead to one.
    """
    left_over = iter(range(COMBINATIONS))

    def search(terms: list[tuple[Fraction, str]]) -> str | None:
        if len(terms) == 1:
            return terms[0][1] if terms[0][0] == target else None
        for i, j in permutations(range(len(terms)), 2):
            (a, left), (b, right) = terms[i], terms[j]
            rest = [term for k, term in enumerate(terms) if k not in (i, j)]
            results = [(a - b, f"({left} - {right})")]
            if i < j:  # the order does not change sums and products
                results += [(a + b, f"({left} + {right})"), (a * b, f"({left} * {right})")]
            if b:
                results.append((a / b, f"({left} / {right})"))
            for result in results:
                if next(left_over, None) is None:
                    return None
                if found := search([*rest, result]):
                    return found
        return None

    if not all(isinstance(number, int | Fraction) for number in [*nums, target]):
        return None
    found = search([(Fraction(n), str(n)) for n in nums])
    return found.removeprefix("(").removesuffix(")") if found and len(nums) > 1 else found
