"""Texts that are one number: "about 2.5 seconds", "two and a half", "1,200", "3 red squares", "2 dozen".

    number("3 red squares")  -> (3.0, "red squares")
    number("2 or 3")         -> None

A text is read right, or it is no number. What may stand behind a number is therefore listed, not what may not: a
scale ("2k", "2 dozen"), a fraction ("two and a half"), a unit of measure ("2.5 seconds"), a noun in the plural
("3 red squares"; behind 1, in the singular). So "2 at least", "2 squared", "2-ish", "2 oder drei" are no number,
and no hedge has to be known by name. The paper (eqs 7, 8) does not say how numbers are read: all is our choice.

Simplified: nouns are English. "3 Katzen" is no number; write "3".

Before: texts.py. Next: answers.py.
"""
import re

from verifier.texts import fold

# ---- 1. Words ----------------------------------------------------------------------------------------------
_UP_TO_NINETEEN = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                   "sixteen seventeen eighteen nineteen").split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = dict(zip(_UP_TO_NINETEEN, range(20)))
NUMBER_WORDS["none"] = 0
NUMBER_WORDS.update(zip(_TENS, range(20, 100, 10)))

_THOUSANDS = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9, "trillion": 10 ** 12}
_SCALE = {"dozen": 12, "hundred": 100, "k": 1000, "mn": 10 ** 6, "bn": 10 ** 9} | _THOUSANDS
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_PLURAL_PARTS = {"halves": 2} | {f"{word}s": parts for word, parts in _PARTS.items() if word != "half"}

_MEASURES = set(  # singular
    "% ° ' \" $ € £ ¥ percent percentage point degree deg °c °f c f celsius fahrenheit kelvin radian rad "
    "ms s sec second min minute h hr hour day week month year decade century nm um μm mm cm dm m km in "
    "inch ft foot yd yard mi mile meter metre kilometer kilometre centimeter centimetre millimeter "
    "millimetre nanometer micrometer hectare acre px pixel mg g kg t lb oz gram kilogram milligram pound "
    "ounce ton tonne ml cl l liter litre milliliter millilitre gallon cup pint quart tablespoon teaspoon "
    "tbsp tsp kmh kph mph rpm fps hz khz mhz ghz hertz bit byte kb mb gb tb j kj w kw mw v mv ma wh kwh "
    "joule watt volt ampere amp ohm newton cal kcal calorie pa kpa bar psi db decibel dollar euro cent "
    "usd eur gbp yen yuan rupee".split())
_IRREGULAR = set(  # plurals without an s
    "people men women children persons policemen policewomen firemen feet inches teeth geese mice sheep "
    "fish deer cattle aircraft spacecraft oxen dice bacteria media data criteria phenomena series species".split())
_BEHIND = set("total altogether overall visible present shown here there".split())  # "3 squares in total"

# Words that are no part of a noun phrase: a closed class, as far as they could stand before a noun or look like
# one.
_NO_NOUN = set(
    "a an the and or nor but than then to of not no yes in on at by for from with without within about "
    "above below over under between among per plus minus times less more most least fewer few many much "
    "some any all both either neither each every other others else only just also too very maybe perhaps "
    "possibly probably roughly almost nearly so ish or-so such this that these those its his hers theirs "
    "ours yours us is are was were be been has have had does do did can could may might must will would "
    "should if when while because as like vs versus out up down off max min maximum minimum approx "
    "approximate circa upwards downwards onwards towards across besides always sometimes thus various "
    "several numerous apiece again even still twice thrice once double triple squared cubed root power "
    "factorial dozens hundreds thousands millions billions trillions tens score scores couple couples "
    "gross grand twos threes fours fives sixes sevens eights nines oder und ou et o y e eller vel deux "
    "trois dos tres seis zwei drei due tre".split())
_NO_NOUN.update(NUMBER_WORDS, _SCALE, _PARTS, _PLURAL_PARTS)


# ---- 2. Reading a number -----------------------------------------------------------------------------------
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?![\d,])|\d{1,20})(?:\.\d{1,20})?|\.\d{1,20}"  # 1,200.5 or 1200.5 or .5
_NUMBER = re.compile(
    r"(?:(?P<whole>\d{1,9})\s+(?=\d+\s*/))?"         # the 1 of "1 3/4"
    rf"(?P<value>(?:{_DIGITS})(?:e[-+]?\d{{1,2}})?)"  # the 3, or all of "1.5e3"
    r"(?:\s*/\s*(?P<denominator>\d{1,20}))?"         # the 4
    r"(?!\d|[.,/]\d)", re.A)                         # 1.2.3 and 1/2/3 are no numbers
_LEAD = re.compile(r"(?:(?:the )?(?:final )?answer(?: is)?:?|there (?:is|are)"  # "the answer is: ", "about "
                   r"|about|around|approximately|roughly|exactly|[=~≈])\s*")
_SIGN = re.compile(r"[-+]|minus |negative ")
_HALF = re.compile(r"(?:an? )?half\b(?: an?\b)?")       # "half", "half a dozen", "half an hour"
_A_SCALE = re.compile(r"an? (?=(?:dozen|hundred|thousand|million|billion)\b)")  # the "a" of "a dozen"
_MILLIONS = re.compile(r"(?<=\d) ?M(?=[\s.,!]*$)")      # 2M; 2m are metres


