"""Extraction: what did a response answer?

Reading an answer out of a response is where harnesses disagree by several points. One function does it here
for every benchmark, `extract`, and it says None where there is no answer. A response is read in three stages:

    1. which part of it answers?     <answer> tags, else what follows the reasoning, else all of it
    2. Markdown and LaTeX go         **B** and \\boxed{B} become plain text, as for the reward
    3. rules read the plain text     in a listed order, the surest sign first; the first that decides counts

The rules stand in three lists, each rule a function with an example: CHOICE_RULES, YES_NO_RULES,
NUMBER_RULES.

Known faults that are avoided, each with a test: any text's first letter taken for the answer (a "T" for "The
answer is B"); the last "[A-E]." anywhere taken for it, reasoning included; the article "A" read as option A;
a letter that merely occurs somewhere counted as right; numbers compared as strings ("3.0", "three").

What is simplified: English only; no rule understands irony or a long denial ("I would not go so far as to say
B").

Before: tasks.py (what an Item is), verifier/claims.py (how tags are read). Next: score.py (is the answer
right?)
"""
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property, lru_cache
from typing import NamedTuple

from verifier import markup
from verifier.answers import MAX_ANSWER, NUMBER_WORDS, number
from verifier.claims import read_answer, sections
from verifier.texts import simple
from benchmarks import tasks

# Characters of an answer that are read, its head and its end (our choice); what follows is linear in them.
MAX_READ = 6_000
MAX_TEXTS = 8  # of more than so many <answer> tags only the first are read (our choice)
# What a rule returns that finds no sign of its own. None is a decision: no answer, or two.
UNDECIDED = object()


def extract(response, item):
    """What a response answers, in the form of item.answer. Never raises; linear in the length.

    Choices give an option's letter (its number, where the options are numbered), yes-or-no questions "yes" or
    "no", counts digits, other questions the text of the answer. None: nothing was answered, or two things
    were. Example: extract("<think>A? No.</think>\\nThe answer is (b).", item) -> "B"
    """
    if not isinstance(response, str):
        return None
    texts, tagged = finals(response)
    if tagged and item.scorer not in CLOSED:  # free text in tags is taken as the verifier takes it
        return read_answer(texts, [*(item.options or ()), item.answer])[0]
    read = READERS.get(item.scorer, read_text)
    found = {read(plain(text), item) for text in texts[:MAX_TEXTS]}
    return found.pop() if len(found) == 1 else None  # answers that differ are no answer


# ---- 1. Which part of the response answers -----------------------------------------------------------------
_THINK = re.compile(r"<think\s{0,9}>", re.I)
_THINK_END = re.compile(r"</think\s{0,9}>", re.I)
_ANSWER = re.compile(r"</?answer\s{0,9}>", re.I)
_ANSWER_PAIR = re.compile(r"<answer\s{0,9}>([^<]*)</answer\s{0,9}>", re.I)


def finals(response):
    """-> (the texts that answer, of which there should be one; whether tags say so).

    ([], ...) where reasoning came to no answer.
    """
    if "<" not in response:
        return [response], False
    answers = [text for text in sections(response)[1] if text.strip()]
    if answers:
        return answers, True
    ends = [m.end() for m in _THINK_END.finditer(response)]
    if ends or not _THINK.search(response):
        after_reasoning = response[ends[-1]:] if ends else response
        *before, last = _ANSWER.split(after_reasoning)  # an <answer> may have been left open
        text = last if last.strip() else " ".join(before)
        if text.strip():
            return [text], False
    # Reasoning that was not closed, with tags in it.
    inside = [text for text in _ANSWER_PAIR.findall(response) if text.strip()]
    return inside[-1:], True


# ---- 2. Markdown and LaTeX ---------------------------------------------------------------------------------
_QUOTES = re.compile(r"[\"“”]")  # those that have lost their other half


def plain(text):
    """Markdown and LaTeX to plain text, as the reward reads it (verifier/markup.py); a letter that they marked
    keeps a mark: **B** -> (B). What is in a \\boxed is stated: \\boxed{B} -> The answer is: B.
    """
    if len(text) > MAX_READ:
        text = f"{text[:1000]}\n{text[1000 - MAX_READ:]}"
    text = markup.plain(simple(text), box=("\nThe answer is: ", "\n"))
    return _QUOTES.sub("", text).replace("’", "'").strip()


