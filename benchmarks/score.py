"""Scoring: what did a response answer, is that right, and what do the answers come to?

Reading an answer out of a response is where harnesses disagree by several points. One function does it here for every benchmark, and says
None where there is no answer; its steps, surest first:

    1. which part of the response answers: <answer> tags, else what follows the reasoning, else all of it
    2. a statement: \\boxed{B}, "the answer is B", "B is correct"; the last one counts, since models change their minds in between
    3. the response's first or last line, if it begins with an option: "(B) 1", "B. red", "red"
    4. the last sentence that names exactly one option, by letter or by its text, and does not deny it

Known faults that are avoided, each with a test: any text's first letter taken for the answer (a "T" for "The answer is B"); the last
"[A-E]." anywhere taken for it, reasoning included; the article "A" taken for option A; a right answer scored because its letter occurs
somewhere (`answer in text`); numbers compared as strings ("3.0", "three"); a judge that is not there turning every answer wrong.

What is simplified: English only; sarcasm and long denials ("I would not go so far as to say B") are not understood.

Next: run.py; tasks.py has the benchmarks and the averages' names
"""
import re
import unicodedata
import zlib
from collections import defaultdict
from functools import lru_cache

import numpy as np

import argos
from benchmarks import tasks

MAX_READ = 6_000  # characters of a final answer that are read: its head and its end (our choice); what is done below is linear in them


# ---- 1. Which part of the response answers ------------------------------------------------------------------------------------
def finals(response):
    """-> the texts that answer, of which there should be one. [] for reasoning that never came to an answer."""
    if "<" not in response:
        return [response]
    answers = [text for text in argos._sections(response)[1] if text.strip()]
    if answers:
        return answers
    thought, after = _THINK_END.search(response), response
    for thought in _THINK_END.finditer(response):
        after = response[thought.end():]
    opened = _ANSWER.split(after)
    if thought or not _THINK.search(response):  # text after the reasoning, or no reasoning; an <answer> may have been left open
        text = opened[-1] if len(opened) > 1 and opened[-1].strip() else " ".join(opened)
        if text.strip():
            return [text]
    inside = [text for text in _ANSWER_PAIR.findall(response) if text.strip()]  # in reasoning that was not closed
    return inside[-1:]


_THINK, _THINK_END = re.compile(r"<think\s{0,9}>", re.I), re.compile(r"</think\s{0,9}>", re.I)
_ANSWER, _ANSWER_PAIR = re.compile(r"</?answer\s{0,9}>", re.I), re.compile(r"<answer\s{0,9}>([^<]*)</answer\s{0,9}>", re.I)


def extract(response, item):
    """What a response answers, in the form of item.answer; None: nothing, or two things. Never raises; linear in the length.

    Choices give an option's letter (or number, where the options are numbered), yes-or-no questions "yes" or "no", counts digits, other
    questions the text of the answer.
    """
    if not isinstance(response, str):
        return None
    read = _READERS.get(item.scorer, _read_text)
    found = {read(_plain(text), item) for text in finals(response)[:8]}
    return found.pop() if len(found) == 1 else None  # answers that differ are no answer


_WRAPPED = re.compile(r"\*{1,3}\s?[(\[]?([A-Za-z0-9])[)\].:]{0,2}\s?\*{1,3}|\$\s?([A-Z0-9])\s?\$|[\"“`]([A-Z0-9])[\"”`]")
_BOXED = re.compile(r"\\boxed\s?\{((?:[^{}]|\{[^{}]{0,200}\}){0,300})\}")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}]{0,200})\}")


def _plain(text):
    """Markdown and LaTeX to plain text; a letter that was marked by them keeps a mark: **B** -> (B)."""
    if len(text) > MAX_READ:
        text = f"{text[:1000]}\n{text[1000 - MAX_READ:]}"
    text = unicodedata.normalize("NFKC", argos.clean(text)).strip()
    if text.isalnum():
        return text
    text = _BOXED.sub(lambda m: f"\nThe answer is: {m[1]}\n", _LATEX.sub(r"\1", text))
    text = _WRAPPED.sub(lambda m: f"({m[1] or m[2] or m[3]})", text)
    return re.sub(r"[*`\"“”#$]|^\s*>|\\[()\[\]]", "", text, flags=re.M).replace("’", "'").strip()


