r"""Markup: Markdown and LaTeX to plain text. The reward and the benchmarks' reader both read answers through this.

    plain(r"**Answer:** $\frac{2}{3}\,\text{cm}$")  -> "Answer: 2/3 cm"
    plain(r"\boxed{2} or $3$")                      -> "2 or 3"

What wraps a text goes and what it wraps stays, so a hedge stays one. What is not known here, as \sqrt, stays as it
is written, and then is no number. Two digits that markup kept apart never come together. The time is linear in
the length: no pattern nests quantifiers, and nesting is followed MAX_DEPTH deep. All of it is our choice.

Libraries do not keep these bounds. pylatexenc takes % for a comment, so "45% or 50%" is 45; it reads 1\frac12 as
11/2, and 1,400 open braces end it in a RecursionError. math-verify finds a 3 in "2 or 3" and in "not 3".

Before: nothing. Next: texts.py.
"""
import re
from functools import lru_cache

MAX_DEPTH = 8  # rounds of taking wrappers off, each from the inside out

# Marks that stand in the text while it is worked on; a text's own are dropped first.
_SEAM = "\0"                     # here something was taken away
_BOX, _BOX_END = "\1", "\2"      # around what was boxed
_LABEL, _LABEL_END = "\3", "\4"  # around a letter that was marked
_DOLLAR = "\5"                   # \$, which opens no formula
_MARKS = re.compile("[\0-\5]")

_SPECIAL = re.compile(r"[\\$*_`\"“”„«»‘‹›「」『』。、【】#•{}\0-\5]|(?<!\w)'")  # without one of these a text is plain
_ASCII_SIGNS = str.maketrans(  # spaces behind: "3、200" is not 3,200
    dict.fromkeys("“”„«»「」『』", '"') | dict.fromkeys("‘’‹›", "'")
    | {"。": ". ", "、": ", ", "【": "[", "】": "]"})
_LINE_HEAD = re.compile(r"^[ \t]*(?:[*•]|#{1,6})[ \t]+", re.M)  # of a list, of a heading; not "- 5" or "> 5"

# ---- 1. LaTeX: commands that stand for a character or for nothing --------------------------------------------
_CHARACTERS = dict.fromkeys([",", ";", ":", " ", "\n", "quad", "qquad", "enspace", "thinspace"], " ")
_CHARACTERS |= dict.fromkeys(["(", ")", "[", "]"], _SEAM)  # \( \) and \[ \] enclose a formula
_CHARACTERS |= dict.fromkeys("! left right big Big bigl bigr displaystyle textstyle bf rm it tt".split(), "")
_CHARACTERS |= {
    "\\": "\n", "$": _DOLLAR, "%": "%", "#": "#", "&": "&", "_": "_", "circ": "°", "degree": "°", "times": "×",
    "cdot": "·", "div": "÷", "pm": "±", "approx": "≈", "simeq": "≈", "sim": "~", "mu": "μ",
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "angle": "∠", "Omega": "Ω"}
_CHARACTERS |= dict(zip("alpha beta gamma delta theta lambda phi omega".split(), "αβγδθλφω"))  # not pi, a number
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.S)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\!,|\\,)(?=\d{3}(?!\d))")  # 1{,}200  1,\!200  1\,200
_TIE = re.compile(r"(?<=\d)~(?=[\\A-Za-z])")                               # 3~cm; "2~3" stays
_LETTER_FORMULA = re.compile(r"\\[(\[]\s?([A-Z])\s?\\[)\]]")               # \(B\)
_RAISED_DEGREE = re.compile(r"\s?\^\s?(?:°|\{\s?°\s?\})")                  # 90^{\circ}
_UNIT_APART = re.compile(r"(?<=[°μ]) (?=[A-Za-z]\b)")                      # 90^\circ C, 5 \mu m

# ---- 2. What wraps a text ------------------------------------------------------------------------------------
_AIR = rf"[\s{_SEAM}]{{0,9}}"
_CAPITAL = f"{_AIR}([A-Z]){_AIR}"
_LETTER = rf"{_AIR}[(\[]?([A-Za-z])[)\].:]{{0,2}}{_AIR}"
_INNER = r"\{([^{}]*)\}"
_BOLD = r"\\(?:(?:text|math)(?:bf|it)|emph|underline)\s?"
_UPRIGHT = (r"\\(?:text(?:bf|it|rm|tt|sf|sc|up|md|normal)?|math(?:bf|it|rm|tt|sf|bb|cal|normal)|emph|underline"
            r"|mbox|hbox|operatorname|boldsymbol|bm)\s?")