# ---- 3. Signs that several rules look for ------------------------------------------------------------------
_IS = (r"(?:\s(?:to|for|of|in|on|from|among|that|which|here|I|we)\b[^.:\n]{0,120}?)?"  # "answer to this"
       r"\s{0,3}(?:\b(?:is|are|would be|will be|should be|must be|(?:seems|appears) to be)\b|:|=|->|→)"
       r"(?:\s{0,3}(?:therefore|thus|then|hence|clearly|most likely|likely|probably|simply|indeed|definitely"
       r"|either|as follows)\b){0,3}"
       r"\s?:?")
_STATED = re.compile(  # after it stands the answer: "the answer is", "I would choose"
    rf"\banswers?\b(?:{_IS}|(?=\s{{1,3}}\(?[A-Z0-9]\b))"
    r"|\boutput\b:?|\blet's (?:choose|pick|select|go with)\b:?"
    r"|\b(?:I|we)(?:\s?'d|\s?'ll|\swould|\swill|\smust|\sshould)?"
    r"\s(?:choose|pick|select|go with|say|answer)\b:?"
    r"|\b(?:correct|right|best|final|appropriate|likely|accurate|matching)\s"
    rf"(?:option|choice|caption|statement|description|one|image)\b{_IS}", re.I)
_PRAISE = re.compile(  # before it stands the answer: "is correct", "fits best"
    r"\s{0,2}(?:is|seems|appears|looks|would be|must be|has to be)(?:\sto be)?"
    r"(?:\s(?:the|most|more|clearly|therefore|thus|indeed)){0,3}"
    r"\s(?:correct|right|best|answer|appropriate|accurate|likely)\b"
    r"|\s(?:fits|matches|describes)\s(?:\w+\s){0,3}best\b", re.I)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_ENUMERATED = re.compile(r"^\s{0,9}\d{1,3}[.)]\s", re.M)  # the 1 of "1. First ..."
_LINE = re.compile(r"[^\n]*\S[^\n]*")


# ---- 4. Choices: where a text mentions an option -----------------------------------------------------------
class Mention(NamedTuple):
    """A place that names an option."""
    start: int          # characters of the text
    end: int
    option: int | None  # its index; None: letter and text contradict each other ("B. green", where B is blue)
    by: str             # one of the next four


LETTER = "letter"  # "B", "(B)", "B. blue"
TEXT = "text"      # "blue"
BOTH = "both"      # "B is closer" where that is an option's text: surer than the letter in "closer than B"
WEAK = "weak"      # a letter that could be a word


class Options(NamedTuple):
    """The options of a question, as words."""
    words: list      # of each option: its words, a tuple
    starting: dict   # first word -> indices of the options that begin with it, the longest first
    articles: bool   # is "A" a letter in them ("Point A")? Then articles are words, too
    longest: int     # characters of the longest


# "A" before one of these words is a letter, before any other an article.
_AFTER_LETTER = re.compile(r"\s(?:is|are|was|has|because|since|as|for|which|with|and|or|but|based|due|seems"
                           r"|appears|looks|matches|shows|fits|not|rather|over)\b", re.I)
_LABEL_A = re.compile(rf"\bA\b(?:\W{{0,3}}$|{_AFTER_LETTER.pattern})")
_ARTICLES = {"a", "an", "the"}
_TOKEN = re.compile(r"-?\d+(?:\.\d+)?(?!\w)|\w+")
_DIGITS = {word: str(value) for word, value in NUMBER_WORDS.items() if word != "none"}


def split_words(text, articles=False):
    """[(start, end, word)]: case and punctuation do not matter, "three" is 3, and articles are left out or
    not.
    """
    found = []
    for m in _TOKEN.finditer(text):
        word = m[0].casefold()
        if articles or word not in _ARTICLES:
            found.append((m.start(), m.end(), _DIGITS.get(word, word)))
    return found


def only_words(text, articles):
    return tuple(word for _, _, word in split_words(text, articles))


@lru_cache(20_000)
def known_options(texts):
    """A tuple of options' texts

    -> Options. Of two options with the same words neither can be named by them.
    """
    articles = any(_LABEL_A.search(text) for text in texts)
    words = [only_words(text, articles) for text in texts]
    starting = defaultdict(list)
    for i in sorted(range(len(words)), key=lambda i: -len(words[i])):
        if words[i] and words.count(words[i]) == 1:
            starting[words[i][0]].append(i)
    return Options(words, starting, articles, max(map(len, texts), default=0))


