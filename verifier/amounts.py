r"""Texts that are one number: "about 2.5 seconds", "two and a half", "1,200", "3 red squares", "2 dozen".

    number("3 red squares")     -> (3.0, "red squares")
    number(r"$\frac{2}{3}$ cm")  -> (0.667, "cm")
    number("2 or 3")            -> None

A text is read right, or it is no number. What may stand behind a number is therefore listed, not what may not: a
scale ("2k", "2 dozen"), a fraction ("two and a half"), a unit of measure ("2.5 seconds"), a noun in the plural
("3 red squares"; behind 1, in the singular). So "2 at least", "2 squared", "2-ish", "2 oder drei" are no number,
and few hedges have to be known by name. The paper (eqs 7, 8) does not say how numbers are read: all is our choice.

Simplified: nouns are English, and behind 2 and more plurals: "2 mug" is no number, since the plural tells a noun
from a hedge. Behind 1 nothing does: of two foreign words only short or listed ones are told from "1 police car".

Before: texts.py. Next: answers.py.
"""
import re

from verifier.texts import unmarked

# ---- 1. Words ----------------------------------------------------------------------------------------------
_UP_TO_NINETEEN = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                   "sixteen seventeen eighteen nineteen").split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = dict(zip(_UP_TO_NINETEEN, range(20)))
NUMBER_WORDS["none"] = 0
NUMBER_WORDS.update(zip(_TENS, range(20, 100, 10)))

_THOUSANDS = {"thousand": 10 ** 3, "million": 10 ** 6, "billion": 10 ** 9, "trillion": 10 ** 12}
_SCALE = {"dozen": 12, "hundred": 100, "k": 1000, "mn": 10 ** 6, "bn": 10 ** 9} | _THOUSANDS
_MONEY_SCALE = {"m": "million", "b": "billion", "t": "trillion"}  # $2t

_PARTS = {"half": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
_PARTS.update({f"{word}th": parts for word, parts in (NUMBER_WORDS | _SCALE).items() if parts > 3})  # sevenths
_PARTS.update({f"{word[:-1]}ieth": NUMBER_WORDS[word] for word in _TENS})
_PLURAL_PARTS = {"halves": 2} | {f"{word}s": parts for word, parts in _PARTS.items() if word != "half"}

_MEASURES = set(  # singular
    "% ° ' \" $ € £ ¥ point degree deg °c °f c f celsius fahrenheit kelvin rad radian ns μs ms s sec second "
    "min minute h hr hour day week month yr year am pm o'clock nm um μm mm cm dm m km in inch ft foot "
    "yd yard mi mile meter metre kilometer kilometre centimeter centimetre millimeter millimetre nanometer "
    "hectare acre px pixel mg g kg lb oz gram kilogram milligram pound ounce ton tonne t ml cl l liter litre "
    "milliliter millilitre gallon cup pint tablespoon teaspoon tbsp tsp kmh kph mph rpm fps hz khz mhz ghz hertz "
    "bit byte kb mb gb tb j kj w kw mw gw tw v mv ma wh kwh mwh gwh twh joule watt volt ampere amp ohm "
    "ω newton cal kcal calorie pa kpa bar psi db decibel ppm ppb mol dollar euro cent usd eur gbp yen "
    "yuan".split())
_IRREGULAR = set(  # plurals without an s
    "teeth geese oxen dice bacteria media data criteria phenomena deer cattle moose salmon trout shrimp "
    "squid bison police offspring cacti fungi alumni".split())
_IRREGULAR_ENDINGS = ("men", "people", "children", "feet", "mice", "sheep", "fish", "craft")  # snowmen, goldfish

# Words that may stand before a noun and state nothing else, though "2 more" is no number. No adverb in -ly.
_HARMLESS = set(
    "red green blue yellow orange purple pink brown black white gray grey cyan magenta golden silver tan dark "
    "light bright big small large little tiny huge tall short long wide round square flat full empty old new "
    "young adult male female wet dry hot cold left right front back top bottom other more double us only early "
    "elderly friendly family curly butterfly wooden metal plastic glass paper stone toy dog cat car bus tea ice "
    "egg gas oak pet pie key box traffic fire stop wine cell teddy hair tennis coffee degrees cubic".split())

# Words that are no part of a noun phrase: function words, a closed class, and those that hedge, deny or scale.
_NO_NOUN = set(
    "a an the and or nor but than then to of not no yes in on at by for from with without within about it he she "
    "we you they above below over under between among per plus minus times less more most least fewer few many "
    "much some any all both either neither each every other others else only just also too very so this that "
    "these those its his us is are was were be been has have had does do did can could may might must will would "
    "should if when while because as like vs versus out up down off always sometimes thus hence therefore "
    "however though yet instead otherwise rather except including excluding various several numerous apiece "
    "again even still twice thrice once upwards downwards towards thereabouts hereabouts something anything oder "
    "und ou et eller vel veya hasta deux trois dos tres seis sechs zes seks zwei drei due tre root lac".split())
_HEDGES = ("maybe perhaps possible probable potential likely roughly almost nearly ish odd max min maximum "
           "minimum approx approximate umpteen est estimate guess ballpark tops unsure uncertain unknown wrong "
           "incorrect false nope nah kilo mega giga centi milli micro nano power squared cubed handful double "
           "triple couple duo trio quartet quintet score gross grand lakh crore milliard myriad permille "
           "basis").split()
for _word in [*NUMBER_WORDS, *_SCALE, *_PARTS, *_HEDGES]:  # also maybes, sixes, twoish, tenfold
    _NO_NOUN.update(_word + ending for ending in ("", "s", "es", "ish", "some", "fold", "folds"))
_NO_NOUN.update(_PLURAL_PARTS, [f"{word[:-1]}ies" for word in _TENS])


# ---- 2. Reading a number -----------------------------------------------------------------------------------
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,6}(?![\d,])|\d{1,20})(?:\.\d{1,20})?|\.\d{1,20}"  # 1,200.5 or 1200.5 or .5
_NUMBER = re.compile(
    r"(?:(?P<whole>\d{1,9})\s+(?=\d+\s*/))?"         # the 1 of "1 3/4"
    rf"(?P<value>{_DIGITS})"                         # the 3, or the 1.5 of "1.5e3" and "1.5 × 10^3"
    r"(?:e(?P<exponent>[-+]?\d{1,2})|\s?[x×*·]\s?10\^(?P<power>-?\d{1,2}))?"
    r"(?:\s*/\s*(?P<denominator>\d{1,20}))?"         # the 4
    r"(?!\d|[.,/]\d)", re.A)                         # 1.2.3 and 1/2/3 are no numbers
