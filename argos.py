r"""Argos, the verifier: a response goes in, a reward between 0 and 1 comes out, with every reason why.

The paper (section 3.1) scores a response about a picture or a clip on three things, behind a gate:

    R_o   outcome            is the answer right?                           rules, or a language model
    R_vg  visual grounding   is what the reasoning points at really there?  detector, segmenter; clips: a judge
    R_rq  reasoning quality  does the answer follow from the reasoning?     p(answer | question, reasoning, media)

Simplified against the paper ("our choice" marks, here and below, what the paper is silent about):

1. A regular expression reads the claims about a clip (the paper asks GPT-4o, appendix D); a judge is asked
   only where the expression finds none and `extract` is on.
2. Rules select the scores of a response, unless a `selector` is given (paper: adaptive; it does not say how).
3. The policy is taken to be hostile: whatever it writes is data, is bounded in size, and never raises.
4. Teachers fail, too. A broken one drops its term out of R, for the whole group; one that fails at a single
   label, claim or answer scores that piece 0. The verdict names both (verifier/asking.py).

What no rule here can prevent, so look at the cards: a true point at something that the question is not about;
a label that is true of everything ("shape"); an empty or negative claim about a clip ("in frame 0 the yellow
cross is gone"); and R_rq is high for reasoning that merely says "the answer is 2". The gate makes each of them
worthless without a right answer. `python -m tiny.attacks` shows what each earns, and what the closed ones do.

    python argos.py tiny/example.png "How many red squares are there?" \
        '<think>I see <point x1="16" y1="44" alt="red square">red square</point>.</think><answer>2</answer>' \
        --answer 2 --kind count --card card.png

Before: nano.py (the idea in 200 lines). Next: verifier/claims.py (what a response says), verifier/answers.py
(is it right?), teachers/ (who detects, segments, points and judges), train_grpo.py (the reward at work).
"""
import argparse
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from runs.errors import BadInput, BadMedia, printable, run_main, warn
from verifier.answers import KINDS, MAX_THINK, check_truth, judged, outcome_by_rule
from verifier.answers import outcome_score  # noqa: F401  (eqs 6-8; people look for argos.outcome_score)
from verifier.asking import ItemFailed, TeacherFailed, Teachers
from verifier.cards import draw_card
from verifier.claims import FrameClaim, Parsed, SegmentClaim, parse
from verifier.coordinates import Media
from verifier.coverage import coverage, frames_pointed_at
from verifier.explain import explain
from verifier.extraction import add_claims
from verifier.foils import check_foils, foil_said, outcome_against, texts_to_compare
from verifier.media import load_media
from verifier.moments import frames_shown, look_ups, name_frames, question_about
from verifier.moments import which_frame  # noqa: F401  (benchmarks/report.py has it from here)
from verifier.points import PointVerdict, mean_of_means, score_points  # noqa: F401  (PointVerdict: report.py)
from verifier.samples import Sample, guess_kind
from verifier.selfcheck import self_check
from verifier.texts import unmarked


# ---- 1. The gate: how three scores become one reward -------------------------------------------------------
@dataclass(frozen=True)
class Weights:
    """The weights of eq. 9. The paper does not print its values: our choice. 0 switches a term off. Only their
    ratios matter: `gate` divides by the sum of those in use."""
    outcome: float = .5
    grounding: float = .25
    reasoning: float = .25

    def __post_init__(self):
        values = (self.outcome, self.grounding, self.reasoning)
        usable = all(math.isfinite(w) and w >= 0 for w in values)
        if not usable or self.outcome == 0:
            raise BadInput(f"weights {values}: use numbers >= 0, the first above 0")


