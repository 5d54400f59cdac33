"""Texts that mean the same: what is left of a text without markup, case, punctuation, articles, odd characters.

    normalise("**The** Red-Square, at 2.5!")  -> "red square at 2.5"

The paper compares answers after a normalisation that it does not describe: this one is our choice.

Before: markup.py. Next: amounts.py, answers.py.
"""
import html
import re
import unicodedata

from verifier.markup import plain

_WORD = re.compile(r"-?\d+(?:\.\d+)?"  # -2.5, or anything but spaces and punctuation
                   r"|[^\s!-/:-@\[-`{-~¡-¿\u2010-\u205e\u3000-\u303f]+")

# An article stands before a word or an amount ("the $5 bill"): not at an end, not before other punctuation, not
# before is, and, or. "a" is a label too: it also stays before a single character ("a b") and behind what labels
# are given to ("type a blood").
# What this gets wrong: "Ebola A virus" loses its A, since Ebola is not listed, and so does "A wins";
# "a (red) mug", "a 5 dollar bill", "type a letter" keep their a. Case tells nothing: truths come in any case.
_LABELLED = (
    "vitamin hepatitis type class grade group team plan point option choice letter label panel figure section "
    "zone area region room building block gate exit terminal hall platform lane row column side angle vertex "
    "node corner level phase category route player camera box image picture photo object item person circle "
    "square triangle cube ball car container tank tab slot model influenza").split()
_NO_NOUN = (
    "a an the is are was were has and or nor but not than then of as because since if vs versus for with to "
    "from at by in on into before after").split()
_BEHIND_NOUN = "".join(f"(?<!{noun} a)" for noun in _LABELLED)
ARTICLE = re.compile(
    r"(?<![\w'’-])(?:(?:an|the)(?= +[('\"$€£#]?\w)"
    rf"|a(?= +(?:\w(?:\w|['’-]\w)|\d\.\d|[$€£#]\d)){_BEHIND_NOUN})"
    rf"(?! +(?:{'|'.join(_NO_NOUN)})(?![\w'’-]))", re.I)


def normalise(text):
    """Markup, case, punctuation, articles and spaces removed; a text of nothing but these is kept ("A", "+").

    >>> normalise("The Red-Square, at 2.5!"), normalise(r"a **red** square"), normalise("Vitamin A, a vitamin")
    ('red square at 2.5', 'red square', 'vitamin a vitamin')
    """
    text = unmarked(text).casefold()
    words = _WORD.findall(ARTICLE.sub(" ", text))
    return " ".join(words) or text


def thing(label):
    """What a label names, to tell whether two labels name one thing: normalised, HTML entities read, without
    the s of a plural or genitive. All other words count: "red mug" and "mug" are two things (our choice).

    >>> thing("Red squares"), thing("the red-square's"), thing("salt &amp; pepper")
    ('red square', 'red square', 'salt pepper')
    """
    text = normalise(re.sub(r"['’]s\b", "", html.unescape(label)))
    return text.removesuffix("s") if len(text) > 3 else text


def unmarked(text):
    """Without markup and odd characters, in the case that the text has.

    >>> unmarked("**Two** ＄\\\\frac{1}{2}＄ cups")
    'Two 1/2 cups'
    """
    return plain(simple(text))


def fold(text):
    """Full-width and composed characters to plain ones, lower case.

    >>> fold("Ｎｏ 1½")
    'no 1 1/2'
    """
    return simple(text).casefold()


def simple(text):
    """The same in the case that the text has.

    >>> simple("Ｎｏ 1½ m²"), simple("1.5 × 10⁻³")
    ('No 1 1/2 m^2', '1.5 × 10^-3')
    """
    text = clean(text)
    if not text.isascii():
        # Unicode's NFKC alone would join raised and fraction digits to their neighbours: 1½ to 11/2, 10² to 102.
        text = re.sub(r"([¼-¾⅐-⅞])", r" \1", text)
        text = re.sub(r"([²³¹⁰-⁾]+)", r"^\1", text)
        text = re.sub(r"(?<=\d)([₀-₎])", r"_\1", text)
        text = unicodedata.normalize("NFKC", text)
        text = text.replace("⁄", "/").replace("−", "-")
    return text.strip()


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