_LEAD = re.compile(
    r"(?:(?:the )?(?:final )?answer(?: is)?:?|there (?:is|are)"  # "the answer is: ", "about "
    r"|about|around|approximately|roughly|exactly|[=~≈]"
    r"|(?!(?:no|or|is|to|by|up|if|of|in|on|as|an|so)\b)[a-zα-ω]{1,2}(?:_?\d)?'?\s?[=≈]"  # "x = "
    r"|(?:m ?)?∠ ?[a-zα-ω\d]{1,3}\s?[=≈]|(?P<name>[a-z]{3,20})\s?[=≈])\s*")              # "∠ABC = ", "area = "
_ASIDE = re.compile(r"([^()]*[^()\s])\s*\(([^()]+)\)([^()]*)")  # "3 (three) mugs": groups "3", "three", " mugs"
_SIGN = re.compile(r"[-+]|minus |negative ")
_HALF = re.compile(r"(?:an? )?half\b(?: an?\b)?")       # "half", "half a dozen", "half an hour"
_A_SCALE = re.compile(r"an? (?=(?:dozen|hundred|thousand|million|billion)\b)")  # the "a" of "a dozen"
_MILLIONS = re.compile(r"(?<=\d) ?M\b")                 # 2M; 2m are metres
_TRILLIONS = re.compile(r"(?<=\d) ?T\b")                # 2T; 2t are tonnes
_PERCENT = re.compile(r"%|\bper ?cents?\b|\bpct\b\.?")
_CLOSING = " .,!;:"                                # what may close an answer; "2?" is none
_BRACKETED = re.compile(r"[(\[]([^()\[\]]*)[)\]]")   # (3), [3]
_REMARK = re.compile(  # "3 squares in total", "2 cm long"
    r"\s(?:in (?:total|all|(?:the|this) (?:picture|image|photo|scene|frame|video))"
    r"|(?:(?:is|are) )?(?:total|altogether|overall|visible|present|shown|here|there)"
    r"|only|sitting|standing|walking|long|wide|tall|high|old|deep)$")


