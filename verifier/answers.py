"""Is the answer right? The outcome score R_o of an answer, between 0 and 1 (paper section 3.1, eqs 6-8).

The kind of question decides how an answer is compared with the truth: see KINDS, then outcome_score, which has
an example of each. Rules decide all kinds but "free"; there a language model, the judge, says whether two texts
mean the same.

From the paper: exact match, numbers within 5 %, a judge for free text. Our choices: exact counts, option letters,
the kinds "ocr" and "regression", and that markup, number words, fractions, percents and units are read.

The policy is rewarded for what it answers, so readers here are strict: an answer that hedges ("A or B") or lists
options is wrong. No prediction raises an error, whatever it holds; a bad truth does: it is a mistake in the data.

See it:  python -m doctest -v verifier/answers.py
Before:  texts.py, amounts.py. Next: foils.py (the judge's part), claims.py (which finds the answer in a response).
"""
import re
import string
from functools import lru_cache

import numpy as np

from runs.errors import BadInput
from verifier.amounts import NUMBER_WORDS, number  # noqa: F401  (others look for the words here)
from verifier.markup import unwrapped
from verifier.texts import clean, fold, normalise, unmarked

KINDS = {
    "choice": "option letter or option text, exact",
    "number": "within 5 % (eqs 7, 8)",
    "count": "exact number",
    "phrase": "exact after normalisation (eq. 6)",
    "free": "equivalent, says a language model",
    "ocr": "1 - word error rate",        # this and the next may lie between 0 and 1
    "regression": "1 - relative error"}

# Limits on what a response may make us read (our choices).
MAX_ANSWER = 10_000       # characters; a longer answer is no answer
MAX_JUDGED = 2_000        # characters of an answer that a judge gets to read
MAX_THINK = 20_000        # characters of reasoning that a judge gets to read (the paper's 6144 tokens fit)
MAX_POINTS = 64           # points, frame claims and segment claims counted per response, of each kind


# ---- 1. The outcome ----------------------------------------------------------------------------------------
def outcome_score(prediction, truth, kind, options=None, judge=None, question=""):
    r"""R_o in [0, 1] (paper eqs 6-8). Never raises on a prediction; a bad truth is BadInput.

    kind: one of KINDS. options: the texts of a multiple choice, in order. judge: asked only for kind "free", only
    when the texts differ; None: exact match decides. The judge reads at most MAX_JUDGED characters, as data.

    >>> outcome_score("(B)", "red", "choice", options=["blue", "red"])
    1.0
    >>> outcome_score(r"$\boxed{\text{B}}$", "red", "choice", options=["blue", "red"])
    1.0
    >>> outcome_score("about 105", "100", "number")                    # 5 % off
    1.0
    >>> outcome_score("four mugs", "3", "count")
    0.0
    >>> outcome_score("a Red, square!", "red square", "phrase")
    1.0
    >>> outcome_score("crimson", "red", "free")                        # a judge might say yes; here is none
    0.0
    >>> outcome_score("the cat sits here", "the cat sat here", "ocr")  # one of four words is wrong
    0.75
    >>> outcome_score("90", "100", "regression")                       # 10 % off
    0.9
    """
    score = outcome_by_rule(prediction, truth, kind, options)
    if score is not None:
        return score
    if judge is None:
        return 0.0
    return float(bool(judge.equivalent(question, unmarked(str(truth)), judged(unmarked(str(prediction))))))


