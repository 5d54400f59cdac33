"""Is the answer right? The outcome score R_o of an answer, between 0 and 1 (paper section 3.1, eqs 6-8).

The kind of question decides how an answer is compared with the truth: see KINDS, then outcome_score, which has
an example of each. Rules decide all kinds but "free"; there a language model, the judge, says whether two texts
mean the same.

From the paper: exact match, numbers within 5 %, a judge for free text. Our choices: exact counts, option letters,
the kinds "ocr" and "regression", and that number words, fractions, percents and units of time are read.

The policy is rewarded for what it answers, so readers here are strict: an answer that hedges ("A or B") or lists
options is wrong. No prediction raises an error, whatever it holds; a bad truth does: it is a mistake in the data.

See it:  python -m doctest -v verifier/answers.py        Next: claims.py, which finds the answer in a response.
"""
import re
import string
import unicodedata

import numpy as np

from runs.errors import BadInput

KINDS = {
    "choice": "option letter or option text, exact",
    "number": "within 5 % (eqs 7, 8)",
    "count": "exact number",
    "phrase": "exact after normalisation (eq. 6)",
    "free": "equivalent, says a language model",
    "ocr": "1 - word error rate",
    "regression": "1 - relative error"}
PARTIAL = ("ocr", "regression")  # kinds whose outcome may lie between 0 and 1

# Limits on what a response may make us read (our choices).
MAX_ANSWER = 10_000       # characters; a longer answer is no answer
MAX_JUDGED = 2_000        # characters of an answer that a judge gets to read
MAX_THINK = 20_000        # characters of reasoning that a judge gets to read (the paper's 6144 tokens fit)
MAX_POINTS = 64           # points, frame claims and segment claims counted per response, of each kind


