"""Scoring: what did a response answer, is that right, and what do the answers come to?

Reading an answer out of a response is where harnesses disagree by several points. One function does it here for every benchmark, and says
None where there is no answer. It asks, the surest sign first:

    1. which part of the response answers?     <answer> tags, else what follows the reasoning, else all of it
    2. is that an option and nothing else?     "B", "(B) 1", "B. red", "red"
    3. does it state an answer?                \\boxed{B}, "the answer is B", "B is correct"; the last one, since models change their minds
    4. does the first or last line begin with an option?     "(D) 1" and then a line that explains it
    5. which one option do its sentences name, by letter or by text, without denying it?

Known faults that are avoided, each with a test: any text's first letter taken for the answer (a "T" for "The answer is B"); the last
"[A-E]." anywhere taken for it, reasoning included; the article "A" read as option A; a letter that merely occurs somewhere counted as
right; numbers compared as strings ("3.0", "three"); a judge that is not there making every answer wrong.

What is simplified: English only; no rule understands irony or a long denial ("I would not go so far as to say B").

Next: run.py; tasks.py has the benchmarks and the names of the averages
"""
import re
import unicodedata
import zlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import lru_cache

import numpy as np

from verifier.answers import KINDS, MAX_ANSWER, MAX_JUDGED, NUMBER_WORDS, clean, judged, number, outcome_score
from verifier.claims import read_answer, sections
from benchmarks import tasks

MAX_READ = 6_000  # characters of a final answer that are read, its head and its end (our choice); what follows is linear in them


# ---- 1. Which part of the response answers ------------------------------------------------------------------------------------
def extract(response, item):
    """What a response answers, in the form of item.answer; None: nothing, or two things. Never raises; linear in the length.

    Choices give an option's letter (its number, where the options are numbered), yes-or-no questions "yes" or "no", counts digits,
    other questions the text of the answer.
    """
    if not isinstance(response, str):
        return None
    texts, tagged = finals(response)
    read = _READERS.get(item.scorer, _read_text)
    if tagged and item.scorer not in _CLOSED:
        return read_answer(texts, [*(item.options or ()), item.answer])[0]  # free text in tags is taken as the verifier takes it
    found = {read(_plain(text), item) for text in texts[:8]}
    return found.pop() if len(found) == 1 else None  # answers that differ are no answer


def finals(response):
    """-> (the texts that answer, of which there should be one; whether tags say so). ([], ...): reasoning that came to no answer."""
    if "<" not in response:
        return [response], False
    answers = [text for text in sections(response)[1] if text.strip()]
    if answers:
        return answers, True
    ends = [m.end() for m in _THINK_END.finditer(response)]
    if ends or not _THINK.search(response):  # what follows the reasoning, or there is none; an <answer> may have been left open
        *before, last = _ANSWER.split(response[ends[-1] if ends else 0:])
        text = last if last.strip() else " ".join(before)
        if text.strip():
            return [text], False
    inside = [text for text in _ANSWER_PAIR.findall(response) if text.strip()]  # tags within reasoning that was not closed
    return inside[-1:], True


_THINK, _THINK_END = re.compile(r"<think\s{0,9}>", re.I), re.compile(r"</think\s{0,9}>", re.I)
_ANSWER, _ANSWER_PAIR = re.compile(r"</?answer\s{0,9}>", re.I), re.compile(r"<answer\s{0,9}>([^<]*)</answer\s{0,9}>", re.I)
_ASCII = re.compile(r"[ -~\n]*")
_BOXED = re.compile(r"\\boxed\s?\{((?:[^{}]|\{[^{}]{0,200}\}){0,300})\}")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}]{0,200})\}")
_WRAPPED = re.compile(r"\*{1,3}\s?[(\[]?([A-Za-z0-9])[)\].:]{0,2}\s?\*{1,3}|\$\s?([A-Z0-9])\s?\$|[\"“`]([A-Z0-9])[\"”`]")