def gate(outcome, grounding=None, reasoning=None, weights=Weights(), tau=.5):
    """The reward R in [0, 1], paper eq. 9:

        R = w_o R_o                              if R_o <  tau    a wrong answer earns nothing for points
        R = w_o R_o + w_vg R_vg + w_rq R_rq      if R_o >= tau

    A right answer with half of its points on target, then the same points under a wrong answer:

    >>> gate(outcome=1, grounding=.5, reasoning=1)          # .5 * 1 + .25 * .5 + .25 * 1
    0.875
    >>> gate(outcome=0, grounding=.5, reasoning=1)
    0.0

    A score that is None was not selected: its term drops out and the other weights are rescaled to sum to 1.

    >>> gate(outcome=1, grounding=.25)                      # (.5 * 1 + .25 * .25) / .75
    0.75

    So any open gate beats any closed one with the same terms: below w_o tau, and at least that.
    """
    return gate_arithmetic(outcome, grounding, reasoning, weights, tau)[0]


def gate_arithmetic(outcome, grounding, reasoning, weights, tau):
    """gate, and its sum written out for the card.

    >>> gate_arithmetic(1, 0, None, Weights(), .5)[1]
    'R = (0.50*1.00 + 0.25*0.00) / 0.75 = 0.67'
    """
    if not 0 < tau <= 1:
        raise BadInput(f"tau is {tau}; use a number above 0, at most 1")
    all_terms = [(weights.outcome, outcome), (weights.grounding, grounding), (weights.reasoning, reasoning)]
    selected = [(weight, score) for weight, score in all_terms if score is not None]
    if outcome is None or not all(0 <= score <= 1 for _, score in selected):
        raise BadInput(f"scores must lie in [0, 1]: {outcome}, {grounding}, {reasoning}")
    # BEGIN SOLUTION ex1
    counted = selected if outcome >= tau else selected[:1]  # behind a closed gate the outcome alone
    total_weight = sum(weight for weight, _ in selected)
    reward = min(1.0, sum(weight * score for weight, score in counted) / total_weight)  # 1.0: rounding
    # END SOLUTION
    written = " + ".join(f"{weight:.2f}*{score:.2f}" for weight, score in counted)
    return reward, f"R = ({written}) / {total_weight:.2f} = {reward:.2f}"


# ---- 2. The verdict: what comes out ------------------------------------------------------------------------
@dataclass
class Choice:
    """Whether a scoring function is used on a response, and why."""
    use: bool
    why: str

    def __str__(self):
        return f"{'yes' if self.use else 'no'}: {self.why}"


@dataclass
class ClaimVerdict:
    claim: FrameClaim | SegmentClaim
    score: float
    why: str
    frames: list        # indices of the frames that the judge was shown


@dataclass
class Verdict:
    """Everything that was found out about one response. Argos fills it in, term by term."""
    parsed: Parsed
    selected: dict                    # scoring function -> Choice: outcome, spatial, temporal, reasoning
    outcome: float | None = None      # R_o; None, here and below: not selected, or not scored
    grounding: float | None = None    # R_vg
    reasoning: float | None = None    # R_rq; None also where the gate is closed: then it could not count
    points: list = field(default_factory=list)          # of PointVerdict
    frame_scores: list = field(default_factory=list)    # of ClaimVerdict
    segment_scores: list = field(default_factory=list)  # of ClaimVerdict
    not_scored: dict = field(default_factory=dict)      # term -> why: a teacher failed, so it dropped out of R
    masks: dict = field(default_factory=dict, repr=False)  # (frame index, label) -> bool (H, W), for the card
    reward: float | None = None       # R of eq. 9; None: the truth is not known, or the outcome was not scored
    arithmetic: str = ""              # the gate's sum, written out

    def explain(self):
        """The verdict as lines of text: what was selected and why, every piece, and the gate's arithmetic."""
        return explain(self)


# ---- 3. The verifier ---------------------------------------------------------------------------------------
@dataclass
class Group:
    """The rollouts (sampled responses) of one sample, on their way to their verdicts."""
    sample: Sample
    media: Media
    verdicts: list                                  # one per response
    found: dict = field(default_factory=dict)       # (frame index, label) -> Found
    not_scored: dict = field(default_factory=dict)  # term -> why; of the whole group, so that nobody gains

    @property
    def grounding_function(self):
        return "temporal" if self.sample.media == "video" else "spatial"

    def to_ground(self):
        """The verdicts whose grounding was selected."""
        return [v for v in self.verdicts if v.selected[self.grounding_function].use]


