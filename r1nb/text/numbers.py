"""Read numbers from text and compare answers, for rewards and evaluation."""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction

MINUS = str.maketrans(dict.fromkeys("‐‑‒–—―−⁻﹣－", "-"))  # noqa: RUF001
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
CURRENCY = r"(?:(?:US|C|A|R|NZ|HK)?\\?[$€£¥₹₩₽₺₫฿])"
NUMBER = re.compile(
    rf"(-?){CURRENCY}?\s*(-?)({DIGITS}(?:\.[0-9]+)?|\.[0-9]+)\.?"  # $-5, -$5, 1,080.50, .5, 72.
    rf"\s*(?:%|°[CFK]?|{CURRENCY})?(\s*[^\d,;=]*)"  # a unit in words: 18 eggs, 5 km/h
)
SYMBOL = (  # 5 m and 5 kg, but 5M is five million, and 5x and 5ab are products
    r"(?:[kcdmnμµ]?m|[km]?g|[cdm]?[lL]|[mn]?s|h|hr|lb|oz|ft|in|mi|yd|sq|cu|ha|us|US|KG|KM|CM"
    r"|k[WV]|[KMG]B|Hz|st|nd|rd|th)"
)
UNCASED = r"[\u0e00-\u0eff\u3040-\u9fff\uac00-\ud7af]"  # Thai, Japanese, Chinese, Korean
WORD = rf"(?:{SYMBOL}(?:[²³]|\b)|(?:of|an?|at|on)\b(?=\W+\w)|[A-Z](?=-\w{{3}})|[^\W\d_]{{3,}}|{UNCASED}+)"
UNIT = re.compile(rf"[^\S\n]*{WORD}(?:(?: */ *| \(|[-'’]| +){WORD}){{0,4}}\)?[.!]?")  # noqa: RUF001
PART = (  # a fraction: 2 thirds, 1 third cup, 5 hundredths; not 20 third graders, 3 seconds, 5 months
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+teenth|\w+tieth"
    r"|hundredth|thousandth|\w+illionth|\w+ty-(?:first|second))"
)
SCALE = (  # in words, also of other languages
    r"(?:tens|dozens?|hundreds?|thousands?|thou|\w+illions?|lakhs?|lacs?|crores?|grand|bil|mi[lo]|mrd|mille"
    r"|millones|millionen|milliarden?|tausend|dutzend|тыс\w*|млн|млрд|милли\w+|[만억천백십])"
)
ONES = "(?:one|two|three|four|five|six|seven|eight|nine)"
NUMERAL = (  # a second number; but 20 twenty-second ads
    rf"(?<!-)(?:zero|{ONES}|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    rf"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:-{ONES})?)(?!-)"
)
NO_UNIT = re.compile(  # "41 or more", "5 million" and "10 minus two" are not 41, 5 and 10
    r"\b(?:and|not|nope|wrong|never|but|maybe|perhaps|either|versus|through|thru|until|till|below|negative"
    r"|minus|plus|times|twice|doubled|out|squared|cubed|factorial|point|comma|dot|dash|divided|multiplied"
    r"|increased|decreased|raised|over|mod|base|root|sqrt|log|sin|cos|tan|theta|phi|tau|alpha|beta|less"
    r"|remainder|half|halves|quarters?|approximately|loss|debt|ish|oder|und|или"
    rf"|{SCALE}|{NUMERAL}|{PART}s|{PART}(?=\W*$|\s+of\b)|(?<=^1 ){PART})\b",
    re.IGNORECASE,
)
SEPARATOR = r"(?:\s*\{\\?,\}\s*|,?\s*\\!|\\[,:;> ]|\\thinspace\s*|[~'’\u00a0\u2007\u2009\u202f])"  # noqa: RUF001
GROUPED = re.compile(rf"(?<![0-9.])[1-9][0-9]{{0,2}}(?:{SEPARATOR}[0-9]{{3}})+(?![0-9])")  # 9{,}500, 9'500
SPACE = r"(?:[^\S\n]|~|\\[,:;! ])"
DECIMAL = rf"(?:{DIGITS}(?:\.[0-9]+)?|(?<![.\w])\.[0-9]+)"
LATEX = r"\\[dtc]?frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
RATIO = rf"{DIGITS}{SPACE}*/{SPACE}*{DIGITS}(?![0-9]|[.,][0-9])"
TIMES = r"\s*(?:\\times|\\cdot|[×·*x])\s*"  # noqa: RUF001
POWER = r"\s?\^\s?(?:\{\s*[+-]?[0-9]+\s*\}|[+-]?[0-9]+)"
MIXED = re.compile(
    rf"(?<![\w.^/])(?P<whole>{DIGITS})(?P<part>{SPACE}*{LATEX}|{SPACE}+{RATIO}(?!\w))"  # 2\frac{2}{3}, 2 2/3
)
VALUE = re.compile(  # sign, whole, fraction; or sign, decimal, exponent; or sign, exponent of ten
    rf"([+-]?)\s*(?:(?:({DIGITS})\s+)?({RATIO})"
    rf"|({DECIMAL})(?:[eE]([+-]?[0-9]{{1,4}})|(?:{TIMES}10({POWER}))?)|10({POWER}))\s*(?:\\?%)?"
)
SIGN = r"(?:(?<!\w)-|(?:(?<=[=:({*])|(?<=\bis)) ?- |\b(?:minus|negative) |[<≤≥≠±] ?|(?<![-=])> ?)"
ATTACHED = (  # x^2, x/2, √2, \sqrt{2}: what stands before a number and changes it
    r"(?:[\w)}\]](?:\*\*?|[/_^×·÷])|√|∛|\\sqrt(?:\[[0-9]+\])?|0x)[({]?-?"  # noqa: RUF001
)
LAST = re.compile(  # of 1/2, 2 2/3, 1e-7, 7^2, 1.234,56 and 9 500, the end alone is not a number
    rf"(?:(?:(?:{SIGN}(?:\\,|[({{])?)?(?:{CURRENCY} ?)?|{ATTACHED})"
    rf"(?:(?:{DIGITS}{SPACE}*)?{LATEX}|(?:{DIGITS}{SPACE}+)?{RATIO}"
    rf"|[1-9][0-9]{{0,2}}(?: [0-9]{{3}})+(?![0-9])"
    rf"|(?:[0-9]+(?:[.,_'][0-9]+)*|(?<![.\w])\.[0-9]+)(?:[eE][+-]?[0-9]+|(?:{TIMES}10)?{POWER})*)"
    rf"|\\\w*(?:frac|binom)\s*\{{[^{{}}]*\}}\s*\{{[^{{}}]*\}})"
    rf"(?:(?:[/^_:÷]| : |\*\*)(?:\{{[^{{}}]*\}}|\(?-?(?:[0-9]+|\w\b))"
    rf"|\.(?:\([0-9]|\\\w+\{{[0-9])|[₀-₉]|π|\\pi)*(?:\s?(?:{SCALE}|[bmt]n)\b|[kKMBT](?![\w&-]))?"
)
LONGEST = 100  # characters; a longer answer is prose, not a number