def _plain(text):
    """Markdown and LaTeX to plain text; a letter that they marked keeps a mark: **B** -> (B)."""
    if len(text) > MAX_READ:
        text = f"{text[:1000]}\n{text[1000 - MAX_READ:]}"
    if not _ASCII.fullmatch(text):
        text = unicodedata.normalize("NFKC", clean(text))
    text = text.strip()
    if not text.isalnum():
        text = _BOXED.sub(lambda m: f"\nThe answer is: {m[1]}\n", _LATEX.sub(r"\1", text))
        text = _WRAPPED.sub(lambda m: f"({m[1] or m[2] or m[3]})", text)
        text = re.sub(r"[*`\"“”#$]|\\[()\[\]]", "", text).replace("’", "'").strip()
    return text


# ---- 2. Choices: find every mention of an option, then see which of them is the answer ------------------------------------------
_IS = (r"(?:\s(?:to|for|of|in|on|from|among|that|which|here|I|we)\b[^.:\n]{0,120}?)?"  # "the answer to the question"
       r"\s{0,3}(?:\b(?:is|are|would be|will be|should be|must be|(?:seems|appears) to be)\b|:|=|->|→)"
       r"(?:\s{0,3}(?:therefore|thus|then|hence|clearly|most likely|likely|probably|simply|indeed|definitely|either|as follows)\b){0,3}"
       r"\s?:?")
_STATED = re.compile(  # after it stands the answer
    rf"\banswers?\b(?:{_IS}|(?=\s{{1,3}}\(?[A-Z0-9]\b))|\boutput\b:?|\blet's (?:choose|pick|select|go with)\b:?"
    r"|\b(?:I|we)(?:\s?'d|\s?'ll|\swould|\swill|\smust|\sshould)?\s(?:choose|pick|select|go with|say|answer)\b:?"
    r"|\b(?:correct|right|best|final|appropriate|likely|accurate|matching)\s"
    rf"(?:option|choice|caption|statement|description|one|image)\b{_IS}", re.I)
_LEADS = re.compile(r"[\s('=-]*(?:(?:the|an?|option|choice|letter|image)\s)*[(\[]*", re.I)  # between a statement and the option
_PRAISE = re.compile(  # before it stands the answer
    r"\s{0,2}(?:is|seems|appears|looks|would be|must be|has to be)(?:\sto be)?(?:\s(?:the|most|more|clearly|therefore|thus|indeed)){0,3}"
    r"\s(?:correct|right|best|answer|appropriate|accurate|likely)\b|\s(?:fits|matches|describes)\s(?:\w+\s){0,3}best\b", re.I)
_DENIAL = re.compile(
    r"(?:\bnot|n't|\bneither|\bnor|\brul(?:es?|ed|ing) out|\beliminat\w+|\bexclud\w+|\brather than|\binstead of|\bunlike|\bexcept|"
    r"\bincorrect|\bwrong|\bno)\b(?:(?!\bbut\b)[^,;:.]){0,40}$", re.I)
_DENIED = re.compile(
    r"\s{0,2}(?:(?:is|are|was|can|does|do|could|would|seems?)\s?(?:not|n't|no)\b|(?:cannot|can't|doesn't|isn't)\b|"
    r"(?:is|are|seems|looks)\s(?:\w+\s)?(?:wrong|incorrect|unlikely|excluded|ruled out|eliminated|false|too)\b|can be (?:ruled|elim|excl))",
    re.I)
_LETTER = re.compile(r"(?<![\w'-])(?:(?P<noun>option|choice|answer|caption|letter|statement|picture|point)\s)?(?P<open>[(\[]\s?)?"
                     r"(?P<letter>[A-Za-z0-9])(?![\w'-]|[.,]\d)(?P<close>\s?[)\]]|[.:](?=\s|$))?", re.I)