def find_texts(text, labels, options):
    """Mentions of options by their texts, in order; where texts overlap, the longest option counts."""
    said, found, at = split_words(text, options.articles), [], 0
    while at < len(said):
        start, end, word = said[at]
        for i in options.starting.get(word, ()):
            own = said[at:at + len(options.words[i])]
            if tuple(w for _, _, w in own) != options.words[i]:
                continue
            line = text.rfind("\n", 0, start) + 1
            if not (word.isdigit() and _ENUMERATED.match(text[line:end + 2])):
                by = BOTH if labels[i].lower() in options.words[i] else TEXT
                found.append(Mention(start, own[-1][1], i, by))
            at += len(own) - 1
            break
        at += 1
    return found


_LABEL = re.compile(r"(?<![\w'-])(?:(?P<noun>option|choice|answer|caption|letter|statement|picture|point)\s)?"
                    r"(?P<open>[(\[]\s?)?(?P<letter>[A-Za-z0-9])(?![\w'-]|[.,]\d)"
                    r"(?P<close>\s?[)\]]|[.:](?=\s|$))?", re.I)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_ORDINAL = re.compile(rf"\b({'|'.join(_ORDINALS)})\s(?:option|choice|caption|statement|description)\b", re.I)
_NAMES_ONE = ("option", "choice", "letter")  # "option a" is a letter, "an answer a child gives" is none
_ENDS = re.compile(r"\s{0,9}(?:\Z|[.,;:!?)/&\n])")
_GAP = re.compile(r"[\s).:–-]{0,4}(?:(?:an?|the)\s)?", re.I)  # between a letter and its text


def read_letter(text, m, labels):
    """A match of _LABEL

    -> (Mention or None, whether it is marked as a label: "(B)", "option B", "B" at a line's head).
    """
    letter = m["letter"]
    start, end = m.span("letter")
    option = labels.find(letter.upper())
    if option < 0:
        return None, False
    line = text.rfind("\n", 0, start) + 1
    heads_line = not text[line:start].strip(" ([")
    named = m["noun"] and (not letter.islower() or m["noun"].lower() in _NAMES_ONE)
    bracketed = m["open"] and m["close"]
    listed = m["close"] and heads_line
    marked = bool(named or bracketed or listed)
    ends = _ENDS.match(text, end)
    capital = letter.isupper() and (letter not in "AI" or ends or _AFTER_LETTER.match(text, end))
    if not (marked or capital or ends or letter.isdigit()):
        return None, False  # an article, or a word of another language
    return Mention(m.start(), m.end(), option, LETTER if marked or capital else WEAK), marked or heads_line


def find_mentions(text, labels, options):
    """All Mentions of options in a text, in order.

    "B. blue" is one mention, of no option if B is not blue.
    """
    texts = find_texts(text, labels, options)
    starts = [mention.start for mention in texts]
    letters, joined = [], set()  # joined: texts that a letter stands before
    for m in _LABEL.finditer(text):
        before = bisect_right(starts, m.start("letter")) - 1
        if before >= 0 and texts[before].end > m.start("letter"):
            continue  # part of an option's text: the A of "Point A"
        mention, marked = read_letter(text, m, labels)
        if mention is None:
            continue
        after = bisect_left(starts, m.end())
        if marked and after < len(texts) and _GAP.fullmatch(text, m.end(), starts[after]):
            joined.add(after)
            agreed = mention.option if texts[after].option == mention.option else None
            mention = Mention(m.start(), texts[after].end, agreed, LETTER)
        letters.append(mention)
    ordinals = []
    for m in _ORDINAL.finditer(text):
        option = _ORDINALS.index(m[1].lower())
        if option < len(labels):
            ordinals.append(Mention(m.start(), m.end(), option, LETTER))
    alone = [mention for i, mention in enumerate(texts) if i not in joined]
    return sorted(alone + letters + ordinals, key=lambda mention: (mention.start, mention.end))


