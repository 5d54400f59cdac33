"""The outcome: is the answer right?"""
import re
import unicodedata

import numpy as np

from runs.errors import BadInput


MAX_ANSWER = 10_000       # characters; a longer answer is no answer
MAX_JUDGED = 2_000        # characters of an answer that a judge gets to read
MAX_THINK = 20_000        # characters of reasoning that a judge gets to read (the paper's 6144 tokens fit)


def clean(text):
    """Drop control, zero-width, bidirectional and surrogate characters (Unicode categories C*); keep line breaks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if c in "\t\r" else c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C")


FLAGS = re.I | re.A  # ASCII: without it "K" (Kelvin) is a k and Arabic digits are \d
TAG = re.compile(r"<(/?)(think|answer)\s{0,9}>", FLAGS)

KINDS = {"choice": "option letter or option text, exact", "number": "within 5 % (eqs 7, 8)", "count": "exact number",
         "phrase": "exact after normalisation (eq. 6)", "free": "equivalent, says a language model",
         "ocr": "1 - word error rate", "regression": "1 - relative error"}
PARTIAL = ("ocr", "regression")  # kinds whose outcome may lie between 0 and 1

_WORD = re.compile(r"-?\d+(?:\.\d+)?|[^\s!-/:-@\[-`{-~¡-¿\u2010-\u205e\u3000-\u303f]+")  # anything but punctuation
NUMBER_WORDS = {w: i for i, w in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split())} | {"none": 0} | {
    w: 10 * i for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALE = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9}
_TIME = {"ms": .001, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?![\d,])|\d{1,20})(?:\.\d{1,20})?|\.\d{1,20}"
_NUMBER = re.compile(rf"(?:(\d{{1,9}})\s+(?=\d+\s*/))?"              # the 1 of 1 3/4
                     rf"((?:{_DIGITS})(?:e[-+]?\d{{1,2}})?)(?:\s*/\s*(\d{{1,20}}))?(?!\d|[.,/]\d)", re.A)
_LEAD = re.compile(r"(?:(?:the )?(?:final )?answer(?: is)?:?|about|around|approximately|roughly|exactly|there (?:is|are)|[=~≈])\s*")
_HEDGE = {"or", "and", "to", "of", "not", "no", "but", "than", "plus", "minus", "times", "maybe", "hundred"} | NUMBER_WORDS.keys() | _SCALE.keys()
_UNIT = re.compile(r"[^\W\d_](?:[^\W\d_]|[°/^-]){0,20}[23]?|[°%'\"$€£¥]")


def fold(text):
    """Full-width and composed characters to plain ones, lower case. Raised and fraction digits must not join their
    neighbours: NFKC alone would read 1½ as 11/2 and 10² as 102."""
    text = re.sub(r"[²³¹⁰-₉]", "^", re.sub(r"([¼-¾⅐-⅞])", r" \1", clean(text)))
    return unicodedata.normalize("NFKC", text).casefold().replace("⁄", "/").replace("−", "-").strip()


def normalise(text):
    """Case, punctuation, articles and spaces removed; a text of nothing but these is kept as it is ("A", "+")."""
    text = fold(text)
    words = _WORD.findall(text)
    return " ".join(w for w in words if w not in ("a", "an", "the")) or " ".join(words) or text


def number(text):
    """A text that is one number -> (value, unit), else None: 1,200  -3.5e2  45 %  3/4  1 1/2  twenty-one  2.5 seconds."""
    text = fold(text) if len(text) <= 200 else ""
    for _ in range(2):
        text = text[_LEAD.match(text).end():] if _LEAD.match(text) else text
    sign, text = (-1 if re.match(r"-|minus |negative ", text) else 1), re.sub(r"^(?:[-+]|minus |negative )", "", text)
    text = text.lstrip("$€£¥ ")
    m = _NUMBER.match(text)
    if m:
        value, rest = float(m[2].replace(",", "")), text[m.end():]
        if m[3]:
            if float(m[3]) == 0:
                return None
            value = value / float(m[3]) + float(m[1] or 0)
        words = rest.strip(" .,!").replace("%", " % ").split()
    else:
        value, words = _number_words(text.strip(" .,!").replace("-", " ").split())
        if value is None:
            return None
    if words and words[0] in _SCALE:
        value *= _SCALE[words.pop(0)]
    # what follows may be a unit of up to three words, and nothing that hedges ("2 or more") or counts on ("2 three")
    if len(words) > 3 or any(w in _HEDGE or not _UNIT.fullmatch(w) for w in words):
        return None
    return sign * value, " ".join(words)


def _number_words(words):
    """Leading number words -> (value, what is left), or (None, [])."""
    total = part = used = 0
    for word in words:
        if word in NUMBER_WORDS:
            if used and part % 100 and not (part % 100 >= 20 and part % 10 == 0 and 0 < NUMBER_WORDS[word] < 10):
                return None, []  # "two three" is two numbers
            part += NUMBER_WORDS[word]
        elif word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in _SCALE and part:
            total, part = total + part * _SCALE[word], 0
        elif word != "and" or not used:
            break
        used += 1
    return (float(total + part), words[used:]) if used else (None, [])


def option_list(text):
    """Does the answer hedge: "A or B", "A, B", "A and B", "2 or 3", "red or blue"? Not: "1,200", "3/4", "red and white"."""
    text = fold(text)
    if len(text) > 300:
        return False
    either = [part.split() for part in re.split(r"\bor\b", text)]
    if len(either) > 1 and all(0 < len(part) <= 6 for part in either):
        return True
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", text):
        return False
    letters = re.findall(r"[^\s,;/|&().:]+", re.sub(r"\band\b", ",", text))
    numbers = [p.strip(" ()") for p in re.split(r"[,;|&]|\band\b", text)]
    return (len(letters) > 1 and all(len(p) == 1 and p.isalpha() for p in letters)
            or len(numbers) > 1 and all(re.fullmatch(r"-?\d+(\.\d+)?", p) for p in numbers))


def _chosen(text, options):
    """A choice -> the normalised text of the option meant (or the bare letter when no options are known), or None.

    "B", "(b)", "B. red", "option B", "the answer is B" and "red" all mean option B if it reads "red"; "B. blue" means none.
    """
    texts = [normalise(re.sub(rf"^\(?{chr(65 + i)}[).:]\s*", "", fold(o), flags=re.I) if i < 26 else o)
             for i, o in enumerate(options or ())]
    text = re.sub(r"^(?:(?:the )?(?:correct |final )*(?:answer|option|choice)(?: is)?:?\s*)+", "", fold(text))
    m = re.match(r"[\s\"'*(\[]{0,3}([a-z])([\s\"'*)\].:]+|$)(.*)", text, re.S | re.A)
    rest, listed = (normalise(m[3]), bool(m[2].strip())) if m else ("", False)  # listed: "A. red", where "a red" is an article
    if m and not options:
        return m[1] if listed or not rest else None
    index = ord(m[1]) - 97 if m else len(texts)
    if index < len(texts) and rest in ("", texts[index]):
        return texts[index]
    contradicts = listed and index < len(texts) and text not in map(fold, options)
    return normalise(text) if normalise(text) in texts and not contradicts else None


def check_truth(truth, kind, options=None):
    """Refuse a truth that no answer could ever match."""
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
    if kind == "choice" and options and _chosen(text, options) is None:
        raise BadInput(f"the truth {text[:60]!r} is neither the letter nor the text of an option")
    return text


def outcome_score(prediction, truth, kind, options=None, judge=None, question=""):
    """R_o in [0, 1] (paper eqs 6-8; ocr and regression: our choice). Never raises on a prediction; a bad truth is BadInput.

    kind: one of KINDS. options: the texts of a multiple choice, in order. judge: asked only for kind "free", only when the
    texts differ; None: exact match decides. The judge reads at most MAX_JUDGED characters, which it must treat as data.
    """
    score = outcome_by_rule(prediction, truth, kind, options)
    if score is None:
        return float(bool(judge and judge.equivalent(question, str(truth), judged(prediction))))
    return score


def outcome_by_rule(prediction, truth, kind, options):
    """outcome_score, or None where only a judge can tell."""
    truth = check_truth(truth, kind, options)
    if isinstance(prediction, (int, float)) and abs(prediction) < 1e15:
        prediction = str(prediction)
    if not isinstance(prediction, str) or len(prediction) > MAX_ANSWER or not clean(prediction).strip():
        return 0.0
    if kind == "ocr":
        return max(0.0, 1 - word_error_rate(fold(prediction).split(), fold(truth).split()))
    if kind in ("number", "count", "regression"):
        return _number_score(number(prediction), number(truth), kind)
    if kind == "choice":
        right = _chosen(truth, options)
        return float(_chosen(prediction, options) == right if right else normalise(prediction) == normalise(truth))
    if normalise(prediction) == normalise(truth):
        return 1.0
    return 0.0 if kind == "phrase" or option_list(prediction) or not judged(prediction) else None


def judged(text, limit=MAX_JUDGED):
    """A text of the policy as a judge may read it: bounded, without control characters, chat or image tokens, our tags."""
    return TAG.sub(" ", clean(text[:limit])).replace("<|", "< |").strip()


def _number_score(p, a, kind):
    if p is None:
        return 0.0
    (value, unit), (true, true_unit) = p, a
    time, true_time = (_TIME.get(u) or _TIME.get(u.rstrip("s")) for u in (unit, true_unit))
    readings = [value]
    if time and true_time:  # 2.5 minutes are not 2.5 seconds
        readings, true = [value * time], true * true_time
    elif kind != "count" and (unit == "%") != (true_unit == "%"):  # 45 % may be written 45 or 0.45
        readings.append(value / 100 if unit == "%" else value * 100)
    error = min(abs(r - true) for r in readings)
    if kind == "count" or true == 0:
        return float(error == 0 and (kind != "count" or unit != "%"))
    relative = error / abs(true)
    return max(0.0, 1 - relative) if kind == "regression" else float(relative <= .05 * (1 + 1e-9))


def word_error_rate(words, truth):
    """Edit distance in words over the number of true words. A prediction twice as long cannot score: it is not compared."""
    if len(words) >= 2 * len(truth):
        return 1.0
    column = np.arange(len(words) + 1)
    ids = {w: i for i, w in enumerate(dict.fromkeys(words + truth))}
    said = np.array([ids[w] for w in words], dtype=int)
    for i, word in enumerate(truth, 1):
        row = np.minimum(column[:-1] + (said != ids[word]), column[1:] + 1)  # substitute or keep; delete
        steps = np.concatenate([[i], row]) - np.arange(len(words) + 1)       # insert: a running minimum
        column = np.minimum.accumulate(steps) + np.arange(len(words) + 1)
    return float(column[-1]) / len(truth)