_ORDINAL = re.compile(r"\b(first|second|third|fourth|fifth)\s(?:option|choice|caption|statement|description)\b", re.I)
_ALONE = re.compile(r"\W{0,4}(?:(?:option|choice|answer|caption|output)\W{1,3})?([A-Za-z0-9])(?![\w'])(\W{0,4})(.{0,600})", re.I | re.S)
# "A" before one of these words is a letter, before any other an article.
_AFTER_LETTER = re.compile(r"\s(?:is|are|was|has|because|since|as|for|which|with|and|or|but|based|due|seems|appears|looks|matches|shows|"
                           r"fits|not|rather|over)\b", re.I)
_LABEL_A = re.compile(rf"\bA\b(?:\W{{0,3}}$|{_AFTER_LETTER.pattern})")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_NAMES_ONE = ("option", "choice", "letter")  # "option a" is a letter, "an answer a child gives" is none
_ENDS = re.compile(r"\s{0,9}(?:\Z|[.,;:!?)/&\n])")
_VERB = re.compile(r"\s(?:is|are)\b", re.I)
_HEDGE = re.compile(r"\s{0,2}(?:,\s?(?:or|and)?|or|and|/|&)\s{0,2}(?:either\s)?", re.I)
_ASKED = re.compile(r"[ ).]{0,3}\?")
_CONCLUDES = re.compile(r"\s*(?:therefore|thus|so|hence|in conclusion|overall|based on|finally|in summary|this means|wait|actually)\b",
                        re.I)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_TOKEN = re.compile(r"-?\d+(?:\.\d+)?(?!\w)|\w+")
_GAP = re.compile(r"[\s).:–-]{0,4}(?:(?:an?|the)\s)?", re.I)  # between a letter and its text
_ARTICLES = {"a", "an", "the"}
_DIGITS = {word: str(value) for word, value in NUMBER_WORDS.items() if word != "none"}


def _words(text, articles=False):
    """[(start, end, word)]: case and punctuation do not matter, "three" is 3, and articles are left out or not."""
    found = [(m.start(), m.end(), m[0].casefold()) for m in _TOKEN.finditer(text)]
    return [(start, end, _DIGITS.get(word, word)) for start, end, word in found if articles or word not in _ARTICLES]


@lru_cache(20_000)
def _known(options):
    """-> (the words of each option, {first word: options, the longest first}, whether "A" is a letter in them: "Point A")."""
    articles = any(_LABEL_A.search(option) for option in options)
    known = [tuple(word for *_, word in _words(option, articles)) for option in options]
    first = defaultdict(list)
    for i in sorted(range(len(known)), key=lambda i: -len(known[i])):
        if known[i] and known.count(known[i]) == 1:
            first[known[i][0]].append(i)
    return known, first, articles


def _texts(text, known, first, articles):
    """[(start, end, index)]: where a text has the words of an option, the longest option there. The 1 of "1. First ..." is none."""
    words, found, at = _words(text, articles), [], 0
    while at < len(words):
        start, end, word = words[at]
        for i in first.get(word, ()):
            own = words[at:at + len(known[i])]
            if tuple(w for *_, w in own) == known[i]:
                if not (word.isdigit() and _ENUMERATED.match(text[text.rfind("\n", 0, start) + 1:end + 2])):
                    found.append((start, own[-1][1], i))
                at += len(own) - 1
                break
        at += 1
    return found