def number(text):
    r"""A text that is one number -> (value, what stands behind it), else None.

    >>> number("about 2.5 seconds"), number("-1,200"), number("45 %"), number("1 3/4"), number("twenty-one")
    ((2.5, 'seconds'), (-1200.0, ''), (45.0, '%'), (1.75, ''), (21.0, ''))
    >>> number("two and a half"), number("2k"), number("2 dozen eggs"), number("half an hour")
    ((2.5, ''), (2000.0, ''), (24.0, 'eggs'), (0.5, 'hour'))
    >>> number("2 hundredths"), number("2 squares in total"), number("$2T"), number("28 pct")
    ((0.02, ''), (2.0, 'squares'), (2000000000000.0, ''), (28.0, '%'))
    >>> number(r"\boxed{1\frac{1}{2}\,\text{cm}}"), number("x = 3"), number("3 (three) mugs"), number("1.5 × 10^3")
    ((1.5, 'cm'), (3.0, ''), (3.0, 'mugs'), (1500.0, ''))
    >>> number("2 or 3"), number("none of 3"), number("1.2.3"), number("2 squared"), number("3 (four)")
    (None, None, None, None, None)
    """
    if len(text) > 200:
        return None
    text = unmarked(text)
    text = _TRILLIONS.sub(" trillion", _MILLIONS.sub(" million", text)).casefold()
    aside = _ASIDE.fullmatch(text.rstrip(_CLOSING))
    if not aside:
        return _read(text)
    said, again = _read(aside[1] + aside[3]), _read(aside[2])
    if said is None or again is None:
        return _read(text)  # "the answer is (3)"
    units = {unit for _, unit in (said, again) if unit}
    if said[0] != again[0] or len(units) > 1:
        return None         # "3 (four)"
    return said[0], "".join(units)


def _read(text):
    """`number` of a folded text without an aside."""
    for _ in range(2):  # "the answer is" and "about"; "visible" and "in the picture"
        text = _REMARK.sub("", text.rstrip(_CLOSING))
        bracketed = _BRACKETED.fullmatch(text)
        if bracketed:
            text = bracketed[1]
        lead = _LEAD.match(text)
        if lead and (lead["name"] is None or _could_be_noun(lead["name"])):  # not "max = 3"
            text = text[lead.end():]
    sign = _SIGN.match(text)
    if sign:
        text = text[sign.end():]
    amount = text.lstrip("$€£¥ ")
    value, words = _leading_number(amount)
    if value is None:
        return None
    if words and text.startswith(("$", "€", "£", "¥")):
        words[0] = _MONEY_SCALE.get(words[0], words[0])
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
        return _number_words(_words(re.sub(r"(?<!\b[b-z])-", " ", text)))  # twenty-one, but t-shirts
    words = _words(text[half.end():])
    if words and words[0] not in _SCALE and not _is_measure(words[0]):  # "half full"
        return None, []
    return .5, words


def _words(text):
    return _PERCENT.sub(" % ", text.strip(_CLOSING)).split()


def _digits_value(digits):
    """The value of a match of _NUMBER; None: a division by zero."""
    exponent = digits["exponent"] or digits["power"] or 0
    value = float(f"{digits['value'].replace(',', '')}e{exponent}")
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
    elif len(words) == 1 and value in range(1, 100):  # two thirds; 200 thousandths has two readings
        parts = _PARTS if value == 1 else _PLURAL_PARTS
        if words[0] in parts:
            return value / parts[words[0]], []
    for _ in range(2):  # two hundred thousand
        if words and words[0] in _SCALE:
            value, words = value * _SCALE[words[0]], words[1:]
    return value, words


# ---- 3. What may stand behind it ---------------------------------------------------------------------------
_WORD = re.compile(  # mugs, t-shirts, driver's; not isn't, quadrillions
    r"(?=.{2,22}$)[a-z]+(?:-[a-z]+)*(?:['’]s)?(?<!illion)(?<!illions)")


def _may_stand_behind(value, words):
    """Nothing, a unit of measure, or a noun with up to two words before it."""
    if not words:
        return True
    if len(words) == 3 and words[1] == "per":  # miles per hour
        return _is_measure(words[2]) and _is_noun(words[0], value)
    *before, last = words
    if len(before) > 2 or not _is_noun(last, value):
        return False
    return all(word in _HARMLESS or len(word) > 3 and _could_be_noun(word) for word in before)


def _is_measure(word):
    """A unit of measure, singular or plural, also with a power or a quotient: km, seconds, m^2, km/h."""
    pieces = [re.sub(r"(?<=[^\W\d])(?:\^[23]?|[23])$", "", piece) for piece in word.split("/")]  # ² is read as ^
    for piece in pieces:
        singular = piece.removesuffix("s") if len(piece) > 2 else piece
        if piece not in _MEASURES and singular not in _MEASURES:
            return False
    return len(pieces) <= 2


def _is_noun(word, value):
    """A unit of measure, or something counted: in the plural, or in the singular for at most one."""
    if _is_measure(word):
        return True
    return _could_be_noun(word) and (_is_plural(word) or 0 < value <= 1)


def _could_be_noun(word):
    """No adverb, and neither it nor a part of it (or-more) is known to be something else."""
    adverb = word.endswith("ly") and word not in _HARMLESS
    return not adverb and bool(_WORD.fullmatch(word)) and _NO_NOUN.isdisjoint(re.split("['’-]", word))


def _is_plural(word):
    regular = word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return regular or word in _IRREGULAR or word.endswith(_IRREGULAR_ENDINGS)