# ---- 2. Choices ---------------------------------------------------------------------------------------------------------------
_SAID = r"(?:\s(?:to|for|of|in|on|from|among|that|which|here)\b[^.:\n]{0,120}?)?"  # "the answer to the question"
_IS = (r"\s{0,3}(?:\bis\b|\bare\b|\bwould be\b|\bwill be\b|\bshould be\b|\bmust be\b|\b(?:seems|appears) to be\b|:|=|->|→)"
       r"(?:\s{0,3}(?:therefore|thus|then|hence|clearly|most likely|likely|probably|simply|indeed|definitely|as follows)\b){0,3}\s?:?")
_STATED = re.compile(  # after it stands the answer
    rf"\banswers?\b(?:{_SAID}{_IS}|(?=\s{{0,3}}\(?[A-Z0-9]\b))"
    rf"|\b(?:correct|right|best|final|appropriate|likely|accurate|matching)\s(?:option|choice|caption|statement|description|one|image)\b{_SAID}{_IS}"
    r"|\b(?:I|we)(?:\s?'d|\s?'ll|\swould|\swill|\smust|\sshould)?\s(?:choose|pick|select|go with|say|answer)\b|\boutput\b:?", re.I)
_PRAISED = re.compile(  # before it stands the answer
    r"(?<![A-Za-z0-9'])\(?([A-Za-z0-9])[).:]?\s(?:is|seems|appears|looks|would be|must be|has to be)(?:\sto be)?"
    r"(?:\s(?:the|most|more|clearly|therefore|thus|indeed|definitely)){0,3}"
    r"\s(?:correct|right|best|answer|appropriate|accurate|likely|closest match)\b|"
    r"(?<![A-Za-z0-9'])\(?([A-Z0-9])[).:]?\s(?:fits|matches)\s(?:\w+\s){0,3}best\b", re.I)
_AT = re.compile(  # an option named at a place: (opening, letter, closing)
    r"[\s(\[<'=-]{0,9}(?:(?:either|the|option|choice|letter|caption|answer|statement|number|image|point)\s{1,3}){0,3}"
    r"([(\[<']{0,2})([A-Za-z0-9])(?![A-Za-z0-9'])([)\].:,;>']{0,3})", re.I)
# A single "a" before one of these is a letter, before any other word an article.
_AFTER_LETTER = ("is", "are", "was", "has", "because", "since", "as", "for", "which", "with", "and", "or", "but", "based", "due", "in",
                 "seems", "appears", "looks", "matches", "shows", "not", "rather", "fits", "over", "from", "over")
_WORD = re.compile(r"\s{0,3}([A-Za-z]+|[^\sA-Za-z])?")
_OTHER = re.compile(r"\s{0,3}(?:or|and|/|&|,(?:\s{0,3}(?:or|and))?)\s{0,3}(?:option\s|choice\s)?[(\[]?([A-Za-z0-9])(?![A-Za-z0-9'])[)\]]?"
                    r"(?!\s{1,3}(?:is|are|was|seems|looks|can|does|has)\b)", re.I)
_TEXT_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_MENTION = re.compile(r"(?<![A-Za-z0-9'])(?:\(\s?([A-Za-z0-9])\s?\)|\[\s?([A-Z0-9])\s?\]|\b(?:option|choice|answer|caption|letter)\s\(?([A-Za-z0-9])\b\)?"
                      r"|([A-Z])(?=[.,;:!?)]|\s|$))(?![A-Za-z0-9'])")
_DENIED = re.compile(r"(?:\bnot|n't|\bneither|\bnor|\brul(?:e|es|ed|ing) out|\beliminat\w+|\bexclud\w+|\brather than|\binstead of|\bunlike|\bexcept|"
                     r"\bincorrect|\bwrong|\bno)\b[^,;:]{0,40}$", re.I)
_DENIED_AFTER = re.compile(r"[)\].]?\s{0,2}(?:(?:is|are|was|can|does|do|could|would|seems)\s?(?:not\b|n't)|(?:isn't|aren't|can't|cannot|doesn't|don't)\b|"
                           r"(?:is|are|seems|looks)\s(?:\w+\s)?(?:wrong|incorrect|unlikely|excluded|ruled out|eliminated|false|too)\b|"
                           r"can be (?:ruled out|eliminated|excluded))", re.I)