def number(text):
    """A text that is one number -> (value, what stands behind it), else None.

    >>> number("about 2.5 seconds"), number("-1,200"), number("45 %"), number("1 3/4"), number("twenty-one")
    ((2.5, 'seconds'), (-1200.0, ''), (45.0, '%'), (1.75, ''), (21.0, ''))
    >>> number("two and a half"), number("2k"), number("2 dozen eggs"), number("half an hour")
    ((2.5, ''), (2000.0, ''), (24.0, 'eggs'), (0.5, 'hour'))
    >>> number("2 or 3"), number("none of 3"), number("1.2.3"), number("2 at least"), number("2 squared")
    (None, None, None, None, None)
    """
    if len(text) > 200:
        return None
    text = fold(_MILLIONS.sub(" million", text))
    for _ in range(2):  # "the answer is" and "about"
        lead = _LEAD.match(text)
        if lead:
            text = text[lead.end():]
    sign = _SIGN.match(text)
    if sign:
        text = text[sign.end():]
    amount = text.lstrip("$€£¥ ")
    value, words = _leading_number(amount)
    if value is None:
        return None
    if words == ["m"] and text[:1] in ("$", "€", "£", "¥"):
        words = ["million"]
    value, words = _scaled(value, words)
    if not _may_stand_behind(value, words):
        return None
    if sign and sign[0] != "+":
        value = -value
    return value, " ".join(words)


def _leading_number(text):
    """-> (its value, the words behind it), or (None, []): 2.5 seconds -> (2.5, [seconds])."""
    digits = _NUMBER.match(text)
    if digits:
        return _digits_value(digits), _words(text[digits.end():])
    half, one = _HALF.match(text), _A_SCALE.match(text)
    if one:
        return 1.0, _words(text[one.end():])
    if not half:
        return _number_words(text.strip(" .,!").replace("-", " ").split())
    words = _words(text[half.end():])
    if words and words[0] not in _SCALE and not _is_measure(words[0]):  # "half full"
        return None, []
    return .5, words


def _words(text):
    return text.strip(" .,!").replace("%", " % ").split()


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
    for word, next_word in zip(words, words[1:] + [""]):
        if word in NUMBER_WORDS:
            ends_in_tens = part % 100 >= 20 and part % 10 == 0
            completes = ends_in_tens and 0 < NUMBER_WORDS[word] < 10  # the one of twenty-one
            if part % 100 and not completes:
                return None, []  # "two three" is two numbers
            part += NUMBER_WORDS[word]
        elif word == "hundred" and 0 < part < 10:
            part *= 100
        elif word in _THOUSANDS and part:
            total += part * _THOUSANDS[word]
            part = 0
        elif not (word == "and" and used and part % 100 == 0 and next_word in NUMBER_WORDS):
            break  # the "and" of two hundred and five goes on; that of two and a half does not
        used += 1
    if not used:
        return None, []
    return float(total + part), words[used:]


def _scaled(value, words):
    """Apply what multiplies or completes a number: 2, [and, a, half, million] -> (2500000.0, [])."""
    if words[:1] == ["and"] and len(words) >= 3 and words[1] in ("a", "an", "one") and words[2] in _PARTS:
        value, words = value + 1 / _PARTS[words[2]], words[3:]
    elif words[:1] == ["and"] and len(words) >= 3 and words[1] in NUMBER_WORDS and words[2] in _PLURAL_PARTS:
        value, words = value + NUMBER_WORDS[words[1]] / _PLURAL_PARTS[words[2]], words[3:]
    elif len(words) == 1 and value in range(1, 11):  # two thirds, one half
        parts = _PARTS if value == 1 else _PLURAL_PARTS
        if words[0] in parts:
            return value / parts[words[0]], []
    for _ in range(2):  # two hundred thousand
        if words and words[0] in _SCALE:
            value, words = value * _SCALE[words[0]], words[1:]
    return value, words


# ---- 3. What may stand behind it ---------------------------------------------------------------------------
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’-]){1,20}")  # of two letters or more


def _may_stand_behind(value, words):
    """Nothing, a unit of measure, or a noun with up to two words before it; then perhaps "in total", "visible"."""
    if words and words[-1] in _BEHIND:
        words = words[:-1]
    if words[-2:] == ["in", "all"]:
        words = words[:-2]
    if len(words) > 1 and words[-1] == "in":  # "3 in total"; "3 in" alone are inches
        words = words[:-1]
    elif words == ["in"]:
        return True
    if not words:
        return True
    if len(words) == 3 and words[1] == "per":  # miles per hour
        return _is_measure(words[2]) and _is_noun(words[0], value)
    *before, last = words
    for word in before:
        if not _WORD.fullmatch(word) or word in _NO_NOUN or word.endswith("ly"):
            return False  # "2 possibly three squares"
    return len(before) <= 2 and _is_noun(last, value)


def _is_measure(word):
    """A unit of measure, singular or plural, also with a power or a quotient: km, seconds, m^2, km/h."""
    pieces = [re.sub(r"(?<=[^\W\d])\^?[23]$", "", piece) for piece in word.split("/")]
    for piece in pieces:
        singular = piece.removesuffix("s") if len(piece) > 2 else piece
        if piece not in _MEASURES and singular not in _MEASURES:
            return False
    return len(pieces) <= 2


def _is_noun(word, value):
    """A unit of measure, or something counted: in the plural, or in the singular for at most one."""
    if _is_measure(word):
        return True
    if not _WORD.fullmatch(word) or word in _NO_NOUN or word.endswith("ly"):
        return False
    plural = word in _IRREGULAR or word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return plural or 0 < value <= 1