@dataclass(eq=False)
class Argos:
    """The verifier. Its teachers follow the protocols in teachers/; without a pointer or judge (None), what
    needs one drops out."""
    detector: object
    segmenter: object
    pointer: object
    judge: object
    weights: Weights = Weights()
    tau: float = .5          # the gate's threshold on R_o (our choice)
    use: tuple = ("outcome", "grounding", "reasoning")  # the paper's ablations leave one out
    min_pixels: int = 7056   # how the policy saw the file; points are pixels of that (see load_media)
    max_pixels: int = 28224
    max_frames: int = 32
    length_normalized: bool = False  # R_rq: the geometric mean over the answer's tokens, not their product
    selector: object = None  # a model's choice of scores in place of the rules (see select)
    video_pixels: int | None = None
    foils: int = 2           # how many other truths a free answer must not mean (our choice; 0: the paper's judge)
    coverage: bool = False   # R_vg times the share of Sample.objects that points touch (beyond the paper)
    extract: bool = False    # the judge lists the claims of a clip's reasoning where rules find none
    failures: Counter = field(default_factory=Counter)  # what went wrong, by teacher and kind of error

    def __post_init__(self):
        if "outcome" not in self.use or set(self.use) - {"outcome", "grounding", "reasoning"}:
            raise BadInput(f"use={tuple(self.use)}: list outcome, and if you like grounding and reasoning")
        check_foils(self.foils)
        if self.extract and getattr(self.judge, "extract_claims", None) is None:
            raise BadInput("extract=True needs a judge that has extract_claims (see teachers.Judge)")
        self.teachers = Teachers(self.detector, self.segmenter, self.pointer, self.judge, self.failures)
        self.sizes = dict(min_pixels=self.min_pixels, max_pixels=self.max_pixels, max_frames=self.max_frames,
                          video_pixels=self.video_pixels)

    def load(self, sample):
        media = load_media(sample.path, **self.sizes)
        if sample.media == "image" and len(media.frames) > 1:
            raise BadMedia(f"{sample.path}: a clip of {len(media.frames)} frames in a row that says \"image\"; "
                           'write "video"')
        return media

    def usable(self, samples, report=None):
        """Load files -> (samples that can be read, their Media); others are named, counted, told to `report`."""
        readable, loaded = [], []
        for sample in samples:
            try:
                loaded.append(self.load(sample))
                readable.append(sample)
            except BadMedia as error:
                self.failures["damaged media"] += 1
                warn(f"left out: {error}")
                if report:
                    report(sample, error)
        return readable, loaded

    def verify(self, sample, response, media=None):
        """Score one response -> Verdict. media: the loaded file, where the caller has it. Raises BadMedia where
        the sample's file cannot be read; a response raises nothing.

            from teachers.names import load_teachers
            verifier = Argos(*load_teachers(), judge=None, weights=Weights(.6, .4, 0))
            sample = Sample("a", "How many red squares?", "2", "count", "tiny/example.png")
            print(verifier.verify(sample, "<think>I count.</think><answer>2</answer>").explain())
        """
        return self.verify_group(sample, [response], media)[0]

    def verify_group(self, sample, responses, media=None):
        """Score all responses to one sample -> Verdicts."""
        return self.verify_groups([sample], [responses], [media or self.load(sample)])[0]

    def verify_groups(self, samples, groups, media=None):
        """One group of responses per sample -> one list of Verdicts per sample, in five steps. What a group
        shares is done once: the file is loaded, each label of a frame detected and segmented, each different
        answer, claim and reasoning judged. One call covers all labels of a frame, or all questions of a kind."""
        media = media or [self.load(sample) for sample in samples]
        work = [self._read(*one) for one in zip(samples, media, groups, strict=True)]
        self._score_outcomes(work)
        self._score_grounding(work)
        self._score_reasoning(work)
        for group in work:
            for verdict in group.verdicts:
                self._close(group, verdict)
        return [group.verdicts for group in work]

    # -- step 1: what do the responses say, and which scores do they get?

    def _read(self, sample, media, responses):
        allowed = [*(sample.options or []), sample.answer or ""]  # else "red or blue" is a hedge
        parsed = [parse(response, sample.media, allowed) for response in responses]
        selected = select(sample, parsed, self.teachers.at_hand, self.use, self.selector)
        verdicts = [Verdict(one, choices) for one, choices in zip(parsed, selected)]
        return Group(sample, media, verdicts)

    # -- step 2: R_o

    def _score_outcomes(self, work):
        """R_o of every response (eqs 6-8): by rules where they can tell; the judge gets all others at once, with
        foils (verifier/foils.py)."""
        known = [group for group in work if group.sample.answer is not None]
        questions = {}
        for group in known:
            sample = group.sample
            texts = texts_to_compare(sample, self.foils)
            for v in group.verdicts:
                answer = v.parsed.answer
                v.outcome = 0.0
                if answer is None:
                    continue
                by_rule = outcome_by_rule(answer, sample.answer, sample.kind, sample.options)
                if by_rule is not None:
                    v.outcome = by_rule
                elif self.judge and foil_said(answer, texts):
                    v.selected["outcome"].why += f"; it is {answer[:60]!r}, another truth"
                elif self.judge:
                    for text in texts:
                        question = ("equivalent", sample.question, unmarked(text), judged(unmarked(answer)))
                        questions[id(group), answer, text] = question
        replies = self.teachers.yes_or_no(questions)
        for group in known:
            texts = texts_to_compare(group.sample, self.foils)
            for v in group.verdicts:
                keys = [(id(group), v.parsed.answer, text) for text in texts]
                if keys[0] not in replies:
                    continue
                v.outcome, why = outcome_against(texts, [replies[key] for key in keys], self.foils)
                if v.outcome is None:
                    group.not_scored["outcome"] = why
                else:
                    v.selected["outcome"].why += why
            if "outcome" in group.not_scored:
                for v in group.verdicts:
                    v.outcome = None

    def _gate_open(self, verdict):
        return verdict.outcome is None or verdict.outcome >= self.tau

    # -- step 3: R_vg

    def _score_grounding(self, work):
        """R_vg of every response (eqs 1-4, appendix D): find the masks, judge the claims, average."""
        questions = {}
        for group in work:
            try:
                if self.extract and group.sample.media == "video":
                    add_claims(self.teachers, [v.parsed for v in group.to_ground()])
                self._find_masks(group)
                questions |= self._claim_questions(group)
            except TeacherFailed as error:
                group.not_scored["grounding"] = str(error)
        replies = self.teachers.yes_or_no(questions)
        for group in work:
            for key, reply in replies.items():
                if key[0] == id(group) and isinstance(reply, TeacherFailed):
                    group.not_scored.setdefault("grounding", str(reply))
            if "grounding" not in group.not_scored:
                for verdict in group.to_ground():
                    self._ground(group, verdict, replies)

    def _find_masks(self, group):
        """Eq. 1, M_i = S(I, D(I, o_i)), for all points of a group: detector D and segmenter S once per frame.
        A mask M is a picture of yes and no: which pixels belong to the thing that the label o names."""
        wanted = {}  # frame index -> {label: None}: each label once, in order
        for verdict in group.to_ground():
            for frame, label in look_ups(group.media, verdict.parsed):
                wanted.setdefault(frame, {})[label] = None
            for frame in frames_pointed_at(group.media, verdict.parsed) if self.coverage else []:
                wanted.setdefault(frame, {}).update((name.lower(), None) for name in group.sample.objects)
        # Paper: detectors fail on charts and maps, pointing models do not.
        pointed = group.sample.drawn and self.pointer is not None
        for frame, labels in wanted.items():
            for label, found in self.teachers.find(group.media.frames[frame], list(labels), pointed).items():
                group.found[frame, label] = found

    def _claim_questions(self, group):
        """{key: what to ask the judge} about all claims that name a frame. One key is one question."""
        questions = {}
        for verdict in group.to_ground() if self.judge else []:
            for claim in verdict.parsed.frame_claims + verdict.parsed.segment_claims:
                question = question_about(group.media, claim)
                if question:
                    questions[claim_key(group, claim)] = question
        return questions

    def _ground(self, group, verdict, replies):
        """R_vg of one response (eqs 2-4). A picture has one set of pieces, a clip three: points, frame claims,
        segment claims. Points that cannot be read are misses (our choice)."""
        parsed = verdict.parsed
        own = look_ups(group.media, parsed)  # what another rollout had looked up does not help this one
        verdict.points = score_points(group.media, parsed.points, {at: group.found[at] for at in own})
        verdict.masks = {at: group.found[at].mask for at in own}
        if self.judge:
            verdict.frame_scores = [self._ground_claim(group, c, replies) for c in parsed.frame_claims]
            verdict.segment_scores = [self._ground_claim(group, c, replies) for c in parsed.segment_claims]
        sets = [[piece.score for piece in verdict.points] + [0.0] * sum(parsed.unreadable.values()),
                [piece.score for piece in verdict.frame_scores],
                [piece.score for piece in verdict.segment_scores]]
        verdict.grounding = mean_of_means(sets)
        if self.coverage:
            frames = frames_pointed_at(group.media, parsed)
            share, why = coverage(group.sample.objects, frames, verdict.points, group.found)
            verdict.grounding *= share
            verdict.selected[group.grounding_function].why += why

    def _ground_claim(self, group, claim, replies):
        """Eq. 4's judge, who sees the claim's frames: 1 if it agrees, else 0."""
        shown, why = frames_shown(group.media, claim)
        if not shown:
            return ClaimVerdict(claim, 0.0, why, [])
        reply = replies[claim_key(group, claim)]
        if isinstance(reply, ItemFailed):
            return ClaimVerdict(claim, 0.0, reply.why, shown)
        why = f"the judge {'agrees' if reply else 'disagrees'}, shown {name_frames(claim, shown)}"
        return ClaimVerdict(claim, float(reply), why, shown)

    # -- step 4: R_rq

    def _score_reasoning(self, work):
        """R_rq of every response behind an open gate (eq. 5): how probable a teacher finds the answer, given
        the reasoning. 0 without reasoning, as nothing supports the answer, or an answer (our choices)."""
        asked = []  # of (group, {what the teacher is asked about: the verdicts on who said just that})
        for group in work:
            said = {}
            for v in group.verdicts:
                if not (v.selected["reasoning"].use and self._gate_open(v)):
                    continue
                v.reasoning = 0.0
                think = judged(v.parsed.think, MAX_THINK)
                answer = judged(unmarked(v.parsed.answer or ""))  # \boxed is no part of what is probable
                if think and answer:
                    said.setdefault((think, answer), []).append(v)
            if said:
                asked.append((group, said))
        questions = [(group.media, group.sample.question, list(said)) for group, said in asked]
        replies = self.teachers.probabilities(questions, self.length_normalized)
        for (group, said), values in zip(asked, replies):
            if isinstance(values, TeacherFailed):
                group.not_scored["reasoning"] = str(values)
                continue
            for verdicts, value in zip(said.values(), values):
                for v in verdicts:
                    if isinstance(value, ItemFailed):
                        v.selected["reasoning"].why += f"; on this response {value.why}"
                    else:
                        v.reasoning = value

    # -- step 5: R

    def _close(self, group, v):
        """The gate, and the reasons for what did not get through it."""
        terms = {}
        for term, function in (("grounding", group.grounding_function), ("reasoning", "reasoning")):
            choice = v.selected[function]
            if choice.use and term in group.not_scored:
                v.not_scored[term] = group.not_scored[term]
                setattr(v, term, None)
                choice.why += f"; not scored: {v.not_scored[term]}"
            terms[term] = getattr(v, term)
            if choice.use and terms[term] is None and term not in v.not_scored:
                choice.why += "; not computed: the gate is closed"
                terms[term] = 0.0  # it keeps its weight, so that R does not depend on what was computed
        if "outcome" in group.not_scored:
            v.not_scored["outcome"] = group.not_scored["outcome"]
            v.selected["outcome"].why += f"; not scored: {v.not_scored['outcome']}"
            v.arithmetic = "the outcome was not scored: there is no reward"
        elif v.outcome is None:
            v.arithmetic = "no truth was given: there is no reward"
        else:
            v.reward, sums = gate_arithmetic(v.outcome, **terms, weights=self.weights, tau=self.tau)
            state, sign = ("open", ">=") if self._gate_open(v) else ("closed", "<")
            v.arithmetic = f"gate {state}: outcome {v.outcome:.2f} {sign} tau {self.tau:.2f}\n{sums}"

    # -- for people

    def card(self, sample, response, verdict, path):
        draw_card(self.load(sample), sample, response, verdict, verdict.masks, path)

    def self_check(self):
        """Stop where points would miss: a point in the policy's pixels must hit a drawn square, others not."""
        self_check(Argos(self.detector, self.segmenter, None, None), self.sizes)


