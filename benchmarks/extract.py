"""Extraction: what did a response answer?

Reading an answer out of a response is where harnesses disagree by several points. One function does it here
for every benchmark, `extract`, and it says None where there is no answer. A response is read in three stages:

    1. which part of it answers?     <answer> tags, else what follows the reasoning, else all of it
    2. Markdown and LaTeX go         **B** and \\boxed{B} become plain text, as for the reward
    3. rules read the plain text     in a listed order, the surest sign first; the first that decides counts

The rules stand in three lists, each rule a function with an example: CHOICE_RULES, YES_NO_RULES,
NUMBER_RULES. Those of a choice look at sentences: what is stated outranks a conclusion ("Therefore ..."), a
conclusion any praise ("is most similar"), praise a mere mention. In all of them a sentence names the option
that it speaks of, not one that it denies, refuses to choose or compares with: "B is closer than A" names B.

Known faults that are avoided, each with a test: any text's first letter taken for the answer (a "T" for "The
answer is B"); the last "[A-E]." anywhere taken for it, reasoning included; the article "A" read as option A;
a letter that merely occurs somewhere counted as right; numbers compared as strings ("3.0", "three").

What is simplified: English only; no rule understands irony or a long denial ("I would not go so far as to say
B"). Among 700 answers that were read by hand 98 % are read alike, among 270 more that were written to break
the rules 93 %; tests/data/answers_by_hand.jsonl names the others.

Before: tasks.py (what an Item is), verifier/claims.py (how tags are read). Next: score.py (is the answer
right?)
"""
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import NamedTuple

from verifier import markup
from verifier.answers import MAX_ANSWER, NUMBER_WORDS, number
from verifier.claims import read_answer, sections
from verifier.texts import ARTICLE, simple
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
    texts, tagged = finals(_CHAT.sub("", response))
    if tagged and item.scorer not in CLOSED:  # free text in tags is taken as the verifier takes it
        return read_answer(texts, [*(item.options or ()), item.answer])[0]
    read = READERS.get(item.scorer, read_text)
    texts = texts[:MAX_TEXTS]
    if item.scorer != "ocr":  # a picture's text may hold markup
        texts = [plain(text) for text in texts]
    found = {read(text, item) for text in texts}
    return found.pop() if len(found) == 1 else None  # answers that differ are no answer


# ---- 1. Which part of the response answers -----------------------------------------------------------------
# What a chat template leaves behind: "<s>", "</s>", "<|im_end|>", "[/INST]", "ASSISTANT:".
_CHAT = re.compile(r"</?s>|<\|[\w ]{1,30}\|>|\[/?INST\]"
                   r"|^\s{0,99}(?:\#{2,3}\s?)?(?:assistant|model|response)\s?:", re.I)
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
def plain(text):
    """Markdown and LaTeX to plain text, as the reward reads it (verifier/markup.py); a letter that they marked
    keeps a mark: **B** -> (B). What is in a \\boxed is stated: \\boxed{B} -> The answer is: B.
    """
    if len(text) > MAX_READ:
        text = f"{text[:1000]}\n{text[1000 - MAX_READ:]}"
    text = markup.plain(simple(text), box=("\nThe answer is: ", "\n"))
    return text.replace('"', "").replace("’", "'").strip()  # quotes that have lost their other half


# ---- 3. Signs that several rules look for ------------------------------------------------------------------
_IS = (r"(?:\s(?:to|for|of|in|that|here|I|we)\b[^.:\n]{0,120}?)?"  # "answer to this"
       r"\s{0,3}(?:\b(?:is|are|would be|will be|should be|must be|(?:seems|appears) to be)\b|:|=|->|→)"
       r"(?:\s{0,3}(?:(?:most\s)?\w{2,12}ly|therefore|thus|then|hence|indeed|either|as follows)\b){0,3}"
       r"\s?:?")