_ORDINAL = re.compile(r"\b(first|second|third|fourth|fifth)\s(?:option|choice|caption|statement|description)\b", re.I)
_TWO = object()  # the response names two options


@lru_cache(100_000)
def _known(options):
    """Normalised texts of the options, numbers in digits: what a mention is compared with."""
    return [_digits(argos.normalise(o)) for o in options]


def _digits(text):
    return " ".join(str(argos._SMALL[w]) if w in argos._SMALL and w != "none" else w for w in text.split())


def _read_choice(text, item):
    labels = "123456789" if item.answer.isdigit() else tasks.LETTERS
    known = _known(tuple(item.options)) if item.options else []
    labels = labels[:len(known) or 8]
    found = _choice(text, labels, known)
    return labels[found] if isinstance(found, int) else None


def _choice(text, labels, known):
    """-> index of the option, _TWO, or None."""
    whole = _digits(argos.normalise(text)) if len(text) <= 600 else ""
    if whole and known.count(whole) == 1 and whole.upper() not in labels:
        return known.index(whole)
    stated = [(m.end(), _at(text, m.end(), labels, known)) for m in _STATED.finditer(text)]
    for m in _PRAISED.finditer(text):
        label = m[1] or m[2]
        if label.upper() in labels and not _DENIED.search(text[max(0, m.start() - 60):m.start()]) and (label.isupper() or label.isdigit()):
            stated.append((m.end(), labels.index(label)))
    stated = [found for _, found in sorted(stated, key=lambda s: s[0]) if found is not None]
    if stated:
        return stated[-1]
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    heads = [_at(line, 0, labels, known, strict=True) for line in lines]
    # Lines that count up, "A. ... B. ...", list the options; they answer nothing.
    listed = {j for i in range(len(heads) - 1) if isinstance(heads[i], int) and heads[i + 1] == heads[i] + 1 for j in (i, i + 1)}
    for i in (0, -1):
        if heads and heads[i] is not None and i % len(heads) not in listed:
            return heads[i]
    if known and set(known) <= {"yes", "no"}:
        said = _yes_or_no(text)
        return known.index(said) if said in known else None
    for sentence in reversed(_SENTENCE.split(text)):
        named = _named(sentence, labels)
        spoken = _spoken(sentence, known)
        if len(named) > 1 and re.search(r"\bor\b|\beither\b|\bbetween\b|/", sentence):
            return _TWO
        if len(named) == 1 or not named and len(spoken) == 1:
            return (named or spoken).pop()
    return None


def _at(text, start, labels, known, strict=False):
    """The option that `text` names at `start`, by letter or by text. strict: a letter must be marked or alone."""
    rest = text[start:start + 400]
    m = _AT.match(rest)
    index = labels.find(m[2].upper()) if m else -1
    if index >= 0:
        opening, letter, closing, tail = m[1], m[2], m[3], rest[m.end():]
        word = _WORD.match(tail)[1] or ""
        spelt = word[:1].isalpha() and not closing.strip("'")  # a word follows, without a sign between
        marked = bool(opening or closing.strip("'")) or "(" in rest[:m.start(2)]
        if letter in "AaIi" and spelt and not marked and (letter.islower() or word.lower() not in _AFTER_LETTER):
            index = -1
        elif strict and not (marked or not tail.strip()) or letter.islower() and spelt and not marked:
            index = -1
        elif tail.lstrip().startswith("?") or closing.startswith(":") and strict and len(tail) > 200:
            index = -1
        elif letter.isdigit() and re.match(r"[.,]?\d", closing[:1] + tail):  # 1.5, 1,000
            index = -1
    if index >= 0:
        other = _OTHER.match(tail if not closing.startswith(",") else "," + tail)
        if other and labels.find(other[1].upper()) not in (-1, index) and (other[1].isupper() or other[1].isdigit()):
            return _TWO
        text_of = _begins(tail, known)
        if text_of not in (None, index) and known[text_of].upper() not in labels:  # "B. blue", where blue is C
            return _TWO
        return index
    if strict and len(rest) > 200:
        return None
    ordinal = _ORDINAL.match(rest.strip().removeprefix("the "))
    if ordinal:
        index = ("first", "second", "third", "fourth", "fifth").index(ordinal[1].lower())
        return index if index < len(labels) else None
    found = _begins(re.sub(r"^[\s(]*[A-Z0-9][).:]\s", "", rest), known)
    if found is not None and not strict and re.match(r"\s{0,3}or\b", rest[len(known[found]):]):
        return _TWO
    whole = found is not None and _digits(argos.normalise(rest.split("\n")[0])) == known[found]
    return found if whole or not strict else None