_DENIAL = re.compile(  # before a mention: "not A", "rather than A"
    r"(?:\bnot|n't|\bneither|\bnor|\brul(?:es?|ed|ing) out|\beliminat\w+|\bexclud\w+|\brather than"
    r"|\binstead of|\bunlike|\bexcept|\bincorrect|\bwrong|\bno)\b(?:(?!\bbut\b)[^,;:.]){0,40}$", re.I)
_DENIED = re.compile(  # after a mention: "A is wrong", "A cannot be"
    r"\s{0,2}(?:(?:is|are|was|can|does|do|could|would|seems?)\s?(?:not|n't|no)\b"
    r"|(?:cannot|can't|doesn't|isn't)\b|(?:is|are|seems|looks)\s(?:\w+\s)?"
    r"(?:wrong|incorrect|unlikely|excluded|ruled out|eliminated|false|too)\b"
    r"|can be (?:ruled|elim|excl))", re.I)
_HEDGE = re.compile(r"\s{0,2}(?:,\s?(?:or|and)?|or|and|/|&)\s{0,2}(?:either\s)?", re.I)
_VERB = re.compile(r"\s(?:is|are)\b", re.I)
_ASKED = re.compile(r"[ ).]{0,3}\?")


class Reading:
    """A text that answers a choice, with all that the rules need to know of it, each found when it is first
    asked for.
    """

    def __init__(self, text, labels, options):
        self.text, self.labels, self.options = text, labels, options

    @cached_property
    def mentions(self):
        """Every Mention of an option."""
        return find_mentions(self.text, self.labels, self.options)

    @cached_property
    def hedged(self):
        """Ends of the mentions in "A or B". Not of those in "A, B is right" and "A or B?"."""
        ends = set()
        for one, other in zip(self.mentions, self.mentions[1:]):
            goes_on = any(cue.match(self.text, other.end) for cue in (_PRAISE, _VERB, _ASKED))
            between = self.text[one.end:other.start]
            if one.option != other.option and not goes_on and _HEDGE.fullmatch(between):
                ends |= {one.end, other.end}
        return ends

    def chosen(self, mention):
        """The option of a mention, None if it is one of two."""
        return None if mention.end in self.hedged else mention.option

    def denied(self, mention):
        before = self.text[max(0, mention.start - 60):mention.start]
        return bool(_DENIAL.search(before) or _DENIED.match(self.text, mention.end))

    @cached_property
    def firm(self):
        """Mentions that cannot be words."""
        return [mention for mention in self.mentions if mention.by != WEAK]

    @cached_property
    def lines(self):
        """[(start, end)] of the lines that are not blank."""
        return [line.span() for line in _LINE.finditer(self.text)]

    @cached_property
    def heads(self):
        """Of each line the mention that it begins with, or None."""
        starts = [mention.start for mention in self.firm]
        heads = []
        for start, end in self.lines:
            first = bisect_left(starts, start)
            mention = self.firm[first] if first < len(self.firm) else None
            heads.append(mention if mention and self.heads_line(mention, start, end) else None)
        return heads

    def heads_line(self, mention, start, end):
        """Does the line from start to end begin with the mention: a marked letter, or nothing but an option?
        """
        if not start <= mention.start < end or self.text[start:mention.start].strip(" (-"):
            return False
        marked = mention.by != TEXT and re.search(r"[)\].:]", self.text[mention.start:mention.end + 1])
        return bool(marked or not self.text[mention.end:end].strip(" .)"))

    @cached_property
    def listed(self):
        """Indices of lines that count up, "A. ... B. ...": they list the options and answer nothing."""
        found = set()
        for i, (one, other) in enumerate(zip(self.heads, self.heads[1:])):
            if one and other and one.option is not None and other.option == one.option + 1:
                found |= {i, i + 1}
        return found

    @cached_property
    def affirmed(self):
        """Firm mentions that are not denied and not in a list of the options."""
        begins = [start for start, _ in self.lines]
        return [mention for mention in self.firm if not self.denied(mention)
                and bisect_right(begins, mention.start) - 1 not in self.listed]


# ---- 5. Choices: the rules, in the order in which they are tried -------------------------------------------
# A rule takes a Reading and returns an option's index, None (two answers, which is none), or UNDECIDED.
_ALONE = re.compile(r"\W{0,4}(?:(?:option|choice|answer|caption|output)\W{1,3})?([A-Za-z0-9])(?![\w'])"
                    r"(\W{0,4})(.{0,600})", re.I | re.S)  # groups: the label, what closes it, the rest