def _mentions(text, labels, known):
    """-> [(start, end, index, by)] of the options that a text names, in order; by "letter", "text", "both" or "weak", a letter that
    could be a word. A letter and a text that contradict each other ("B. green") are a mention of index None."""
    # "B is closer" is a text that names B by its letter, surer than a letter alone: "A is closer than B"
    texts = [(start, end, i, "both" if labels[i].lower() in known[0][i] else "text") for start, end, i in _texts(text, *known)]
    starts, letters, taken = [t[0] for t in texts], [], set()
    for m in _LETTER.finditer(text):
        letter, index = m["letter"], labels.find(m["letter"].upper())
        (start, end), at = m.span("letter"), bisect_right(starts, m.start("letter"))
        if index < 0 or at and texts[at - 1][1] > start:  # no option, or within a text
            continue
        head = not text[text.rfind("\n", 0, start) + 1:start].strip(" ([")
        named = m["noun"] and (not letter.islower() or m["noun"].lower() in _NAMES_ONE)
        marked, ends = bool(m["open"] and m["close"] or m["close"] and head or named), bool(_ENDS.match(text, end))
        plain = letter.isupper() and (ends or letter not in "AI" or _AFTER_LETTER.match(text, end))
        if not (marked or plain or ends or letter.isdigit()):
            continue  # an article, or a word of another language
        mention = (m.start(), m.end(), index, "letter" if marked or plain else "weak")
        at = bisect_left(starts, m.end())
        if (marked or head) and at < len(texts) and _GAP.fullmatch(text, m.end(), starts[at]):
            taken.add(at)  # "B. blue" is one mention
            mention = (m.start(), texts[at][1], index if texts[at][2] == index else None, "letter")
        letters.append(mention)
    ordinals = [(*m.span(), _ORDINALS.index(m[1].lower()), "letter") for m in _ORDINAL.finditer(text)]
    return sorted([t for i, t in enumerate(texts) if i not in taken] + letters + [o for o in ordinals if o[2] < len(labels)],
                  key=lambda mention: mention[:2])


def _read_choice(text, item):
    labels = ("123456789" if item.answer.isdigit() else tasks.LETTERS)[:len(item.options) if item.options else 8]
    alone = _ALONE.fullmatch(text)
    index = labels.find(alone[1].upper()) if alone else -1
    if index >= 0 and not alone[3]:
        return labels[index]
    known = words, _, articles = _known(tuple(item.options or ()))
    said = lambda text: tuple(word for *_, word in _words(text, articles))
    if index >= 0 and words and alone[2].strip() and said(alone[3]) == words[index]:
        return labels[index]
    whole = said(text) if len(text) <= 40 + 2 * max(map(len, item.options or ()), default=0) else ()
    index = words.index(whole) if whole and words.count(whole) == 1 else _chosen(text, labels, known)
    return None if index is None else labels[index]


def _chosen(text, labels, known):
    """The index of the option that a text chooses, or None: steps 3 to 5 of this file's head."""
    cues = list(_STATED.finditer(text))
    line = text.rfind("\n", 0, cues[-1].start()) + 1 if cues else 0
    for part in dict.fromkeys((text[line:], text)):  # a statement is mostly the last thing said; then the rest need not be read
        mentions, two = _mentions(part, labels, known), set()
        for (_, end, one, _), (start, stop, other, _) in zip(mentions, mentions[1:]):  # "A or B"; not "A, B is right", not "A or B?"
            left_open = not (_PRAISE.match(part, stop) or _VERB.match(part, stop) or _ASKED.match(part, stop))
            if one != other and left_open and _HEDGE.fullmatch(part[end:start]):
                two |= {end, stop}
        value = lambda mention: None if mention[1] in two else mention[2]
        denied = lambda m: bool(_DENIAL.search(part[max(0, m[0] - 60):m[0]]) or _DENIED.match(part, m[1]))
        stated = [(m[0], value(m)) for m in mentions if m[3] != "weak" and _PRAISE.match(part, m[1]) and not denied(m)]
        starts = [m[0] for m in mentions]
        for m in _STATED.finditer(part):
            after = mentions[i] if (i := bisect_left(starts, m.end() - 1)) < len(mentions) else None
            if after and _LEADS.fullmatch(part[m.end():after[0]]) and not _ASKED.match(part, after[1]):
                stated.append((after[0], value(after)))
        if stated:
            return max(stated, key=lambda one: one[0])[1]

    mentions = [m for m in mentions if m[3] != "weak"]
    starts = [m[0] for m in mentions]
    lines = [line.span() for line in re.finditer(r"[^\n]*\S[^\n]*", text)]
    heads = [_head(text, a, b, mentions[i]) if (i := bisect_left(starts, a)) < len(mentions) else None for a, b in lines]
    # Lines that count up, "A. ... B. ...", list the options and answer nothing.
    listed = {j for i, (one, other) in enumerate(zip(heads, heads[1:])) if one and other and one[2] is not None
              and other[2] == one[2] + 1 for j in (i, i + 1)}
    for i in (0, len(lines) - 1):
        if i not in listed and heads and heads[i]:
            return value(heads[i])
    if sorted(known[0]) == [("no",), ("yes",)]:
        said = _read_yes_no(text)
        return known[0].index((said,)) if said else None

    begins = [a for a, _ in lines]
    mentions = [m for m in mentions if not denied(m) and bisect_right(begins, m[0]) - 1 not in listed]
    if all(len(option) == 1 and option[0].isdigit() for option in known[0]) and all(m[3] == "text" for m in mentions):
        said = _read_number(text, "count")  # of numbers as options the total counts, not the first: "1 on the left, 2 on the right: 3"
        if (said,) in known[0]:
            return known[0].index((said,))
    return _settled(text, mentions, two)