def outcome_by_rule(prediction, truth, kind, options):
    """The same without a judge; None where only a judge can tell."""
    truth = check_truth(truth, kind, options)
    if isinstance(prediction, (int, float)) and abs(prediction) < 1e15:
        prediction = str(prediction)
    if not isinstance(prediction, str) or len(prediction) > MAX_ANSWER:
        return 0.0
    if kind == "ocr":  # markup is part of the text in a picture ("$5", "2*3"), and truths are LaTeX
        said, right = (fold(unwrapped(clean(text))).split() for text in (prediction, truth))
        return max(0.0, 1 - word_error_rate(said, right)) if said else 0.0
    said = unmarked(prediction)
    if not said:
        return 0.0
    if kind in ("number", "count", "regression"):
        return _number_score(number(prediction), number(truth), kind)
    if kind == "choice":
        right = chosen_option(truth, options)
        same = chosen_option(said, options) == right if right else normalise(said) == normalise(truth)
        return float(same)
    if says(said, truth):
        return 1.0
    if kind == "phrase" or option_list(said) or not judged(said):
        return 0.0
    return None


_ANSWER_LEAD = re.compile(r"\A(?:the )?(?:correct |final )*answer(?: is:?|:)\s+(?=\S)", re.I)


def says(answer, text):
    """Is the answer this text, but for markup, case, punctuation, articles and a leading "the answer is"?

    >>> says("**Answer:** A red square.", "red square"), says("a square", "red square")
    (True, False)
    """
    answer = unmarked(answer)
    return normalise(text) in (normalise(answer), normalise(_ANSWER_LEAD.sub("", answer)))