_STATED = re.compile(  # after it stands the answer: "the answer is", "I would choose"
    rf"\banswers?\b(?:{_IS}|(?=\s{{1,3}}\(?[A-Z0-9]\b))"
    r"|\boutput\b:?|\blet's (?:choose|pick|select|go with)\b:?"
    r"|\b(?:I|we)(?:\s?'d|\s?'ll|\swould|\smight|\swill|\smust|\sshould)?"
    r"\s(?:choose|pick|select|go (?:with|for)|say|answer|lean (?:more )?towards?)\b:?"
    r"|\b(?:correct|right|best|final|appropriate|likely|accurate|matching)\s"
    rf"(?:option|choice|caption|statement|description|one|image)\b{_IS}", re.I)
_PRAISE = re.compile(  # a verdict on an option: "is most similar", "fits better than"
    r"\b(?:than|correct|best|better|similar|same|likely|match(?:es)?|correspond(?:s|ing)?|fits?|aligns?"
    r"|accurate(?:ly)?|appropriate|suitable|consistent|resembles?|shares?|missing (?:part|piece)|real"
    r"|closest|closer (?:match|in))\b", re.I)
_REFUSES = re.compile(  # "it is not possible to determine", "neither"
    r"(?:\b(?:cannot|can't|can not|could not|couldn't|unable to|not able to|not (?:\w+\s)?possible to"
    r"|impossible to|(?:difficult|hard|challenging) to|not (?:enough|sufficient)|insufficient"
    r"|no (?:clear|definitive) way)\b(?:\s[\w,]+){0,5}?"
    r"\s(?:determine|tell|answer|say|know|see|identify|assist|help|provide|confirm|decide|judge|choose|select"
    r"|compare|information|context|choice|decision)\b|\bneither\b|\bnone of\b"
    r"|\bno (?:\w+\s){0,2}(?:option|answer|choice|point|match|correspondence)\b)"
    r"(?!\s(?:\w+\s){0,3}(?:certainty|certain|sure)\b)", re.I)  # doubt is no refusal
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=\S)|\n+")
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
    starting: dict   # first word -> [(words, index)] of the names that begin with it, the longest first
    labels: dict     # "A" or "1" -> index. Letters end at Z: later options have a text, no label
    ordinals: dict   # "second" -> index: of the option that begins with it, else of the second one
    praise: re.Pattern  # words of a verdict, those that are asked among them: "closer"
    opposite: re.Pattern | None  # a predicate that means the other option: "farther", where "closer" is asked
    pair: tuple      # the two options that `opposite` exchanges


# "A" before one of these words is a letter, before any other an article.
_AFTER_LETTER = re.compile(r"\s(?:is|are|was|has|because|since|as|for|which|that|with|and|or|but|based|due"
                           r"|seems|appears|looks|matches|shows|fits|not|rather|over|in|on|at|to|from|than"
                           r"|does|cannot|\(|[b-h](?![\w'-]))\b", re.I)
_TOKEN = re.compile(r"-?\d+(?:\.\d+)?(?!\w)|\w+")
_DIGITS = {word: str(value) for word, value in NUMBER_WORDS.items() if word != "none"}
_SAME = _DIGITS | {"1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth"}
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_OPPOSITES = [({"closer", "closest", "nearer", "nearest"},
               {"farther", "further", "farthest", "furthest", "distant", "is behind", "lies behind",
                "is in the background", "greater distance"}),
              ({"darker", "darkest"}, {"lighter", "brighter", "lightest", "brightest"}),
              ({"larger", "bigger", "largest"}, {"smaller", "smallest"}),
              ({"taller", "higher"}, {"shorter", "lower"}), ({"longer"}, {"shorter"})]


def split_words(text):
    """[(start, end, word)]: case and punctuation do not matter, "three" is 3, and articles are left out."""
    found = []
    dropped = {m.start() for m in ARTICLE.finditer(text)}  # not the A of "Point A", "A is closer", "(A) red"
    for m in _TOKEN.finditer(text):
        word = m[0].casefold()
        if m.start() not in dropped:
            found.append((m.start(), m.end(), _SAME.get(word, word)))
    return found


def only_words(text):
    return tuple(word for _, _, word in split_words(text))