def _head(text, start, end, mention):
    """The mention, if a line from start to end begins with it: a marked letter, or nothing but an option."""
    begins = start <= mention[0] < end and not text[start:mention[0]].strip(" (-")
    marked = mention[3] != "text" and re.search(r"[)\].:]", text[mention[0]:mention[1] + 1])
    return mention if begins and (marked or not text[mention[1]:end].strip(" .)")) else None


def _settled(text, mentions, two):
    """The one option that the sentences name; letters before other texts. Where they name two, here and there, a conclusion decides,
    then the sentence that the response begins with ("It moves right. The bottle is on the left now."), then the last."""
    begins = [0, *(m.end() for m in _SENTENCE.finditer(text))]
    for kinds in (("both",), ("letter", "both"), ("text",)):
        mine, named = [m for m in mentions if m[3] in kinds], [set() for _ in begins]
        if any(m[1] in two for m in mine):
            return None
        for m in mine:
            named[bisect_right(begins, m[0]) - 1].add(m[2])
        if len(everything := set().union(*named)) == 1:
            return everything.pop()
        last = range(len(named) - 1, 0, -1)
        concluding = [i for i in last if named[i] and _CONCLUDES.match(text, begins[i])]
        lists = len(named) > 1 and any(i is not None and named[1] == {i + 1} for i in named[0])  # "A is red. B is blue. ..."
        for i in (*concluding, *([] if lists else [0]), *last):
            if len(named[i]) == 1:
                return next(iter(named[i]))
    return None


# ---- 3. Yes or no, numbers, and any other text --------------------------------------------------------------------------------
_YES_NO = re.compile(r"\b(yes|no)\b", re.I)
_YES_NO_HEAD = re.compile(r"[\s('-]*(yes|no)\b(?=\W*$|\s*[,.;:!)-])", re.I)
_NUMERALS = "|".join(_DIGITS)
_FIGURE = re.compile(rf"(?<![\w.])(-?\$?(?:\d{{1,3}}(?:,\d{{3}}){{1,5}}(?![\d,])|\d{{1,15}})(?:\.\d{{1,10}})?(?:\s?/\s?\d{{1,9}})?%?)(?!\w)"
                     rf"|\b((?:{_NUMERALS})(?:[- ](?:{_NUMERALS}|hundred|thousand|and)){{0,5}})\b", re.I)
_TOTAL = re.compile(r"\b(?:total|(?<!let me )(?<!let's )count|number|sum|altogether|overall)\b[^.\n\d]{0,60}?(?:\b(?:is|are|of)\b|:|=)"
                    r"|(?<=\d)\s?=", re.I)
_THERE = re.compile(r"\b(?:there (?:is|are|were|was)|I (?:can )?(?:see|count)|(?:image|picture|photo) (?:shows|contains|has|depicts)|"
                    r"(?:that|this|which) (?:makes|gives)|making|giving)\b", re.I)