_BOXED = r"\\(?:boxed|fbox)\s?"
_FRACTION = (r"\\(?:[dtc]?frac|nicefrac|sfrac)\s?"
             r"(?:\{(?P<over>[^{}]*)\}|(?P<digit>\d))\s?(?:\{(?P<under>[^{}]*)\}|(?P<below>\d))")


def _write_fraction(match):
    r"""\frac{2}{3} -> 2/3, \frac{x+1}{2} -> (x+1)/2."""
    parts = []
    for part in (match["over"] or match["digit"] or "", match["under"] or match["below"] or ""):
        part = _close_seams(part).strip()
        simple = re.fullmatch(r"-?[\w.,\\]+", part)
        parts.append(part if simple else f"({part})")
    return f"{_SEAM}{'/'.join(parts)}{_SEAM}"


_KEPT = rf"{_SEAM}\1{_SEAM}"
_MARKED = rf"{_LABEL}\1{_LABEL_END}"
_WRAPPERS = [(sign, re.compile(pattern), replacement) for sign, pattern, replacement in (
    # a sign without which there is none, the pattern, what is written instead
    ("{", rf"{_BOLD}\{{{_LETTER}\}}(?!\w)", _MARKED),           # \textbf{B}; not \text{V}, which is a unit
    ("{", _UPRIGHT + _INNER, _KEPT),                            # \text{ cm}
    ("{", rf"{_BOXED}\{{{_LETTER}\}}", f"{_SEAM}{_BOX}{_MARKED}{_BOX_END}{_SEAM}"),
    ("{", _BOXED + _INNER, rf"{_SEAM}{_BOX}\1{_BOX_END}{_SEAM}"),
    ("\\", _FRACTION, _write_fraction),
    ("{", rf"(?<![A-Za-z\d\\}}\]]){_INNER}", _KEPT),            # 10^{3}; not \sqrt{2}, which is not known
    ("*", rf"(?<!\w)\*{{1,3}}{_LETTER}\*{{1,3}}(?!\w)", _MARKED),
    ("_", rf"(?<!\w)_{{1,3}}{_LETTER}_{{1,3}}(?!\w)", _MARKED),
    ("$", rf"(?<!\w)\${_CAPITAL}\$(?!\w)", _MARKED),
    ("`", rf"(?<!\w)`{_CAPITAL}`(?!\w)", _MARKED),
    ('"', rf'(?<!\w)"{_CAPITAL}"(?!\w)', _MARKED),
    ("'", rf"(?<!\w)'{_CAPITAL}'(?!\w)", _MARKED),
    ("$", r"\$\$([^$]+)\$\$", _KEPT),
    # One dollar opens a formula where no space follows, and closes it where no space stands before and no digit
    # follows (Pandoc's rule): "$5 and $10" is money.
    ("$", r"\$(?![\s$])([^$]+)(?<!\s)\$(?!\d)", _KEPT),
    # Emphasis as in CommonMark, but not within words: "2*3*4" and "left_hand" stay.
    ("*", r"(?<![\w*])(?P<stars>\*{1,3})(?![\s*])(?P<inner>[^*\n]+)(?<!\s)(?P=stars)(?![\w*])",
     rf"{_SEAM}\g<inner>{_SEAM}"),
    ("_", r"(?<!\w)(?P<lines>_{1,3})(?![\s_])(?P<inner>[^_\n]+)(?<!\s)(?P=lines)(?!\w)",
     rf"{_SEAM}\g<inner>{_SEAM}"),
    ('"', r'(?<!\w)"(?!\s)([^"\n]+)(?<!\s)"(?!\w)', _KEPT),     # 5" stays: five inches
    ("'", r"(?<!\w)'(?!\s)([^'\n]+)(?<!\s)'(?!\w)", _KEPT))]
_LOOSE_STARS = re.compile(  # **red: the other half was cut off. Not 2**3, nor A**, whose stars mark it
    r"(?<!\w)\*{2,3}(?=[^\s*])|(?:(?<=[^\s*]{2})|(?<=\d))\*{2,3}(?!\w)")