# What may stand between "the answer is" and an option: "the option (".
_LEADS = re.compile(r"[\s('=-]*(?:(?:the|an?|option|choice|letter|image)\s)*[(\[]*", re.I)
_CONCLUDES = re.compile(r"\s*(?:therefore|thus|so|hence|in conclusion|overall|based on|finally|in summary"
                        r"|this means|wait|actually)\b", re.I)


def label_alone(reading):
    """A label and nothing else: "B", "(B)", "Option B."."""
    m = _ALONE.fullmatch(reading.text)
    if not m or m[3]:
        return UNDECIDED
    option = reading.labels.find(m[1].upper())
    return option if option >= 0 else UNDECIDED


def label_and_text(reading):
    """A label and the text of its option, nothing else: "B. blue"."""
    m = _ALONE.fullmatch(reading.text)
    if not m or not m[2].strip() or not reading.options.words:
        return UNDECIDED
    option = reading.labels.find(m[1].upper())
    if option >= 0 and only_words(m[3], reading.options.articles) == reading.options.words[option]:
        return option
    return UNDECIDED


def text_alone(reading):
    """The text of one option and nothing else: "the blue"."""
    if len(reading.text) > 40 + 2 * reading.options.longest:
        return UNDECIDED
    words = reading.options.words
    said = only_words(reading.text, reading.options.articles)
    return words.index(said) if said and words.count(said) == 1 else UNDECIDED


def statement(reading):
    """The last statement, since models change their minds: "The answer is A. Wait, no: the answer is B.", "B
    is correct".

    It is mostly on the line of the last "the answer is"; then the rest need not be read.
    """
    cues = list(_STATED.finditer(reading.text))
    line = reading.text.rfind("\n", 0, cues[-1].start()) + 1 if cues else 0
    if line > 0:
        option = statement_within(Reading(reading.text[line:], reading.labels, reading.options))
        if option is not UNDECIDED:
            return option
    return statement_within(reading)


def statement_within(reading):
    """The last statement in all of a text."""
    stated = []  # (start, option or None)
    for mention in reading.mentions:
        if mention.by != WEAK and _PRAISE.match(reading.text, mention.end) and not reading.denied(mention):
            stated.append((mention.start, reading.chosen(mention)))
    starts = [mention.start for mention in reading.mentions]
    for m in _STATED.finditer(reading.text):
        after = bisect_left(starts, m.end() - 1)
        if after == len(starts):
            continue
        mention = reading.mentions[after]
        leads = _LEADS.fullmatch(reading.text[m.end():mention.start])
        if leads and not _ASKED.match(reading.text, mention.end):
            stated.append((mention.start, reading.chosen(mention)))
    if not stated:
        return UNDECIDED
    _, option = max(stated, key=lambda one: one[0])
    return option


def line_head(reading):
    """The first line begins with an option, or the last one does: "(D) 1" and then a line that explains it.
    """
    for i in (0, len(reading.lines) - 1):
        if reading.heads and reading.heads[i] and i not in reading.listed:
            return reading.chosen(reading.heads[i])
    return UNDECIDED


def yes_no_options(reading):
    """Where the options are yes and no, they are read as a yes-or-no question is: "Yes, there is no doubt.".
    """
    words = reading.options.words
    if sorted(words) != [("no",), ("yes",)]:
        return UNDECIDED
    said = read_yes_no(reading.text)
    return words.index((said,)) if said else None


def total(reading):
    """Of numbers as options the total counts, not the first one: "1 on the left, 2 on the right: 3"."""
    words = reading.options.words
    all_numbers = all(len(option) == 1 and option[0].isdigit() for option in words)
    if not all_numbers or any(mention.by != TEXT for mention in reading.affirmed):
        return UNDECIDED
    said = read_number(reading.text, "count")
    return words.index((said,)) if (said,) in words else UNDECIDED