def _begins(text, known):
    """The option whose text `text` begins with; the longest, where one begins with another."""
    head = f"{_digits(argos.normalise(text.split(chr(10))[0][:400]))} " if text.strip() else " "
    fits = [i for i, option in enumerate(known) if option and head.startswith(f"{option} ")]
    longest = [i for i in fits if len(known[i]) == max(len(known[j]) for j in fits)]
    return longest[0] if len(longest) == 1 else None


def _named(sentence, labels):
    """Indices of the options that a sentence names by letter and does not deny."""
    found = set()
    for m in _MENTION.finditer(sentence):
        letter, bare = m[1] or m[2] or m[3] or m[4], bool(m[4])
        index = labels.find(letter.upper())
        if index < 0 or bare and letter in "AI" and (_WORD.match(sentence, m.end())[1] or ".")[0].isalpha() and not re.match(
                r"\s(?:is|are|was|has|seems|fits|matches|because|since)\b", sentence[m.end():]):
            continue
        if not _DENIED.search(sentence[max(0, m.start() - 60):m.start()]) and not _DENIED_AFTER.match(sentence, m.end()):
            found.add(index)
    for m in _ORDINAL.finditer(sentence):
        index = ("first", "second", "third", "fourth", "fifth").index(m[1].lower())
        if index < len(labels) and not _DENIED.search(sentence[:m.start()][-60:]) and not _DENIED_AFTER.match(sentence, m.end()):
            found.add(index)
    return found


def _spoken(sentence, known):
    """Indices of the options whose text stands in a sentence, not denied and not within another option's."""
    said, found = f" {_digits(argos.normalise(sentence))} ", set()
    for index in sorted(range(len(known)), key=lambda i: -len(known[i])):
        option = f" {known[index]} "
        at = said.rfind(option)
        if known[index] and at >= 0:
            before, after = said[max(0, at - 60):at], said[at + len(option):]
            if not re.search(r"\b(?:not|isn t|neither|nor|no|rather than|instead of|unlike|ruled out)(?: \w+){0,2}$", before) and not re.match(
                    r"(?:is|are|does|can)(?: not|n t| t)\b|isn t\b|doesn t\b", after):
                found.add(index)
            said = said.replace(option, " | ")
    return found


# ---- 3. Yes or no, numbers, and any other text --------------------------------------------------------------------------------
_YES_NO = re.compile(r"\b(yes|no)\b", re.I)
_STATED_ANY = re.compile(rf"\banswers?\b{_SAID}{_IS}\s{{0,3}}", re.I)


def _yes_or_no(text):
    """The string rule of the benchmark's harnesses, yes or no as a whole word but not both, after a statement, first, last."""
    stated = [m[1].lower() for s in _STATED_ANY.finditer(text) if (m := re.match(r"[\s(']*(yes|no)\b", text[s.end():s.end() + 20], re.I))]
    if stated:
        return stated[-1]
    lines = [line for line in text.split("\n") if line.strip()]
    sentences = [s for s in _SENTENCE.split(text) if s.strip()]
    heads = [m[1].lower() for s in (*sentences[:1], *lines[-1:]) if (m := re.match(r"[\s(']*(yes|no)\b(?=\W*$|\s*[,.;:!)-])", s, re.I))]
    for part in ([" ".join(heads)] if heads else []) + [text] + sentences[-1:]:
        said = {m.lower() for m in _YES_NO.findall(part)}
        if len(said) == 1:
            return said.pop()
    return None


_WORDS = "|".join(w for w in argos._SMALL if w != "none")
_FIGURE = re.compile(rf"(?<![\w.])(-?\$?(?:\d{{1,3}}(?:,\d{{3}}){{1,5}}(?![\d,])|\d{{1,15}})(?:\.\d{{1,10}})?(?:\s?/\s?\d{{1,9}})?%?)(?![\w])"
                     rf"|\b((?:{_WORDS})(?:[- ](?:{_WORDS}|hundred|thousand|and)){{0,5}})\b", re.I)