@lru_cache(20_000)
def known_options(texts, numbered, question):
    """A tuple of options' texts, whether their labels are numbers, the question -> Options.

    Of two options with the same words neither can be named by them. No texts: eight labels.
    """
    words = [only_words(text) for text in texts]
    names = [(name, i) for i, name in enumerate(words) if name and words.count(name) == 1]
    ordinals = {name[0]: i for name, i in names if name[0] in _ORDINALS}
    for word, i in ordinals.items():
        number = str(1 + _ORDINALS.index(word))
        names += [((word, "1"), i), ((*words[i][1:], number), i)]  # "the second one", "image 2"
    starting = defaultdict(list)
    for name, i in sorted(names, key=lambda one: -len(one[0])):
        starting[name[0]].append((name, i))
    many = len(texts) or 8
    names = [str(i + 1) for i in range(many)] if numbered else tasks.LETTERS[:many]
    labels = {name: i for i, name in enumerate(names)}
    ordinals = ordinals or dict(zip(_ORDINALS, range(many)))
    return Options(words, starting, labels, ordinals, *comparison(words, only_words(question)))


def comparison(words, question):
    """What is compared? -> (praise, opposite, pair) of Options.

    Where "closer" is asked, in the question or in the options, "A is farther" says what "B is closer" says.
    """
    asked = set(question).union(*words)
    for one, other in [*_OPPOSITES, *(pair[::-1] for pair in _OPPOSITES)]:
        if not asked & one or asked & other:
            continue
        praise = re.compile(rf"{_PRAISE.pattern}|\b(?:{'|'.join(sorted(one))})\b", re.I)
        pair = tuple(i for i in range(len(words)) if one & set(words[i])) or tuple(range(len(words)))
        near = r"(?:(?!\b(?:not|than|while|whereas|because|since|as|with|but|and|so)\b|n't)[^.;:\n]){0,60}?"
        opposite = re.compile(rf"{near}\b(?:{'|'.join(sorted(other))})\b", re.I)
        return praise, opposite, pair if len(pair) == 2 else ()
    return _PRAISE, None, ()


def find_texts(text, options):
    """Mentions of options by their texts, in order; where texts overlap, the longest option counts."""
    labels = list(options.labels)
    said, found, at = split_words(text), [], 0
    while at < len(said):
        start, end, word = said[at]
        for name, i in options.starting.get(word, ()):
            own = said[at:at + len(name)]
            by = BOTH if i < len(labels) and labels[i].lower() in name else TEXT
            paused = by == BOTH and _PAUSE.search(text, start, own[-1][1])
            if tuple(w for _, _, w in own) != name or paused:
                continue
            line = text.rfind("\n", 0, start) + 1
            counts_lines = word.isdigit() and _ENUMERATED.match(text[line:end + 2])
            if not counts_lines and (word not in ("yes", "no") or len(own) > 1 or _ANSWERS.match(text, end)):
                found.append(Mention(start, own[-1][1], i, by))
            at += len(own) - 1
            break
        at += 1
    return found


_PAUSE = re.compile(r"[.,;:!?]")  # no option named by its letter goes on after it: "... of A, is closer"
_LABEL = re.compile(r"(?<![A-Za-z0-9_-])(?<![A-Za-z]')"
                    r"(?:(?P<noun>option|choice|answer|caption|letter|statement|picture|point|box|image"
                    r"|labell?ed|marked)\s)?"
                    r"(?P<open>[(\[]\s?)?(?P<letter>[A-Za-z]|\d{1,3})"
                    r"(?![A-Za-z0-9_-]|'(?!s\b)[A-Za-z]|[.,]\d)"
                    r"(?P<close>\s?[)\]]|[.:](?=\s|$))?", re.I)
_ORDINAL = re.compile(rf"\b({'|'.join(_ORDINALS)})\s(?:option|choice|caption|statement|description)\b", re.I)
_OWN_NAME = re.compile(rf"\b(?:{'|'.join(_ORDINALS)}|reference)\s(?:image|picture|photo|one)"
                       r"\s?[(\[]?\s?$", re.I)