def sentences(reading):
    """The one option that the sentences name without denying it; letters before texts: "It is not A but C.".

    Where they name two, here and there, a conclusion decides ("Therefore ..."), then the sentence that the
    response begins with ("It moves right. The bottle is on the left now."), then the last.
    """
    begins = [0, *(m.end() for m in _SENTENCE.finditer(reading.text))]
    for kinds in ((BOTH,), (LETTER, BOTH), (TEXT,)):
        mentions = [mention for mention in reading.affirmed if mention.by in kinds]
        if any(mention.end in reading.hedged for mention in mentions):
            return None
        named = [set() for _ in begins]  # of each sentence: the options that it names
        for mention in mentions:
            named[bisect_right(begins, mention.start) - 1].add(mention.option)
        everything = set().union(*named)
        if len(everything) == 1:
            return everything.pop()
        from_last = range(len(named) - 1, 0, -1)
        order = [i for i in from_last if named[i] and _CONCLUDES.match(reading.text, begins[i])]
        if not counts_up(named):
            order.append(0)
        order += from_last
        for i in order:
            if len(named[i]) == 1:
                return next(iter(named[i]))
    return None


def counts_up(named):
    """Do the first two sentences list options: "A is red.

    B is blue. ..."? named: sets of options, per sentence.
    """
    return len(named) > 1 and any(i is not None and named[1] == {i + 1} for i in named[0])


CHOICE_RULES = (label_alone, label_and_text, text_alone, statement, line_head, yes_no_options, total,
                sentences)


def read_choice(text, item):
    """The label of the option that a text chooses, by the first of CHOICE_RULES that decides; else None."""
    labels = "123456789" if item.answer.isdigit() else tasks.LETTERS
    labels = labels[:len(item.options) if item.options else 8]
    reading = Reading(text, labels, known_options(tuple(item.options or ())))
    for rule in CHOICE_RULES:
        option = rule(reading)
        if option is not UNDECIDED:
            return None if option is None else labels[option]
    return None


# ---- 6. Yes or no ------------------------------------------------------------------------------------------
_YES_NO = re.compile(r"\b(yes|no)\b", re.I)
_YES_NO_NEXT = re.compile(r"[\s(']*(yes|no)\b", re.I)
_YES_NO_HEAD = re.compile(r"[\s('-]*(yes|no)\b(?=\W*$|\s*[,.;:!)-])", re.I)


def split_sentences(text):
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def stated_yes_no(text):
    """What the last statement says: "The answer is yes."."""
    stated = [_YES_NO_NEXT.match(text, cue.end()) for cue in _STATED.finditer(text)]
    return [m[1] for m in stated if m][-1:]


def head_yes_no(text):
    """What the first sentence and the last line begin with: "No, they are the same."."""
    places = split_sentences(text)[:1] + text.split("\n")[-1:]
    heads = [_YES_NO_HEAD.match(place) for place in places]
    return [m[1] for m in heads if m]


def any_yes_no(text):
    """All there are: "There is no dog in the image."."""
    return _YES_NO.findall(text)


def last_yes_no(text):
    """Those of the last sentence: "Is it longer? No one can tell by eye. Yes."."""
    return _YES_NO.findall("".join(split_sentences(text)[-1:]))


YES_NO_RULES = (stated_yes_no, head_yes_no, any_yes_no, last_yes_no)


def read_yes_no(text, item=None):
    """The harnesses' string rule, yes or no as a whole word and not both, by the first of YES_NO_RULES that
    finds one.
    """
    for rule in YES_NO_RULES:
        said = {word.lower() for word in rule(text)}
        if len(said) == 1:
            return said.pop()
    return None


# ---- 7. Numbers --------------------------------------------------------------------------------------------
_NUMERALS = "|".join(_DIGITS)
_FIGURE = re.compile(
    r"(?<![\w.^/±√{#])"  # no part of what was not read: 3^2, ±2, \sqrt{2}, #3
    r"(-?\$?(?:\d{1,3}(?:,\d{3}){1,5}(?![\d,])|\d{1,15})(?:\.\d{1,10})?"
    r"(?:\s?/\s?\d{1,9}|\s\d{1,9}/\d{1,9}|\s?[x×*·]\s?10\^-?\d{1,2})?%?)"  # 3/4, 1 3/4, 1.5 × 10^3
    r"(?![\w\\^]|/\\)"  # nor 2\pi, 2^3, 2/\pi
    rf"|\b((?:{_NUMERALS})(?:[- ](?:{_NUMERALS}|hundred|thousand|and)){{0,5}})\b", re.I)
_TOTAL = re.compile(r"\b(?:total|(?<!let me )(?<!let's )count|number|sum|altogether|overall)\b[^.\n\d]{0,60}?"
                    r"(?:\b(?:is|are|of)\b|:|=)|(?<=\d)\s?=", re.I)