_FILLER = re.compile(r"[\s(~]*(?:(?:only|exactly|about|approximately|a total of|indeed)\s+)?")
_UP_TO = re.compile(r"\s{0,3}(?:or|to|-|–)\s{0,3}(\w+)")
_ENUMERATED = re.compile(r"^\s{0,9}\d{1,3}[.)]\s", re.M)


def _read_yes_no(text, item=None):
    """The harnesses' string rule, yes or no as a whole word and not both: of a statement, the first or last word, all, the end."""
    stated = [m[1] for s in _STATED.finditer(text) if (m := re.match(r"[\s(']*(yes|no)\b", text[s.end():], re.I))]
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    heads = [m[1] for part in sentences[:1] + text.split("\n")[-1:] if (m := _YES_NO_HEAD.match(part))]
    for part in (stated[-1:], heads, _YES_NO.findall(text), _YES_NO.findall("".join(sentences[-1:]))):
        if len(said := {word.lower() for word in part}) == 1:
            return said.pop()
    return None


def _read_number(text, scorer):
    """A count in digits; another number as it is written, with its unit. What is stated counts, then a total, then "there are ..."; else
    the last sentence with a number, if it has but one."""
    if number(text) and not _STATED.search(text):
        return _written(text, text, scorer)
    text = _ENUMERATED.sub("", text)
    for cue in (_STATED, _TOTAL, _THERE):
        for m in reversed(list(cue.finditer(text))):
            tail = text[m.end():m.end() + 100]
            tail = tail[_FILLER.match(tail).end():]
            if scorer == "count" and re.match(r"(?:no|none)\b", tail, re.I):
                return "0"
            if said := _FIGURE.match(tail):
                upto = _UP_TO.match(tail, said.end())
                return None if upto and number(upto[1]) else _written(said[0], tail, scorer)  # "3 or 4"
    for sentence in reversed(_SENTENCE.split(text)):
        found = list(_FIGURE.finditer(sentence))
        found = [m for m in found if m[1]] or found  # in "one of the 3 dogs" the digits count
        if len({number(m[0]) for m in found}) == 1:
            return _written(found[0][0], sentence[found[0].start():], scorer)
        if found:
            return None
    return None


def _written(text, tail, scorer):
    """The number `text`, with which `tail` begins: digits for a count, else with the unit that follows it."""
    value = number(text)
    if value is None or scorer == "count":
        return value and f"{value[0]:.15g}"
    longer = " ".join(tail.split()[:2]).rstrip(".,;")
    return longer if longer.startswith(text) and number(longer) else text


def _read_quantity(text, item):
    return _read_number(text, item.scorer)


def _read_text(text, item):
    """What follows "the answer is", else all of it; of a short sentence, what it says of its subject ("The shape is a circle.")."""
    if stated := list(_STATED.finditer(text)):
        text = text[stated[-1].end():].strip().partition("\n")[0]
    if item.scorer == "phrase" and len(text) <= 120 and (m := re.match(r"(?:the|it|this|that)\b.{0,80}\b(?:is|are)\s(?=\S)", text, re.I)):
        text = text[m.end():]
    return " ".join(text.split())[:MAX_ANSWER] or None


_READERS = {"choice": _read_choice, "yesno": _read_yes_no, "yesno or unclear": _read_yes_no, "count": _read_quantity,
            "number": _read_quantity, "regression": _read_quantity}
_CLOSED = ("choice", "yesno", "yesno or unclear", "count")  # a few answers are possible: they are read out of tags, too


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
        said = judged("\n".join(finals(response)[0])[-MAX_JUDGED:])
        return bool(said) and judge.equivalent(item.question, item.groups["details"], said)
    return extracted == item.answer


def _unclear(extracted, item, judge, response):
    """HallusionBench's questions without their figure: not to know is right, too; only a wrong claim is wrong (utils.py)."""
    return extracted in (None, item.answer)


