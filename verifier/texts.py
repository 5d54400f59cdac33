"""Texts that mean the same: what is left of a text without case, punctuation, articles and odd characters.

    normalise("The Red-Square, at 2.5!")  -> "red square at 2.5"

The paper compares answers after a normalisation that it does not describe: this one is our choice.

Before: nothing. Next: amounts.py, answers.py.
"""
import html
import re
import unicodedata

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


def thing(label):
    """What a label names, to tell whether two labels name one thing: normalised, HTML entities read, without
    the s of a plural or genitive. All other words count: "red mug" and "mug" are two things (our choice).

    >>> thing("Red squares"), thing("the red-square's"), thing("salt &amp; pepper")
    ('red square', 'red square', 'salt pepper')
    """
    text = normalise(re.sub(r"['’]s\b", "", html.unescape(label)))
    return text.removesuffix("s") if len(text) > 3 else text


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


def well_formed(text):
    """A lone surrogate becomes "?", all else stays: JSON can hold one ("\\ud800"), and no tokenizer takes it.

    >>> well_formed("a\\ud800b")
    'a?b'
    """
    return text.encode("utf-8", "replace").decode()


def clean(text):
    """Drop control, zero-width, bidirectional and surrogate characters (Unicode categories C*), not line breaks.

    >>> clean("re\\u200bd")          # a zero-width space
    'red'
    """
    if text.isascii() and text.isprintable():
        return text
    kept = [c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C"]
    return "".join(kept).replace("\t", " ").replace("\r", " ")