_THERE = re.compile(r"\b(?:there (?:is|are|were|was)|I (?:can )?(?:see|count)"
                    r"|(?:image|picture|photo) (?:shows|contains|has|depicts)"
                    r"|(?:that|this|which) (?:makes|gives)|making|giving)\b", re.I)
_NONE = re.compile(r"(?:no|none)\b", re.I)
_FILLER = re.compile(r"[\s(~]*(?:(?:only|exactly|about|approximately|a total of|indeed)\s+)?")
_UP_TO = re.compile(r"\s{0,3}(?:or|to|-|–)\s{0,3}(\w+)")


def number_alone(text, scorer):
    """A number and nothing else: "3", "three dogs"."""
    if number(text) and not _STATED.search(text):
        return written(text, text, scorer)
    return UNDECIDED


def number_after_cue(text, scorer):
    """What is stated, else a total, else what "there are": "2 on the left and 1 on the right, so the total is
    3 dogs".
    """
    text = _ENUMERATED.sub("", text)
    for cue in (_STATED, _TOTAL, _THERE):
        for m in reversed(list(cue.finditer(text))):
            tail = text[m.end():m.end() + 100]
            tail = tail[_FILLER.match(tail).end():]
            if scorer == "count" and _NONE.match(tail):
                return "0"
            figure = _FIGURE.match(tail)
            if figure:
                other = _UP_TO.match(tail, figure.end())
                if other and number(other[1]):
                    return None  # "3 or 4"
                return written(figure[0], tail, scorer)
    return UNDECIDED


def number_in_sentence(text, scorer):
    """The last sentence with a number, if it has but one; digits before words: "One of the 3 dogs is brown.".
    """
    text = _ENUMERATED.sub("", text)
    for sentence in reversed(_SENTENCE.split(text)):
        figures = list(_FIGURE.finditer(sentence))
        figures = [m for m in figures if m[1]] or figures
        if len({number(m[0]) for m in figures}) == 1:
            return written(figures[0][0], sentence[figures[0].start():], scorer)
        if figures:
            return None
    return UNDECIDED


NUMBER_RULES = (number_alone, number_after_cue, number_in_sentence)


def read_number(text, scorer):
    """A count in digits, another number as it is written, by the first of NUMBER_RULES that decides; else
    None.
    """
    for rule in NUMBER_RULES:
        said = rule(text, scorer)
        if said is not UNDECIDED:
            return said
    return None


_BRACKET = re.compile(r"\s?\(([^()]{1,60})\)")


def written(text, tail, scorer):
    """The number `text`, with which `tail` begins: digits for a count, else with the unit that follows it.

    None: a bracket behind it says another number, "73 (eighty)", or a count in percent.
    """
    value = number(text)
    aside = _BRACKET.match(tail, len(text))
    again = number(aside[1]) if aside else None
    if value and again and again[0] != value[0]:
        return None
    if scorer == "count":
        return f"{value[0]:.15g}" if value and value[1] != "%" else None
    if value is None:
        return None
    length = len(text.split()) + 1
    longer = " ".join(tail.split()[:length]).rstrip(".,;")
    return longer if longer.startswith(text) and number(longer) else text


def read_quantity(text, item):
    return read_number(text, item.scorer)


# ---- 8. Any other text -------------------------------------------------------------------------------------
_SUBJECT = re.compile(r"(?:the|it|this|that)\b.{0,80}\b(?:is|are)\s(?=\S)", re.I)


def read_text(text, item):
    """What follows "the answer is", else all; of a short sentence what it says of its subject: "The shape is
    a circle.".
    """
    stated = list(_STATED.finditer(text))
    if stated:
        text = text[stated[-1].end():].strip().partition("\n")[0]
    if item.scorer == "phrase" and len(text) <= 120:
        subject = _SUBJECT.match(text)
        if subject:
            text = text[subject.end():]
    return " ".join(text.split())[:MAX_ANSWER] or None


READERS = {"choice": read_choice, "yesno": read_yes_no, "yesno or unclear": read_yes_no,
           "count": read_quantity, "number": read_quantity, "regression": read_quantity}  # else read_text
# Few answers are possible here: they are read with these rules in tags, too.
CLOSED = ("choice", "yesno", "yesno or unclear", "count")