_NAMES_ONE = ("option", "choice", "letter")  # "option a" is a letter, "an answer a child gives" is none
_ENDS = re.compile(r"\s{0,9}(?:\Z|[.,;:!?)'/&\n-])")
_ANSWERS = re.compile(rf"{_ENDS.pattern}|\s(?:and|or)\b")  # after a yes or no: "No, ...", not "no dog"
_GAP = re.compile(r"[\s).:–-]{0,4}(?:(?:an?|the)\s)?", re.I)  # between a letter and its text


def read_letter(text, m, options):
    """A match of _LABEL

    -> (Mention or None, whether it is marked as a label: "(B)", "option B", "B" at a line's head).
    """
    letter = m["letter"]
    start, end = m.span("letter")
    option = options.labels.get(letter.upper())
    if option is None:
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


def find_mentions(text, options):
    """All Mentions of options in a text, in order.

    "B. blue" is one mention, of no option if B is not blue. In "the third image (C)", where the third image
    is an option, C is the model's own name for it and counts nothing.
    """
    texts = find_texts(text, options)
    starts = [mention.start for mention in texts]
    own_names = any(word in _ORDINALS for words in options.words for word in words)
    letters, joined = [], set()  # joined: texts that a letter stands before
    for m in _LABEL.finditer(text):
        before = bisect_right(starts, m.start("letter")) - 1
        if before >= 0 and texts[before].end > m.start("letter"):
            continue  # part of an option's text: the A of "Point A"
        mention, marked = read_letter(text, m, options)
        if mention is None or own_names and _OWN_NAME.search(text[max(0, m.start() - 40):m.start("letter")]):
            continue
        after = bisect_left(starts, m.end())
        if marked and after < len(texts) and _GAP.fullmatch(text, m.end(), starts[after]):
            agrees = texts[after].option == mention.option
            if agrees or _ENDS.match(text, texts[after].end):  # else it explains: "B. The second image has"
                joined.add(after)
                mention = Mention(m.start(), texts[after].end, mention.option if agrees else None, LETTER)
        letters.append(mention)
    ordinals = []
    for m in _ORDINAL.finditer(text):
        option = _ORDINALS.index(m[1].lower())
        if option < len(options.labels):
            ordinals.append(Mention(m.start(), m.end(), option, LETTER))
    alone = [mention for i, mention in enumerate(texts) if i not in joined]
    return sorted(alone + letters + ordinals, key=lambda mention: (mention.start, mention.end))


_DENIAL = re.compile(  # before a mention: "not A", "rather than A"
    r"(?:(?:\bnot|n't)(?!\s(?:as|\w+ than)\b)|\bneither|\bnor|\brul(?:es?|ed|ing) out|\beliminat\w+"
    r"|\bexclud\w+|\brather than|\binstead of|\bunlike|\bexcept|\bincorrect|\bwrong|\bno)\b"
    r"(?:(?!\bbut\b)[^,;:.]){0,40}$", re.I)
# Between a refusal and what it refuses; a comma is one of a list: "which of A, B or C".
_REFUSED = re.compile(r"(?:[^,;:.\n]|,(?=[\s\w()]{1,16}(?:,|\bor\b|\band\b)))*")
_APART = r"(?:\s?\([^()\n]{0,60}\)|,\s[^,.;:\n]{1,100},)?"  # "A (the red one) is", "A, which is red, is"
_DENIED = re.compile(  # after a mention: "A is wrong", "A cannot be"
    rf"{_APART}\s{{0,2}}(?:also|clearly|therefore|however|,\s?however,)?\s?"
    r"(?:(?:is|are|was|can|does|do|could|would|may|might|seems?|appears?)\s?(?:\w{2,12}ly\s)?(?:not|n't|no)\b"
    r"|(?:cannot|can't|doesn't|isn't|lacks|differs|departs)\b"
    r"|(?:is|are|being|seems|looks|appears)\s(?:to be\s)?(?:the\s)?(?:\w+\s)?"
    r"(?:wrong|incorrect|unlikely|excluded|ruled out|eliminated|false|too|less|least|different|unrelated"
    r"|neither)\b|(?:has|shows|have)\s(?:an?\s)?(?:\w+\s)?different\b"
    r"|can be (?:ruled|elim|excl))", re.I)