def claim_key(group, claim):
    frames, _ = frames_shown(group.media, claim)
    return id(group), isinstance(claim, FrameClaim), *frames, claim.text.lower()


# ---- 4. Selection: which scores does a response get? -------------------------------------------------------
FUNCTIONS = ("outcome", "spatial", "temporal", "reasoning")


def select(sample, group, teachers, use=("outcome", "grounding", "reasoning"), selector=None):
    """Which scoring functions a group of responses gets -> one {function: Choice} per response, all with the
    same choices (paper 3.1: adaptive; the rules are ours).

    group: the Parsed of each response. teachers: names of those at hand, of "detector", "pointer", "judge".
    selector: a model's choice instead of the rules, a function (sample, parsed) -> {function: why}; what it
    chooses for one response is chosen for all. The outcome is always chosen; what is impossible or switched off
    never is.

    Why one choice for the group: where grounding is not called for, a response that claimed nothing once had its
    term dropped and got 1.0, beside .975 for one with good points. So as soon as one response claims something,
    all are scored on it, and one without claims has R_vg = 0. Within a group (which is what GRPO compares)
    claiming nothing then never beats a true claim. A response that is verified alone is its own group.
    """
    clip = sample.media == "video"
    grounding, other = ("temporal", "spatial") if clip else ("spatial", "temporal")
    never = {other: "this is a clip" if clip else "this is a picture"}
    if sample.answer is None:
        never["outcome"] = "the truth is not known"
    if "grounding" not in use:
        never[grounding] = "switched off"
    elif "detector" not in teachers:
        never[grounding] = "there is no detector and segmenter"
    if "reasoning" not in use:
        never["reasoning"] = "switched off"
    elif "judge" not in teachers:
        never["reasoning"] = "there is no judge"

    if selector:
        chosen = {}
        for parsed in group:
            chosen = dict(selector(sample, parsed)) | chosen
        otherwise = "the selector left it out"
    else:
        chosen = _by_rule(sample, group, teachers, grounding)
        otherwise = "the sample does not call for grounding"
    unknown = sorted(chosen.keys() - set(FUNCTIONS))
    if unknown:
        raise BadInput(f"the selector chose {unknown}; it may choose {', '.join(FUNCTIONS)}")
    chosen["outcome"] = KINDS[sample.kind]
    selected = []
    for _ in group:  # each gets Choices of its own: more may be added to a reason later
        choices = {function: Choice(False, otherwise) for function in FUNCTIONS}
        choices |= {function: Choice(True, str(why)) for function, why in chosen.items()}
        choices |= {function: Choice(False, why) for function, why in never.items()}  # what is impossible wins
        selected.append(choices)
    return selected