def plain(text: str) -> str:
    """The text with ASCII minus signs and without LaTeX's separators: 9{,}500 is 9500, and 1{,}5 is 1.5."""
    text = GROUPED.sub(lambda number: re.sub("[^0-9]", "", number[0]), text.translate(MINUS))
    return re.sub(r"(?<=[0-9])\{,\}(?=[0-9])", ".", text)


def to_number(text: str) -> Decimal | None:
    """The number that the whole text states, or None if it does not state exactly one.

    Apart from ASCII digits, the text may have a sign, a currency symbol, commas or LaTeX's separators between
    thousands, a full stop at the end, % and a unit in words. "41 or 42", "1e9", "NaN" and very long texts are
    not numbers.
    """
    if len(text := text.strip()) > LONGEST or not (match := NUMBER.fullmatch(plain(text))):
        return None
    before, after, digits, unit = match.groups()
    money = re.search(CURRENCY, text) and len(unit.strip()) < 3  # $5m is five million
    if (before and after) or (unit.strip() and (money or not is_unit(unit, digits))):
        return None
    return Decimal(before + after + digits.replace(",", ""))


def is_unit(words: str, digits: str = "") -> bool:
    """Whether words after a number leave its value as it is: at most five, without scale or second number."""
    words = re.sub(r"\.(?=\W|$)|(?<=\b\w)\.", "", words.rstrip())  # sq. ft, p.m.
    plain_words = re.sub(rf"\b{SYMBOL}[²³]", "", words)
    counted = any(unicodedata.numeric(letter, None) is not None for letter in plain_words)  # 5万, ½
    return bool(UNIT.fullmatch(words)) and not counted and not NO_UNIT.search(f"{digits} {words.strip()}")