_HEDGE = re.compile(r"\s{0,2}(?:,|(?:,\s)?(or|and|nor|/|&))\s{0,2}(?:either\s)?(?:the\s)?", re.I)
_BESIDE = re.compile(r"[\s()\[\]]{0,4}")
_GOES_ON = re.compile(  # "A, B is right" names B
    r"\s(?:is|was|has|seems|appears|looks|fits|matches|describes|shares|shows|corresponds|would|can|must|will"
    r"|more|best|better)\b", re.I)
_ASKED = re.compile(r"[ ).]{0,3}\?")
_CLAIM = re.compile(r"\b(?:is|are|was|were|has|have|moves?|moved|goes|looks|appears|seems)\b[^.;:\n]*$", re.I)
_THAN = re.compile(  # before a mention that is only compared with: "B is closer than A"
    r"\b(?:than|compar(?:ed|ison) (?:to|with)|relative to|unlike|in contrast (?:to|with)|as opposed to"
    r"|versus|vs|over)[\s.][^,;:.\n]{0,40}$", re.I)
_TO = re.compile(  # before one that counts if no other is named: "The first image is most similar to B"
    r"\b(?:similar to|identical to|same \w+ as|match(?:es)?(?: with)?|corresponds? (?:to|with)"
    r"|resembles?|in front of|behind|away from)\s(?:the\s)?[(\[]?$", re.I)
_ASIDE = re.compile(  # what a sentence says besides: "While A ..., B", "B ... whereas A", "A ..., but B"
    r"^\W{0,3}(?:while|although|though|whereas|since|because|at first)\b[^,\n]*,"
    r"|,?\s(?:while|whereas|although|though|because|since|but (?:it|that|this) (?:could|may|might))\b[^\n]*"
    r"|^[^\n]*,\s(?:but(?! (?:it|that|this) (?:could|may|might)\b)|yet|so"
    r"|which (?:means|indicates|implies|suggests))\b", re.I)


def within(mentions, start, end):
    """Those of the sorted mentions that begin between start and end."""
    starts = attrgetter("start")
    return mentions[bisect_left(mentions, start, key=starts):bisect_left(mentions, end, key=starts)]