_TOTAL = re.compile(r"\b(?:total|count|number|sum|altogether|overall)\b[^.\n\d]{0,60}?(?:\bis\b|\bare\b|:|=|\bof\b)\s{0,3}", re.I)
_THERE = re.compile(r"\bthere (?:is|are|were|was)\s{1,3}(?:only |exactly |about |approximately |a total of |indeed )?|\bI (?:can )?(?:see|count)\s", re.I)
_ENUMERATED = re.compile(r"^\s{0,9}\d{1,3}[.)]\s", re.M)


def _read_number(text, item):
    """A count in digits; other numbers as they are written, with their unit."""
    if argos.number(text):
        return _written(text, item)
    text = _ENUMERATED.sub("", text)
    for cue in (_STATED_ANY, _TOTAL, _THERE):
        for m in reversed(list(cue.finditer(text))):
            tail = text[m.end():m.end() + 60]
            if item.scorer == "count" and re.match(r"(?:no|none|not any)\b", tail, re.I):
                return "0"
            said = _FIGURE.match(tail.lstrip(" ~("))
            if said:
                return None if re.match(r"\s{0,3}(?:or|to|-)\s{0,3}\w+", tail.lstrip(" ~(")[said.end():]) and argos.number(
                    re.match(r"\s{0,3}(?:or|to|-)\s{0,3}(\w+)", tail.lstrip(" ~(")[said.end():])[1]) else _written(said[0], item, tail)
    for sentence in reversed(_SENTENCE.split(text)):
        found = list(_FIGURE.finditer(sentence))
        digits = [m for m in found if m[1]]
        values = {argos.number(m[0]) for m in digits or found} - {None}
        if len(values) == 1:
            one = (digits or found)[0]
            return _written(one[0], item, sentence[one.start():])
        if values:
            return None
    return None


def _written(text, item, tail=""):
    """Digits for a count; else the number with the unit that follows it."""
    if item.scorer == "count":
        value = argos.number(text)
        return None if value is None else f"{value[0]:.0f}" if value[0] == int(value[0]) else f"{value[0]:g}"
    for words in (3, 2):
        longer = " ".join(tail.split()[:words]).rstrip(".,;")
        if longer.startswith(text) and argos.number(longer):
            return longer
    return text.strip()


def _read_text(text, item):
    """What stands after "the answer is", else all of it; of a short sentence, what it says of its subject ("The shape is a circle.")."""
    stated = list(_STATED_ANY.finditer(text))
    if stated:
        text = text[stated[-1].end():].strip().split("\n")[0]
    text = text.strip()
    if item.scorer == "phrase" and len(text) <= 120 and (m := re.match(r"(?:the|it|this|that)\b.{0,80}\b(?:is|are)\s(?=\S)", text, re.I)):
        text = text[m.end():]
    return " ".join(text.split())[:argos.MAX_ANSWER] or None


_READERS = {"choice": _read_choice, "yesno": lambda text, item: _yes_or_no(text), "yesno or unclear": lambda text, item: _yes_or_no(text),
            "count": _read_number, "number": _read_number, "regression": _read_number}


# ---- 4. Right or wrong --------------------------------------------------------------------------------------------------------
def correct(extracted, item, judge=None, response=""):
    """1.0 or 0.0 (a share for kinds of argos.PARTIAL). judge: teachers.Judge, asked only where the rules cannot tell.

    Two uses of a judge: a free-text answer that is not the truth word for word, and a yes-or-no question that was answered without
    saying yes or no, of which it gets the response and the truth in words (as GPT-4 does officially, for every answer). Without one
    the rules alone decide.
    """
    return float(SCORERS[item.scorer](extracted, item, judge, response))


def _same(extracted, item, judge, response):
    return extracted == item.answer


def _yesno(extracted, item, judge, response):
    if extracted is None and judge and response.strip() and item.groups.get("details"):
        said = argos.judged(finals(response)[-1][-argos.MAX_JUDGED:] if finals(response) else "")
        return bool(said) and judge.equivalent(item.question, item.groups["details"], said)
    return extracted == item.answer