def _outcome(extracted, item, judge, response):
    """R_o, as it is trained with (argos.outcome_score)."""
    return 0.0 if extracted is None else outcome_score(extracted, item.answer, item.scorer, item.options, judge, item.question)


SCORERS = dict.fromkeys(KINDS, _outcome) | {"choice": _same, "yesno": _yesno, "yesno or unclear": _unclear}


# ---- 5. What the answers come to ----------------------------------------------------------------------------------------------
def metrics(name, rows):
    """{metric: value in 0..1}, in the order of the benchmark's entry. rows: [{"id", "groups", "correct"}], all or some of them.

    Metrics that no row is part of are absent. Where rows are some of the questions, coverage says how many. Rows with a number under
    "grounding" add its mean (figure 4).
    """
    return {metric: _mean(cells) for metric, cells in _cells(name, rows).items()}


def draws(name, rows, n=2000, seed=0):
    """{metric: (n,) bootstrap values}: units are drawn again within each cell of the metric, with replacement.

    A unit is what the metric counts: a figure with all its questions for fAcc. The same seed and ids draw the same units, whatever the
    order of the rows, so that draws(a) - draws(b) is paired: give both models the rows that both have.
    """
    return {metric: drawn for metric, (_, drawn) in measure(name, rows, n, seed).items()}


def measure(name, rows, n=2000, seed=0):
    """{metric: (its value, its bootstrap values)}: `metrics` and `draws`, with the rows sorted into units once."""
    means, drawn, found = {}, {}, _cells(name, rows)  # cells that metrics share are drawn once
    for metric, cells in found.items():
        drawn[metric] = np.zeros(n)
        for weight, values, key in cells:
            cell = key, values.tobytes()
            if cell not in means:
                rng, step, parts = np.random.default_rng([seed, key]), max(1, 4_000_000 // len(values)), []  # memory stays bounded
                for start in range(0, n, step):
                    chosen = rng.integers(len(values), size=(min(step, n - start), len(values)), dtype=np.int32)  # (draws, units)
                    parts.append(values[chosen].mean(1))
                means[cell] = np.concatenate(parts)
            drawn[metric] += weight * means[cell]
    return {metric: (_mean(cells), drawn[metric]) for metric, cells in found.items()}


def _mean(cells):
    return float(sum(weight * values.mean() for weight, values, _ in cells))


def coverage(name, rows):
    """{part: (rows that are there, questions that are published or None)} for each part that the entry counts."""
    entry, there = tasks.BENCHMARKS[name], defaultdict(int)
    for row in rows:
        there[row["groups"].get(entry.part, "")] += 1
    return {part: (there[part], entry.counts.get(part, 0)) for part in entry.counts | there}


def _cells(name, rows):
    """{metric: [(weight, values of its units (units,), a number made of their names)]}, the weights summing to 1."""
    entry = tasks.BENCHMARKS[name]
    found = dict.fromkeys(entry.metrics)
    for label, metric in entry.metrics.items():
        chosen = [row for row in rows if (not metric.unit or metric.unit in row["groups"]) and all(
            row["groups"].get(group) in (value if isinstance(value, tuple) else (value,)) for group, value in (metric.where or {}).items())]
        kinds = defaultdict(list)
        for row in chosen:
            kinds[str(row["groups"].get(metric.each, ""))].append(row)
        for kind in sorted(kinds) if not metric.of else ():
            found[label + kind] = _split(kinds[kind], metric, metric.over, 1.0)
    for label, metric in entry.metrics.items():
        if metric.of and all(found.get(part) for part in metric.of):
            found[label] = [(weight / len(metric.of), *cell) for part in metric.of for weight, *cell in found[part]]
    found = {label: cells for label, cells in found.items() if cells}
    seen = [row for row in rows if row.get("grounding") is not None]
    if seen:
        found["visual grounding"] = _split([row | {"correct": row["grounding"]} for row in seen], tasks.Metric(), (), 1.0)
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