class Reading:
    """A text that answers a choice, with all that the rules need to know of it, each found when it is first
    asked for.
    """

    def __init__(self, text, options):
        self.text, self.options = text, options

    @cached_property
    def mentions(self):
        """Every Mention of an option; "A is farther" mentions B, where A or B is to be closer."""
        found = find_mentions(self.text, self.options)
        pair = self.options.pair
        return [mention._replace(option=sum(pair) - mention.option)
                if mention.option in pair and self.opposite(mention) else mention for mention in found]

    def opposite(self, mention):
        opposite = self.options.opposite
        return bool(opposite and opposite.match(self.text, mention.end))

    @cached_property
    def hedged(self):
        """Ends of the mentions in "A or B" and "A B". Not of those in "A or B?"."""
        ends = set()
        for one, other in zip(self.mentions, self.mentions[1:]):
            if one.option == other.option or _ASKED.match(self.text, other.end):
                continue
            if self.joined(one, other) or self.beside(one, other):
                ends |= {one.end, other.end}
        return ends

    def joined(self, one, other):
        """Are two mentions joined, as in "A or B" and "A, B"? Not in "A, B is right"."""
        cue = _HEDGE.fullmatch(self.text, one.end, other.start)
        if cue is None:
            return False
        goes_on = other.by == BOTH or _GOES_ON.match(self.text, other.end)
        return bool(cue[1]) or not goes_on

    def beside(self, one, other):
        """Do two mentions without a word between them make a list: "A B", "(A)(B)", a line each?

        Not "Look at B", and below it "(A) A is closer".
        """
        between = _BESIDE.fullmatch(self.text, one.end, other.start)
        if between is None or one.by != other.by or not _ENDS.match(self.text, other.end):
            return False
        line = self.text.rfind("\n", 0, one.start) + 1
        begins_line = not self.text[line:one.start].strip(" ([-")
        return begins_line or "\n" not in between[0]

    def chosen(self, mention):
        """The option of a mention, None if it is one of two."""
        return None if mention.end in self.hedged else mention.option

    def follows(self, cue, mention):
        """Does a cue end where the mention begins, on the same line?"""
        line = self.text.rfind("\n", 0, mention.start) + 1
        return bool(cue.search(self.text[max(line, mention.start - 60):mention.start]))

    @cached_property
    def denied(self):
        """Mentions such as "not B", "B is wrong", "cannot tell which of A and B", "B?"; "B is farther", if it
        is not one of two.
        """
        return {mention for mention in self.mentions
                if self.follows(_DENIAL, mention) or self.refused(mention)
                or any(cue.match(self.text, mention.end) for cue in (_DENIED, _ASKED))
                or not self.options.pair and self.opposite(mention)}

    @cached_property
    def refusals(self):
        """[(start, end)] of "it is not possible to determine" and the like."""
        return [m.span() for m in _REFUSES.finditer(self.text)]

    def refused(self, mention):
        """Is the mention part of what the last refusal before it refuses?"""
        before = bisect_left(self.refusals, (mention.start,))
        end = self.refusals[before - 1][1] if before else -MAX_READ
        return mention.start - end < 150 and bool(_REFUSED.fullmatch(self.text, end, mention.start))

    def refuses(self, start, end):
        """Is there a refusal between start and end?"""
        return bisect_left(self.refusals, (start,)) < bisect_left(self.refusals, (end,))

    def claims(self, start, end):
        """Does a sentence say an option of something: "The camera moves right", not "Right is"?"""
        inside = within(self.affirmed, start, end)
        return bool(inside) and self.follows(_CLAIM, inside[0])

    @cached_property
    def firm(self):
        """Mentions that cannot be words."""
        return [mention for mention in self.mentions if mention.by != WEAK]

    @cached_property
    def affirmed(self):
        """Firm mentions that are neither denied nor what another is compared with."""
        return [mention for mention in self.firm
                if mention not in self.denied and not self.follows(_THAN, mention)]

    def named(self, start, end):
        """The options that a stretch of text names, in a set: those compared with others, not the others
        ("A is closer than B"); those of the main clause; letters before texts. {None}: "A or B".
        """
        inside = within(self.affirmed, start, end)
        if not inside:  # "A is less similar than B": where A is denied, B is meant
            everything = within(self.firm, start, end)
            others = [mention for mention in everything if mention not in self.denied]
            inside = others if len(others) < len(everything) else []
        asides = [m.span() for m in _ASIDE.finditer(self.text[start:end])]
        main = [mention for mention in inside if not any(a <= mention.start - start < b for a, b in asides)]
        inside = main or inside
        inside = [mention for mention in inside if not self.follows(_TO, mention)] or inside
        sure = [mention for mention in inside if mention.end not in self.hedged]
        for kinds in ((BOTH,), (LETTER, BOTH), (TEXT,)):
            options = {mention.option for mention in sure if mention.by in kinds}
            if options:
                return options
        return {None} if inside else set()

    @cached_property
    def sentences(self):
        """[(start, end)]"""
        cuts = [m.span() for m in _SENTENCE.finditer(self.text)]
        starts = [0, *(end for _, end in cuts)]
        ends = [*(start for start, _ in cuts), len(self.text)]
        return [(start, end) for start, end in zip(starts, ends) if start < end]

    def marked(self, mention):
        """Is it written as in a list, "(B)" or "B."?"""
        written_so = re.search(r"[)\].:]", self.text[mention.start:mention.end + 1])
        return mention.by != TEXT and bool(written_so)

    @cached_property
    def heads(self):
        """[(start, end, the marked option that it begins with, or None)] of each line."""
        begins = [mention.start for mention in self.mentions]
        heads = []
        for line in _LINE.finditer(self.text):
            start, end = line.span()
            first = bisect_left(begins, start)
            head = self.mentions[first] if first < len(begins) and begins[first] < end else None
            if head and (head.by == WEAK or self.text[start:head.start].strip(" (-")):
                head = None
            if head and not self.marked(head) and self.text[head.end:end].strip(" .)"):
                head = None
            heads.append((start, end, head))
        return heads

    @cached_property
    def listed(self):
        """Starts of heads that count up, "A. ... B. ...", below each other or on one line: they list the options
        and answer nothing.
        """
        on_one_line = set()
        for _, end, head in self.heads:
            behind = within(self.affirmed, head.end, end) if head and head.option is not None else []
            if any(self.marked(mention) and mention.option == head.option + 1 for mention in behind):
                on_one_line.add(head.start)
        return counting_up(self.heads) | on_one_line

    @cached_property
    def alone(self):
        """Mentions that have a line to themselves, in order, or begin the first line or one after a colon: "(B)
        It is ...".
        """
        listed_with_gaps = counting_up([line for line in self.heads if line[2]])
        found = []
        for start, end, head in self.heads:
            if not head or head.start in self.listed or head in self.denied:
                continue
            after_colon = self.text[max(0, start - 9):start].rstrip().endswith(":")
            begins = start == 0 or after_colon and head.start not in listed_with_gaps
            if begins or not self.text[head.end:end].strip(" .)"):
                found.append(head)
        return found