_BETWEEN_DIGITS = re.compile(rf"(?<=[\d.,/]){_SEAM}+(?=[\d.,/])")
_SIDE_BY_SIDE = re.compile(rf"{_BOX_END}[\s,;.:/&|{_SEAM}]{{0,9}}{_BOX}")
_BEFORE_OR = re.compile(rf"{_BOX_END}(?=[\s,{_SEAM}]{{0,9}}(?:or|and)\b)")
_BEHIND_OR = re.compile(rf"(\b(?:or|and)[\s,{_SEAM}]{{0,9}}){_BOX}")


@lru_cache(256)  # a dozen questions are asked about one answer
def plain(text, box=("", "")):
    r"""Markdown and LaTeX to plain text; a letter that they marked keeps a mark. Total, in linear time.

    box: what to write before and behind the content of a \boxed, where nothing beside it hedges.

    >>> plain(r"$\boxed{1\frac{1}{2}\,\text{cm}}$"), plain("**B** or *(C)*"), plain("“red”"), plain("28\\%")
    ('1 1/2 cm', '(B) or (C)', 'red', '28%')
    >>> plain("$5 to $10"), plain("2*3"), plain("left_hand"), plain(r"\sqrt{2}")
    ('$5 to $10', '2*3', 'left_hand', '\\sqrt{2}')
    """
    text = text.strip()
    if not _SPECIAL.search(text):
        return text
    given = text = _MARKS.sub("", text)
    if not text.isascii():
        text = text.translate(_ASCII_SIGNS)
    if "\\" in text or "{" in text:
        text = _read_commands(text)
    text = _LINE_HEAD.sub("", text)
    text = _unwrap(text)
    text = text.replace("`", _SEAM)
    text = _LOOSE_STARS.sub(_SEAM, text)
    if _BOX in text:
        text = _close_boxes(text, box)
    text = _close_seams(text)
    text = text.replace(_LABEL, "(").replace(_LABEL_END, ")").replace(_DOLLAR, "$").strip()
    if not text and "{" not in given:
        return given  # nothing but signs, as "**", which can be an answer; \boxed{} is none
    return text


def _read_commands(text):
    text = _THOUSANDS.sub(",", text)
    text = _TIE.sub(" ", text)
    text = _LETTER_FORMULA.sub(_MARKED, text)
    text = _COMMAND.sub(_character, text)
    text = _RAISED_DEGREE.sub("°", text)
    return _UNIT_APART.sub("", text)


def _character(command):
    return _CHARACTERS.get(command[1], command[0])


def _unwrap(text):
    """Take wrappers off, from the inside out."""
    for _ in range(MAX_DEPTH):
        before = text
        for sign, pattern, replacement in _WRAPPERS:
            if sign in text:
                text = pattern.sub(replacement, text)
        if text == before:
            break
    return text


def _close_seams(text):
    r"""A seam between two digits becomes a space: $2$$3$ is not 23, and 1\frac{1}{2} is 1 1/2."""
    return _BETWEEN_DIGITS.sub(" ", text).replace(_SEAM, "")


def _close_boxes(text, box):
    """Boxes side by side, or beside an "or", are a choice between answers; the others get `box` around them."""
    text = _SIDE_BY_SIDE.sub(" or ", text)
    text = _BEFORE_OR.sub("", text)
    text = _BEHIND_OR.sub(r"\1", text)
    return text.replace(_BOX, box[0]).replace(_BOX_END, box[1])


# ---- 3. The characters of a picture --------------------------------------------------------------------------
_WHOLE = re.compile(
    r"\\(?:boxed|text|textbf|mathrm)\s?\{(.*)\}|\$\$(.*)\$\$|\$(.*)\$|\\\((.*)\\\)|\\\[(.*)\\\]"
    r"|(?:\*{1,3}|_{1,3}|`{1,3})([^*_`]+)(?:\*{1,3}|_{1,3}|`{1,3})|[\"“„«](.*)[\"”“»]", re.S)


def unwrapped(text):
    r"""A text without what wraps the whole of it; inside it every character stays, since a picture may show it.

    >>> unwrapped(r"$\boxed{5 * 3 = \frac { 30 } { 2 }}$"), unwrapped("**EXIT**"), unwrapped("**EXIT** only")
    ('5 * 3 = \\frac { 30 } { 2 }', 'EXIT', '**EXIT** only')
    """
    text = text.strip()
    for _ in range(MAX_DEPTH):
        whole = _WHOLE.fullmatch(text)
        inner = whole[whole.lastindex].strip() if whole else ""
        if not inner:
            return text
        text = inner
    return text