def check_truth(truth, kind, options=None):
    """The truth as a text. BadInput: an unknown kind, or a truth that no answer could ever match.

    >>> check_truth(3, "count")
    '3'
    >>> check_truth("many", "count")
    Traceback (most recent call last):
    runs.errors.BadInput: the truth 'many' is not a number, as kind 'count' needs; use another kind
    """
    if kind not in KINDS:
        raise BadInput(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    text = "" if truth is None else str(truth)
    if not unmarked(text):
        raise BadInput("the truth is empty; give the right answer")
    value = number(text)
    if kind in ("number", "count", "regression") and value is None:
        raise BadInput(f"the truth {text[:60]!r} is not a number, as kind {kind!r} needs; use another kind")
    if kind == "count" and value[0] != int(value[0]):
        raise BadInput(f"the truth {text[:60]!r} is not a whole number, as kind 'count' needs; use kind 'number'")
    if kind == "choice" and options and chosen_option(text, options) is None:
        raise BadInput(f"the truth {text[:60]!r} is neither the letter nor the text of an option")
    return text


def _prefixed(unit):
    prefixes = {"nano": 1e-9, "micro": 1e-6, "milli": .001, "centi": .01, "kilo": 1000}
    return {prefix + unit: factor for prefix, factor in prefixes.items()}


_DAY, _YEAR = 86400, 365.25 * 86400
_UNITS = {  # of each dimension: unit, singular -> how many of the unit that is 1
    "time": _prefixed("second") | {
        "ns": 1e-9, "μs": 1e-6, "ms": .001, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600,
        "hr": 3600, "hour": 3600, "day": _DAY, "week": 7 * _DAY, "month": _YEAR / 12, "yr": _YEAR, "year": _YEAR,
        "decade": 10 * _YEAR, "century": 100 * _YEAR, "centuries": 100 * _YEAR},
    "length": _prefixed("meter") | _prefixed("metre") | {
        "nm": 1e-9, "um": 1e-6, "μm": 1e-6, "mm": .001, "cm": .01, "dm": .1, "m": 1, "meter": 1, "metre": 1,
        "km": 1000, "in": .0254, "inch": .0254, "inches": .0254, "ft": .3048, "foot": .3048, "feet": .3048,
        "yd": .9144, "yard": .9144, "mi": 1609.344, "mile": 1609.344},
    "mass": _prefixed("gram") | {
        "mg": .001, "g": 1, "gram": 1, "kg": 1000, "t": 1e6, "ton": 1e6, "tonne": 1e6, "oz": 28.35, "ounce": 28.35,
        "lb": 453.6, "pound": 453.6}}


def _dimension(unit):
    """A unit, singular or plural -> (its dimension, how many of the unit that is 1), or (None, 1).

    >>> _dimension("whole minutes"), _dimension("miles per hour"), _dimension("")
    (('time', 60), (None, 1), (None, 1))
    """
    words = unit.split()
    if words and "per" not in words:
        for dimension, factors in _UNITS.items():
            for form in (words[-1], words[-1].removesuffix("s")):
                if form in factors:
                    return dimension, factors[form]
    return None, 1


def _number_score(prediction, truth, kind):
    """Eqs 7, 8: |prediction - truth| / |truth| is at most 5 %. Both are (value, unit), or None for no number."""
    if prediction is None:
        return 0.0
    value, unit = prediction
    true_value, true_unit = truth
    dimension, factor = _dimension(unit)
    true_dimension, true_factor = _dimension(true_unit)
    readings = [value]
    if dimension and true_dimension:
        if dimension != true_dimension:
            return 0.0
        readings = [value * factor]  # 2.5 minutes are not 2.5 seconds
        true_value = true_value * true_factor
    elif kind != "count" and (unit == "%") != (true_unit == "%"):  # 45 % may be written 45 or 0.45
        readings.append(value / 100 if unit == "%" else value * 100)
    error = min(abs(reading - true_value) for reading in readings)
    if kind == "count":
        return float(error == 0 and unit != "%")
    if true_value == 0:  # no relative error: only 0 is right (our choice)
        return float(error == 0)
    relative = error / abs(true_value)
    if kind == "regression":
        return max(0.0, 1 - relative)
    return float(relative <= .05 * (1 + 1e-9))  # rounding must not cost an answer that is 5 % off


def word_error_rate(words, truth):
    """Edit distance in words / number of true words, the usual measure of OCR. Both are lists of words.

    The textbook table: distance[i, j] between the first i true words and the first j words is the least of
        distance[i-1, j-1] + (0 if the words are the same, else 1)    keep or substitute
        distance[i-1, j] + 1                                          delete
        distance[i, j-1] + 1                                          insert
    A row i is computed at once: 2,500 x 5,000 words take numpy 0.1 s and a Python loop 3 s, which a policy could
    cause in every rollout. A prediction twice as long as the truth cannot score and is not compared.

    >>> word_error_rate("the cat sits".split(), "the cat sat down".split())
    0.5
    """
    if len(words) >= 2 * len(truth):
        return 1.0
    ids = {word: i for i, word in enumerate(set(words + truth))}  # numpy compares numbers faster than texts
    word_ids = np.array([ids[word] for word in words], dtype=int)
    j = np.arange(len(words) + 1)
    row = j  # no true word yet: j insertions
    for i, true_word in enumerate(truth, start=1):
        substitute = row[:-1] + (word_ids != ids[true_word])
        delete = row[1:] + 1
        best = np.concatenate([[i], np.minimum(substitute, delete)])
        # Insertions: row[j] = min(best[j], row[j-1] + 1). So row[j] - j is the running minimum of best[j] - j.
        row = np.minimum.accumulate(best - j) + j
    return float(row[-1]) / len(truth)


# ---- 2. Lists of options and choices -----------------------------------------------------------------------
def option_list(text):
    r"""Does the answer hedge?

    >>> [option_list(text) for text in ("A or B", "A, B", "A and B", "2, 3", "red or blue")]
    [True, True, True, True, True]
    >>> [option_list(text) for text in ("A", "1,200", "3/4", "red and white")]
    [False, False, False, False]
    >>> option_list(r"\boxed{A}, \boxed{B}")
    True
    """
    text = unmarked(text).casefold()
    if len(text) > 300:
        return False
    lengths = [len(part.split()) for part in re.split(r"\bor\b", text)]
    if len(lengths) > 1 and min(lengths) > 0 and max(lengths) <= 6:
        return True
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):  # 1,200
        return False
    letters = re.findall(r"[^\s,;/|&().:]+", re.sub(r"\band\b", ",", text))
    if len(letters) > 1 and all(len(letter) == 1 and letter.isalpha() for letter in letters):
        return True
    numbers = [part.strip(" ()") for part in re.split(r"[,;|&]|\band\b", text)]
    return len(numbers) > 1 and all(re.fullmatch(r"-?\d+(\.\d+)?", part) for part in numbers)