def counting_up(heads):
    """Starts of those heads whose options follow each other."""
    found = set()
    for (_, _, one), (_, _, other) in zip(heads, heads[1:]):
        if one and other and one.option is not None and other.option == one.option + 1:
            found |= {one.start, other.start}
    return found


# ---- 5. Choices: the rules, in the order in which they are tried -------------------------------------------
# A rule takes a Reading and returns an option's index, None (two answers, which is none), or UNDECIDED.
_ALONE = re.compile(r"\W{0,4}(?:(?:option|choice|answer|caption|output)\W{1,3})?"
                    r"([A-Za-z]|\d{1,3})\W{0,4}", re.I)
# What may stand between "the answer is" and an option: "the option (".
_LEADS = re.compile(r"[\s('=-]*(?:that\s)?(?:(?:the|an?|option|choice|letter|image)\s)*[(\[]*", re.I)
_CORRECT = re.compile(  # before it stands the answer: "is correct", "fits best"
    rf"{_APART}\s{{0,2}}(?:is|seems|appears|looks|would be|must be|has to be)(?:\sto be)?"
    r"(?:\s(?:the|most|more|clearly|therefore|thus|indeed)){0,3}"
    r"\s(?:correct|right|best|answer|appropriate|accurate|likely)\b"
    r"|\s(?:fits|matches|describes)\s(?:\w+\s){0,3}best\b", re.I)
_CONCLUDES = re.compile(  # at the head of a sentence, or within it
    r"[\s-]*(?:no,\s)?(?:therefore|thus|so|hence|consequently|in conclusion|in summary|to conclude|overall"
    r"|based on|given|considering|(?:by )?comparing|finally|as a result|this (?:means|suggests|indicates)|wait"
    r"|actually)\b"
    r"|[^.!?\n]*?(?:[,;]\s(?:therefore|thus|hence)|\b(?:I conclude|I believe|I think|my choice"
    r"|it (?:seems|appears) that|if (?:I|we|one) (?:must|had to|have to|were to)))\b", re.I)


def exact(reading):
    """A label and nothing else: "B", "(b)", "Option B.", "The second one."."""
    m = _ALONE.fullmatch(reading.text)
    if m:
        return reading.options.labels.get(m[1].upper(), UNDECIDED)
    said = " ".join(only_words(reading.text)) if len(reading.text) < 40 else ""
    return reading.options.ordinals.get(said.removesuffix(" 1"), UNDECIDED)