def is_integer(text: str) -> bool:
    """Whether a text is only an integer: true for 72, -5 and 1,080; false for 72.0, 18 eggs and ²."""
    text = text.strip()
    return len(text) <= LONGEST and re.fullmatch(f"-?{DIGITS}", plain(text)) is not None


def to_value(text: str) -> Decimal | Fraction | None:
    r"""The exact value that the whole text states: as to_number, or a fraction, 2 2/3, 1e9, 3 \times 10^{8}.

    A fraction is a Fraction, any other number a Decimal; 50% is 50. None if the text states something else.
    """
    number = to_number(text)
    if number is not None or len(text) > LONGEST:
        return number
    text = re.sub(LATEX, lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", spell_out(text))
    if not (match := VALUE.fullmatch(re.sub(SPACE, " ", text).strip())):
        return None
    sign, whole, ratio, decimal, *exponents = (re.sub(r"[,\s{}^]", "", part or "") for part in match.groups())
    if ratio:
        top, bottom = map(int, ratio.split("/"))
        return int(f"{sign}1") * (int(whole or 0) + Fraction(top, bottom)) if bottom else None
    exponent = "".join(exponents) or "0"
    return Decimal(f"{sign}{decimal or 1}e{exponent}") if len(exponent) <= 5 else None


def spell_out(text: str) -> str:
    """The text as `plain` returns it, with 1/2 for ½ and 10^{-3} for 10⁻³."""

    def ascii_digits(characters: str) -> str:
        return unicodedata.normalize("NFKC", characters)

    text = re.sub("(?<=[0-9])(⁻?)([⁰¹²³⁴-⁹]+)", lambda m: f"^{{{m[1]}{ascii_digits(m[2])}}}", text)
    text = re.sub(r"(?<=\w)\s?(?=[¼-¾⅐-⅞])", " ", text)  # 2½ is 2 1/2
    text = re.sub("[¼-¾⅐-⅞]", lambda m: ascii_digits(m[0]), text)
    return plain(text).replace("⁄", "/")  # noqa: RUF001


def same_value(a: Decimal | Fraction, b: Decimal | Fraction) -> bool:
    """Whether two values are equal; 0.333333 equals 1/3.

    A decimal equals a fraction if it is the fraction, rounded or cut after at least six places, of which it
    shows five from the first digit that is not 0.
    """
    if isinstance(a, Decimal) and isinstance(b, Decimal):
        return a == b  # Python compares decimals exactly
    one, other = Fraction(a), Fraction(b)
    decimal = next((value for value in (a, b) if isinstance(value, Decimal)), None)
    if one == other or decimal is None:
        return one == other
    _, digits, exponent = decimal.as_tuple()
    rest = abs(other if decimal is a else one) - abs(Fraction(decimal))
    close = one * other > 0 and -1 <= 2 * rest / Fraction(10) ** exponent < 2
    return close and exponent <= -6 and len(digits) >= 5


def same_answer(given: str, gold: str) -> bool:
    """Whether two answers are equal: as numbers if the gold is a number, or else as text.

    The comparison of text ignores case and the amount of white space. An empty gold equals nothing.
    """
    given, gold = (text.strip().removeprefix("**").removesuffix("**") for text in (given, gold))  # bold
    number = to_number(gold)
    if number is not None:
        return to_number(given) == number
    return bool(gold.strip()) and given.casefold().split() == gold.casefold().split()


def last_number(text: str) -> str | None:
    """The last number anywhere in a text, or None. Lenient grading takes it as the answer."""
    text = re.sub(r"</?\w+>", " ", re.sub(r"\s[–—]\s", "  ", text))  # noqa: RUF001 tags; a dash is no sign
    matches = list(LAST.finditer(spell_out(text)))
    return matches[-1].group().strip() if matches else None