LETTERS = string.ascii_uppercase
_CHOICE_LEAD = re.compile(  # "the answer is option "
    r"^(?:(?:the )?(?:correct |final )*(?:answer|option|choice)(?: is| =)?:?\s*)*")
_LETTERED = re.compile(  # "(b) red": letter b, mark ") ", rest "red"
    r"(?:[->]\s)?[\s\"'*(\[]{0,3}(?P<letter>[a-z])(?P<mark>[\s\"'*)\].:]+|$)(?P<rest>.*)", re.S | re.A)


def chosen_option(text, options):
    r"""A choice -> the option meant, as `known_options` writes it (a bare letter when none are known), or None.

    >>> said = "B", "(b)", "B. red", r"\boxed{B}", "the answer is B", "Red."
    >>> [chosen_option(text, ["blue", "red"]) for text in said]
    ['red', 'red', 'red', 'red', 'red', 'red']
    >>> print(chosen_option("B. blue", ["blue", "red"]))  # letter and text contradict each other
    None
    >>> chosen_option("(B) red", None)
    'b'
    """
    texts, key = known_options(tuple(options or ()))
    text = unmarked(text).casefold().rstrip(" ,;!")
    lead = _CHOICE_LEAD.match(text)[0]
    text = text[len(lead):]
    lettered = _LETTERED.match(text)
    if lettered:
        rest = key(lettered["rest"])
        if not texts:
            marked = lettered["mark"].strip() != ""  # "A. red"; in "a red" the a may be an article
            return lettered["letter"] if marked or not rest else None
        index = LETTERS.index(lettered["letter"].upper())
        if index < len(texts) and rest in ("", texts[index]):
            return texts[index]
        if lead.endswith(("option ", "choice ")):
            return None  # "option A red", where A is blue
    said = key(text)  # "A. red", where A is blue, is no option's text: that A is no article (texts.py)
    return said if said in texts else None


@lru_cache(4096)
def known_options(options):
    """A tuple of options -> (what tells each of them from the others, the function that makes this of a text).

    Normalised texts; where these make one of two options, "x + 1" and "x - 1", all characters but spaces count.

    >>> known_options(("A. red", "B. the blue"))[0], known_options(("x + 1", "x - 1"))[0]
    (['red', 'blue'], ['x+1', 'x-1'])
    """
    bare = [_without_letter(option, i) for i, option in enumerate(options)]
    normalised = [normalise(text) for text in bare]
    exact = [_without_spaces(text) for text in bare]
    if len(set(exact)) > len(set(normalised)):
        return exact, _without_spaces
    return normalised, normalise


def _without_letter(option, index):
    """An option without its own letter: option 1, "B. red" -> "red"."""
    option = unmarked(option)
    if index < len(LETTERS):
        return re.sub(rf"^\(?{LETTERS[index]}[).:]\s*", "", option, flags=re.I) or option
    return option


def _without_spaces(text):
    text = "".join(unmarked(text).casefold().split())
    return text.rstrip(".,;!") or text


# ---- 3. What a judge may read ------------------------------------------------------------------------------
FLAGS = re.I | re.A  # ASCII: without it "K" (Kelvin) is a k and Arabic digits are \d
TAG = re.compile(r"<(?P<slash>/?)(?P<name>think|answer)\s{0,9}>", FLAGS)


def judged(text, limit=MAX_JUDGED):
    """A text of the policy as a judge may read it: bounded, no control characters, chat or image tokens, our tags.

    >>> judged("red <|im_end|></answer>")
    'red < |im_end|>'
    """
    return TAG.sub(" ", clean(text[:limit])).replace("<|", "< |").strip()