def stated(reading):
    """The last statement, since models change their minds: "The answer is A. Wait, no: the answer is B.", "B
    is correct", an option on a line of its own.
    """
    text, mentions = reading.text, reading.mentions
    found = [(mention.start, reading.chosen(mention)) for mention in reading.alone]
    for mention in reading.affirmed:
        if _CORRECT.match(text, mention.end):
            found.append((mention.start, reading.chosen(mention)))
    starts = [mention.start for mention in mentions]
    for m in _STATED.finditer(text):
        after = bisect_left(starts, m.end() - 1)
        mention = mentions[after] if after < len(mentions) else None
        leads = mention and _LEADS.fullmatch(text[m.end():mention.start])
        if leads and not _ASKED.match(text, mention.end):
            listed = mention.start in reading.listed
            found.append((mention.start, None if listed else reading.chosen(mention)))
    if not found:
        return UNDECIDED
    return max(found, key=lambda one: one[0])[1]


def total(reading):
    """Of numbers as options the total counts, not the first one: "1 on the left, 2 on the right: 3"."""
    words = reading.options.words
    all_numbers = all(len(option) == 1 and option[0].isdigit() for option in words)
    if not all_numbers or any(mention.by != TEXT for mention in reading.affirmed):
        return UNDECIDED
    said = read_number(reading.text, "count")
    return words.index((said,)) if (said,) in words else UNDECIDED


def concluded(reading):
    """The last sentence that concludes: "Therefore, the corresponding point is B.". None if it refuses."""
    for start, end in reversed(reading.sentences):
        cue = _CONCLUDES.match(reading.text, start, end)
        if not cue or reading.text[end - 1] == ":":
            continue
        said = reading.named(cue.end(), end)
        if len(said) == 1:
            return said.pop()
        if reading.refuses(start, end):
            return None
    return UNDECIDED


def praised(reading):
    """The option of the first sentence, if it praises one, else of the last sentence that does: "The second
    image is most similar. It ...". What was said before a refusal does not count.
    """
    verdicts, refused = [], 0
    for i, (start, end) in enumerate(reading.sentences):
        claims = i == 0 and reading.claims(start, end)
        praises = claims or reading.options.praise.search(reading.text, start, end)
        verdicts.append(reading.named(start, end) if praises else set())
        refused = i if reading.refuses(start, end) else refused
    for said in [*verdicts[:1], *reversed(verdicts[refused:])]:
        if len(said) == 1 and None not in said:
            return said.pop()
    return UNDECIDED


def mentioned(reading):
    """The one option that is named at all; of two the first sentence's, else the last. None if it refuses."""
    if reading.refusals:
        return None
    named = [reading.named(*span) - {None} for span in reading.sentences
             if not any(head in reading.listed for head in range(*span))]
    for said in [set().union(*named), *named[:1], *reversed(named)]:
        if len(said) == 1:
            return said.pop()
    return None


CHOICE_RULES = (exact, stated, total, concluded, praised, mentioned)


def read_choice(text, item):
    """The label of the option that a text chooses, by the first of CHOICE_RULES that decides; else None.

    None, too, for an option that has no label (the 27th letter).
    """
    options = known_options(tuple(item.options or ()), item.answer.isdigit(), item.question)
    reading = Reading(text, options)
    for rule in CHOICE_RULES:
        option = rule(reading)
        if option is not UNDECIDED:
            return dict(enumerate(options.labels)).get(option)
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
    r"(?![\w\\^]|/[\\\d])"  # nor 2\pi, 2^3, 2/\pi, 06/05/2024
    rf"|\b((?:{_NUMERALS})(?:[- ](?:{_NUMERALS}|hundred|thousand|and)){{0,5}})\b", re.I)
_TOTAL = re.compile(r"\b(?:total|(?<!let me )(?<!let's )count|number|sum|altogether|overall)\b[^.\n\d]{0,60}?"
                    rf"(?:\b(?:is|are|of(?=\s(?:\d|(?:{_NUMERALS})\b)))\b|:|=)|(?<=\d)\s?=", re.I)
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