# ---- 1. The outcome ----------------------------------------------------------------------------------------
def outcome_score(prediction, truth, kind, options=None, judge=None, question=""):
    """R_o in [0, 1] (paper eqs 6-8). Never raises on a prediction; a bad truth is BadInput.

    kind: one of KINDS. options: the texts of a multiple choice, in order. judge: asked only for kind "free", only
    when the texts differ; None: exact match decides. The judge reads at most MAX_JUDGED characters, as data.

    >>> outcome_score("(B)", "red", "choice", options=["blue", "red"])
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
    return float(bool(judge.equivalent(question, str(truth), judged(str(prediction)))))


def outcome_by_rule(prediction, truth, kind, options):
    """The same without a judge; None where only a judge can tell."""
    truth = check_truth(truth, kind, options)
    if isinstance(prediction, (int, float)) and abs(prediction) < 1e15:
        prediction = str(prediction)
    if not isinstance(prediction, str) or len(prediction) > MAX_ANSWER or not clean(prediction).strip():
        return 0.0
    if kind == "ocr":
        return max(0.0, 1 - word_error_rate(fold(prediction).split(), fold(truth).split()))
    if kind in ("number", "count", "regression"):
        return _number_score(number(prediction), number(truth), kind)
    same_text = normalise(prediction) == normalise(truth)
    if kind == "choice":
        right = chosen_option(truth, options)
        return float(chosen_option(prediction, options) == right) if right else float(same_text)
    if same_text:
        return 1.0
    if kind == "phrase" or option_list(prediction) or not judged(prediction):
        return 0.0
    return None


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
    if not clean(text).strip():
        raise BadInput("the truth is empty; give the right answer")
    value = number(text)
    if kind in ("number", "count", "regression") and value is None:
        raise BadInput(f"the truth {text[:60]!r} is not a number, as kind {kind!r} needs; use another kind")
    if kind == "count" and value[0] != int(value[0]):
        raise BadInput(f"the truth {text[:60]!r} is not a whole number, as kind 'count' needs; use kind 'number'")
    if kind == "choice" and options and chosen_option(text, options) is None:
        raise BadInput(f"the truth {text[:60]!r} is neither the letter nor the text of an option")
    return text


_SECONDS = {"ms": .001, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


def _seconds_per(unit):
    """How many seconds a unit of time has, singular or plural; None: not a unit of time."""
    singular = unit if unit in _SECONDS else unit.rstrip("s")
    return _SECONDS.get(singular)


def _number_score(prediction, truth, kind):
    """Eqs 7, 8: |prediction - truth| / |truth| is at most 5 %. Both are (value, unit), or None for no number."""
    if prediction is None:
        return 0.0
    value, unit = prediction
    true_value, true_unit = truth
    seconds, true_seconds = _seconds_per(unit), _seconds_per(true_unit)
    readings = [value]
    if seconds and true_seconds:  # 2.5 minutes are not 2.5 seconds
        readings = [value * seconds]
        true_value = true_value * true_seconds
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


# ---- 2. Texts that mean the same ---------------------------------------------------------------------------
_WORD = re.compile(r"-?\d+(?:\.\d+)?"  # -2.5, or anything but spaces and punctuation
                   r"|[^\s!-/:-@\[-`{-~¡-¿\u2010-\u205e\u3000-\u303f]+")


def normalise(text):
    """Case, punctuation, articles and spaces removed; a text of nothing but these is kept as it is ("A", "+").

    >>> normalise("The Red-Square, at 2.5!")
    'red square at 2.5'
    """
    text = fold(text)
    words = _WORD.findall(text)
    content = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(content or words) or text


def fold(text):
    """Full-width and composed characters to plain ones, lower case.

    >>> fold("Ｎｏ 1½")
    'no 1 1/2'
    """
    # Unicode's NFKC alone would join raised and fraction digits to their neighbours: 1½ to 11/2, 10² to 102.
    text = re.sub(r"([¼-¾⅐-⅞])", r" \1", clean(text))
    text = re.sub(r"[²³¹⁰-₉]", "^", text)
    text = unicodedata.normalize("NFKC", text).casefold()
    return text.replace("⁄", "/").replace("−", "-").strip()


def clean(text):
    """Drop control, zero-width, bidirectional and surrogate characters (Unicode categories C*), not line breaks.

    >>> clean("re\\u200bd")          # a zero-width space
    'red'
    """
    if text.isascii() and text.isprintable():
        return text
    kept = [c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C"]
    return "".join(kept).replace("\t", " ").replace("\r", " ")


# ---- 3. Texts that are one number --------------------------------------------------------------------------
_UP_TO_NINETEEN = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                   "sixteen seventeen eighteen nineteen").split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = dict(zip(_UP_TO_NINETEEN, range(20)))
NUMBER_WORDS["none"] = 0
NUMBER_WORDS.update(zip(_TENS, range(20, 100, 10)))
_SCALE = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9}

_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?![\d,])|\d{1,20})(?:\.\d{1,20})?|\.\d{1,20}"  # 1,200.5 or 1200.5 or .5
_NUMBER = re.compile(
    r"(?:(?P<whole>\d{1,9})\s+(?=\d+\s*/))?"         # the 1 of "1 3/4"
    rf"(?P<value>(?:{_DIGITS})(?:e[-+]?\d{{1,2}})?)"  # the 3, or all of "1.5e3"
    r"(?:\s*/\s*(?P<denominator>\d{1,20}))?"         # the 4
    r"(?!\d|[.,/]\d)", re.A)                         # 1.2.3 and 1/2/3 are no numbers
_LEAD = re.compile(r"(?:(?:the )?(?:final )?answer(?: is)?:?|there (?:is|are)"  # "the answer is: ", "about "
                   r"|about|around|approximately|roughly|exactly|[=~≈])\s*")
_SIGN = re.compile(r"[-+]|minus |negative ")
_HEDGE = {"or", "and", "to", "of", "not", "no", "but", "than", "plus", "minus", "times", "maybe", "hundred"}
_HEDGE.update(NUMBER_WORDS, _SCALE)
_UNIT = re.compile(r"[^\W\d_](?:[^\W\d_]|[°/^-]){0,20}[23]?|[°%'\"$€£¥]")  # "squares", "km/h", "m^2", "%"


def number(text):
    """A text that is one number -> (value, unit), else None.

    >>> number("about 2.5 seconds"), number("-1,200"), number("45 %"), number("1 3/4"), number("twenty-one")
    ((2.5, 'seconds'), (-1200.0, ''), (45.0, '%'), (1.75, ''), (21.0, ''))
    >>> number("2 or 3"), number("none of 3"), number("1.2.3")
    (None, None, None)
    """
    if len(text) > 200:
        return None
    text = fold(text)
    for _ in range(2):  # "the answer is" and "about"
        lead = _LEAD.match(text)
        if lead:
            text = text[lead.end():]
    sign = _SIGN.match(text)
    if sign:
        text = text[sign.end():]
    text = text.lstrip("$€£¥ ")
    digits = _NUMBER.match(text)
    if digits:
        value = _digits_value(digits)
        words = text[digits.end():].strip(" .,!").replace("%", " % ").split()
    else:
        value, words = _number_words(text.strip(" .,!").replace("-", " ").split())
    if value is None:
        return None
    if words and words[0] in _SCALE:  # 5 million
        value *= _SCALE[words.pop(0)]
    # What follows may be a unit of up to three words, nothing that hedges ("2 or more") or counts on ("2 three").
    if len(words) > 3 or any(word in _HEDGE or not _UNIT.fullmatch(word) for word in words):
        return None
    if sign and sign[0] != "+":
        value = -value
    return value, " ".join(words)


def _digits_value(digits):
    """The value of a match of _NUMBER; None: a division by zero."""
    value = float(digits["value"].replace(",", ""))
    if digits["denominator"] is None:
        return value
    denominator = float(digits["denominator"])
    if denominator == 0:
        return None
    return value / denominator + float(digits["whole"] or 0)


def _number_words(words):
    """Leading number words -> (value, the words left), or (None, []): twenty one mugs -> (21.0, [mugs])."""
    total = 0  # what is complete: the 3000 of three thousand and five
    part = 0   # what still grows: the five
    used = 0   # words
    for word in words:
        if word in NUMBER_WORDS:
            ends_in_tens = part % 100 >= 20 and part % 10 == 0
            completes = ends_in_tens and 0 < NUMBER_WORDS[word] < 10  # the one of twenty-one
            if part % 100 and not completes:
                return None, []  # "two three" is two numbers
            part += NUMBER_WORDS[word]
        elif word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in _SCALE and part:
            total += part * _SCALE[word]
            part = 0
        elif word != "and" or not used:
            break
        used += 1
    if not used:
        return None, []
    return float(total + part), words[used:]


# ---- 4. Lists of options and choices -----------------------------------------------------------------------
def option_list(text):
    """Does the answer hedge?

    >>> [option_list(text) for text in ("A or B", "A, B", "A and B", "2, 3", "red or blue")]
    [True, True, True, True, True]
    >>> [option_list(text) for text in ("A", "1,200", "3/4", "red and white")]
    [False, False, False, False]
    """
    text = fold(text)
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
    r"^(?:(?:the )?(?:correct |final )*(?:answer|option|choice)(?: is)?:?\s*)+")
_LETTERED = re.compile(  # "(b) red": letter b, mark ") ", rest "red"
    r"[\s\"'*(\[]{0,3}(?P<letter>[a-z])(?P<mark>[\s\"'*)\].:]+|$)(?P<rest>.*)", re.S | re.A)


def chosen_option(text, options):
    """A choice -> the normalised text of the option meant (or the bare letter when no options are known), or None.

    >>> [chosen_option(text, ["blue", "red"]) for text in ("B", "(b)", "B. red", "the answer is B", "Red.")]
    ['red', 'red', 'red', 'red', 'red']
    >>> print(chosen_option("B. blue", ["blue", "red"]))  # letter and text contradict each other
    None
    >>> chosen_option("(B) red", None)
    'b'
    """
    text = _CHOICE_LEAD.sub("", fold(text))
    lettered = _LETTERED.match(text)
    options = options or []
    texts = [_option_text(option, i) for i, option in enumerate(options)]
    if lettered:
        rest = normalise(lettered["rest"])
        marked = lettered["mark"].strip() != ""  # "A. red"; in "a red" the a may be an article
        if not options:
            return lettered["letter"] if marked or not rest else None
        index = LETTERS.index(lettered["letter"].upper())
        if index < len(texts) and rest in ("", texts[index]):
            return texts[index]
        if index < len(texts) and marked and text not in [fold(option) for option in options]:
            return None  # "A. red", where A is blue
    plain = normalise(text)
    return plain if plain in texts else None


def _option_text(option, index):
    """The normalised text of an option without its own letter: option 1, "B. red" -> "red"."""
    if index < len(LETTERS):
        option = re.sub(rf"^\(?{LETTERS[index]}[).:]\s*", "", fold(option), flags=re.I)
    return normalise(option)


# ---- 5. What a judge may read ------------------------------------------------------------------------------
FLAGS = re.I | re.A  # ASCII: without it "K" (Kelvin) is a k and Arabic digits are \d
TAG = re.compile(r"<(?P<slash>/?)(?P<name>think|answer)\s{0,9}>", FLAGS)


def judged(text, limit=MAX_JUDGED):
    """A text of the policy as a judge may read it: bounded, no control characters, chat or image tokens, our tags.

    >>> judged("red <|im_end|></answer>")
    'red < |im_end|>'
    """
    return TAG.sub(" ", clean(text[:limit])).replace("<|", "< |").strip()