def _by_rule(sample, group, teachers, grounding):
    """The rules: reasoning always; grounding where the sample calls for it, or a response claims something."""
    chosen = {"reasoning": "p(answer | question, reasoning, picture)"}
    claims = sum(parsed.pieces for parsed in group)
    if sample.grounding:
        why = "the sample calls for grounding"
    elif claims:
        why = f"not called for, but the group's {claims} claimed piece{'s' if claims > 1 else ''} can be checked"
    else:
        return chosen
    if sample.media == "video" and "judge" not in teachers:
        why += "; without a judge only points count"
    if sample.drawn and "pointer" in teachers:
        why += "; a drawn picture, so the pointing model prompts the segmenter"
    chosen[grounding] = why
    return chosen


# ---- 5. The command line -----------------------------------------------------------------------------------
def main():
    parser = argparse.ArgumentParser(description="Verify one response about a picture or clip, and say why.")
    add = parser.add_argument
    add("media", metavar="IMAGE_OR_VIDEO", help="a picture, an animated PNG, GIF or WebP, or a video")
    add("question")
    add("response", help="<think>...</think><answer>...</answer>, pixels of the picture as the policy saw it")
    add("--answer", help="the truth; without it there is grounding, but no reward")
    add("--kind", choices=KINDS, help="default: choice with --options, else number if it is one, else phrase")
    add("--options", nargs="+", metavar="OPTION", help="the options of a multiple choice, in order")
    add("--card", metavar="FILE.png", help="write the verification card here")
    add("--judge", metavar="FOLDER", help="a vision-language model, for reasoning, claims and free text; none: "
        "do without; default: tiny/teacher where it exists")
    add("--detector", default="pixels", help="who finds what a label names, NAME or NAME:FOLDER (teachers/)")
    add("--segmenter", default="pixels", help="who turns boxes into masks")
    add("--pointer", default="pixels", help="who points in charts and maps")
    add("--teacher_cache", metavar="FOLDER", help="keep the teachers' answers here")
    add("--min_pixels", type=int, default=7056, help="the policy's pixel budget: a smaller picture is enlarged")
    add("--max_pixels", type=int, default=28224, help="a larger picture or frame is shrunk")
    add("--video_pixels", type=int, help="most pixels of all frames of a clip together")
    add("--max_frames", type=int, default=32, help="frames of a clip")
    args = parser.parse_args()

    from teachers.names import load_judge, load_teachers  # torch, transformers: only this command needs them

    shipped = Path(__file__).parent / "tiny" / "teacher"
    folder = args.judge or (str(shipped) if (shipped / "config.json").is_file() else "none")
    judge = None if folder == "none" else load_judge(folder)
    teachers = load_teachers(args.detector, args.segmenter, args.pointer, cache=args.teacher_cache)
    verifier = Argos(*teachers, judge, min_pixels=args.min_pixels, max_pixels=args.max_pixels,
                     video_pixels=args.video_pixels, max_frames=args.max_frames)
    media = load_media(args.media, **verifier.sizes)
    kind = args.kind or guess_kind(args.answer, args.options)
    if args.answer is not None:
        check_truth(args.answer, kind, args.options)
    medium = "video" if len(media.frames) > 1 else "image"
    sample = Sample("command line", args.question, args.answer, kind, args.media, medium, args.options)
    verdict = verifier.verify(sample, args.response, media)
    print(verdict.explain())
    if args.card:
        draw_card(media, sample, args.response, verdict, verdict.masks, args.card)
        print(f"card: {printable(args.card)}")


if __name__ == "__main__":
    run_main(main)