def _unclear(extracted, item, judge, response):
    """HallusionBench's questions without their figure: not to know is right, too; only a wrong claim is wrong (utils.py)."""
    return extracted in (None, item.answer)


def _outcome(extracted, item, judge, response):
    """R_o, as it is trained with (argos.outcome_score)."""
    return 0.0 if extracted is None else argos.outcome_score(extracted, item.answer, item.scorer, item.options, judge, item.question)


SCORERS = dict.fromkeys(argos.KINDS, _outcome) | {"choice": _same, "yesno": _yesno, "yesno or unclear": _unclear}


# ---- 5. What the answers come to ----------------------------------------------------------------------------------------------
def metrics(name, rows):
    """{metric: value in 0..1}, in the order of the benchmark's entry. rows: [{"id", "groups", "correct"}], all or some of them.

    Metrics that no row is part of are absent. Where rows are some of the questions, coverage says how many. Rows with a number under
    "grounding" add its mean (figure 4).
    """
    return {metric: sum(weight * values.mean() for weight, values, _ in cells) for metric, cells in _cells(name, rows).items()}


def draws(name, rows, n=2000, seed=0):
    """{metric: (n,) bootstrap values}: units are drawn again within each cell of the metric, with replacement.

    A unit is what the metric counts: a figure with all its questions for fAcc. The same seed and ids draw the same units, whatever the
    order of the rows, so that draws(a) - draws(b) is paired: give both models the rows that both have.
    """
    drawn = {}
    for metric, cells in _cells(name, rows).items():
        drawn[metric] = np.zeros(n)
        for weight, values, key in cells:
            rng, step = np.random.default_rng([seed, key]), max(1, 4_000_000 // len(values))
            for start in range(0, n, step):  # memory stays bounded
                chosen = rng.integers(len(values), size=(min(step, n - start), len(values)), dtype=np.int32)  # (draws, units)
                drawn[metric][start:start + step] += weight * values[chosen].mean(1)
    return drawn


def coverage(name, rows):
    """{part: (rows that are there, questions that are published or None)} for each part that the entry counts."""
    entry, there = tasks.BENCHMARKS[name], defaultdict(int)
    for row in rows:
        there[row["groups"].get(entry.part, "")] += 1
    return {part: (there[part], entry.counts.get(part, 0)) for part in entry.counts | there}


def _cells(name, rows):
    """{metric: [(weight, values of its units (units,), a number made of their names)]}, the weights summing to 1."""
    entry = tasks.BENCHMARKS[name]
    found = {}
    for label, metric in entry.metrics.items():
        if metric.of:
            if all(part in found for part in metric.of):
                found[label] = [(weight / len(metric.of), *cell) for part in metric.of for weight, *cell in found[part]]
            continue
        chosen = [row for row in rows if all(row["groups"].get(g) in (v if isinstance(v, tuple) else (v,)) for g, v in
                                             (metric.where or {}).items()) and (not metric.unit or metric.unit in row["groups"])]
        kinds = sorted({str(row["groups"].get(metric.each, "")) for row in chosen}) if metric.each else [""]
        for kind in kinds:
            mine = [row for row in chosen if not metric.each or str(row["groups"].get(metric.each, "")) == kind]
            if mine:
                found[label + kind] = _split(mine, metric, metric.over, 1.0)
    seen = [row for row in rows if row.get("grounding") is not None]
    if seen:
        found["visual grounding"] = _split([row | {"correct": row["grounding"]} for row in seen], Metric(), (), 1.0)
    return found


def _split(rows, metric, over, weight):
    """Halve, third ... the weight among the values of the outermost key, and so on inwards."""
    parts = defaultdict(list)
    for row in rows:
        parts[row["groups"].get(over[0]) if over else row["groups"][metric.unit] if metric.unit else row["id"]].append(row)
    if over:
        return [cell for key in sorted(parts, key=str) for cell in _split(parts[key], metric, over[1:], weight / len(parts))]
    keys = sorted(parts)
    score = (lambda own: float(all(row["correct"] == 1 for row in own))) if metric.all else (
        lambda own: sum(row["correct"] for row in own) / len(own))
    return [(weight, np.array([score(parts[key]) for key in keys], float), zlib.crc32("\n".join(keys).encode("utf-8", "replace")))]


Metric = tasks.Metric
METRICS = {name: metrics for name in tasks.BENCHMARKS}
