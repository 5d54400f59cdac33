"""Judges: asking a vision-language model."""
import math
import re
from contextlib import nullcontext

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import policy as P
from teachers.loading import device_of, load
from verifier.coordinates import Media


# ---- 2. Asking a vision-language model: judges and pointers -------------------------------------------------------------
# policy.py and torch are imported where a model is really asked: the roles and the noise do without.
_SECTION = re.compile(r"<(?=/?(?:think|answer)\b)", re.I)


def defuse(text, tokenizer=None, limit=2_000):
    """Text of unknown origin as harmless data for a prompt: the first `limit` characters, total on any str, idempotent.

    A tokenizer reads "<|im_end|>" or "<|image_pad|>" inside a text as the real token; a space inside keeps them plain text.
    So do section tags, or a reasoning could close itself and write its own answer. tokenizer: break its special tokens, too,
    whatever they look like ("<s>", "[MASK]").
    """
    text = text[:limit].encode("utf-8", "replace").decode()  # a lone surrogate would raise in the tokenizer
    return _unspecial(_SECTION.sub("< ", text), tokenizer)


def _unspecial(text, tokenizer=None):
    text = text.replace("<|", "< |")
    for token in [t.content for t in tokenizer.added_tokens_decoder.values() if t.special] if tokenizer else ():
        text = text.replace(token, token[0] + " " + token[1:])
    return text


def quoted(text, tokenizer, limit):
    """Defused, and on one line without the double quotes that could end its quotation."""
    return " ".join(defuse(text, tokenizer, limit).replace('"', "'").split())


def one_frame(image):
    return Media([image], [0.0], image.size)


def media_of(frames, seconds):
    return Media(frames=list(frames), seconds=list(seconds), original_size=frames[0].size)


class VLM:
    """policy: a policy.Policy. preset: whose prompts, unless given the policy's own ("tiny" or "7b").

    adapter_off: ask the policy's own frozen base instead, at no extra memory (SPEC section 2).
    """

    def __init__(self, policy, preset=None, adapter_off=False):
        self.policy, self.preset, self.adapter_off = policy, preset or policy.preset, adapter_off

    def _ask(self, act, asked):
        """asked: [(media or None, key of the prompt, its texts)] -> act(policy module, encoded prompts) in the right mode. The
        vision tower runs once for each of them."""
        with P.adapter_off(self.policy) if self.adapter_off else nullcontext():
            return act(P.encode_prompts(self.policy, [(m, P.prompt(self.preset, key, **texts)) for m, key, texts in asked]))


class VLMJudge(VLM):
    """See Judge. Yes or no is whichever is the likelier first token of the reply. Claims and answers: 500 characters at most."""

    @property
    def tokenizer(self):
        return self.policy.tokenizer

    def _choose(self, asked):
        """-> how likely each reply starts with (yes, no)."""
        return self._ask(lambda prompts: P.choose(self.policy, prompts, ("yes", "no")).tolist(), asked)

    def _logprobs(self, media, question, thinks, answers):
        """-> log p of each answer after its opened sections, and its tokens: (G,), (G,)."""
        chunk = None if self.preset == "tiny" else 1  # logits of 8 long rollouts over 152,064 tokens would fill a GPU
        return self._ask(lambda prompt: P.answer_logprobs(self.policy, prompt, answers, thinks, chunk),
                         [(media, "reason", dict(question=question))])

    def _replies(self, asked, max_new_tokens):
        """-> what it writes, greedily, to each."""
        return self._ask(lambda prompts: P.sample(self.policy, prompts, 1, max_new_tokens=max_new_tokens, greedy=True).texts, asked)

    def equivalent(self, question, truth, prediction):
        """The prompt compares the two answers without the question, which could only distract (our choice)."""
        return self.yes_or_no([("equivalent", question, truth, prediction)])[0]

    def frame_claim(self, image, claim):
        return self.yes_or_no([("frame_claim", image, claim)])[0]

    def segment_claim(self, frames, seconds, claim):
        return self.yes_or_no([("segment_claim", frames, seconds, claim)])[0]

    def yes_or_no(self, questions):
        """A batch shows at most 32 frames at a time (our choice)."""
        forms = {"equivalent": lambda question, truth, said: (None, "same", dict(truth=str(truth), prediction=str(said))),
                 "frame_claim": lambda image, claim: (one_frame(image), "frame", dict(claim=claim)),
                 "segment_claim": lambda frames, seconds, claim: (media_of(frames, seconds), "segment", dict(claim=claim))}
        asked = [forms[name](*arguments) for name, *arguments in questions]
        asked = [(m, key, {k: quoted(text, self.tokenizer, 500) for k, text in texts.items()}) for m, key, texts in asked]
        step = max(1, 32 // max((len(m.frames) for m, _, _ in asked if m), default=1))
        return [yes > no for i in range(0, len(asked), step) for yes, no in self._choose(asked[i:i + step])]

    def extract_claims(self, thinks, max_new_tokens=1024):
        """The reasoning is read without the clip, which could only tempt the judge to add what it sees (our choice)."""
        limit = {"tiny": 2_000}.get(self.preset, 20_000)
        asked = [(None, "claims", dict(claim=quoted(t, self.tokenizer, limit))) for t in thinks]
        return [text for i in range(0, len(asked), 8) for text in self._replies(asked[i:i + 8], max_new_tokens)]

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        """Paper eq. 5: p(answer | question prompt, "<think>" think "</think><answer>"), teacher-forced, for a group in one batch.

        The product over the answer's tokens; length_normalized: their geometric mean. The closing "</answer>" is not part of
        the product (our choice: it would score the habit of stopping, not the answer). No answer has probability 0.
        """
        if not thinks:
            return []
        limit = {"tiny": 2_000}.get(self.preset, 20_000)
        thinks = [f"<think>{defuse(t or '', self.tokenizer, limit)}</think><answer>" for t in thinks]
        answers = [defuse(a or "", self.tokenizer, limit=500) for a in answers]
        logp, counts = self._logprobs(media, question, thinks, answers)  # (G,), (G,)
        return (logp / counts.clamp(min=1) if length_normalized else logp).exp().tolist()


class PlainJudge(VLMJudge):
    """VLMJudge for every other model of the Auto classes (GLM-4.1V, GLM-4.5V): the library's plain forward, one row at a time.

    policy.py's fast path writes out Qwen2.5-VL's positions; here the library finds its own, so each response of a group reads
    the picture anew. A clip is shown as pictures, each behind its time: exact in any chat template (GLM's own cuts 2.5 seconds
    to 2). Models that think first are asked for yes or no with their thinking left empty (our choice).
    """

    def __init__(self, name, preset="7b", device=None, dtype="auto"):
        self.preset, self.device = preset, device_of(device)
        self.processor, = load("judge", name, AutoProcessor)
        self.model = load("judge", name, AutoModelForImageTextToText, dtype=dtype)[0].to(self.device).eval()

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    def _inputs(self, media, key, **texts):
        content, frames = [], media.frames if media else []
        for frame, seconds in zip(frames, media.seconds if media else []):
            content += [{"type": "text", "text": f"{seconds:.1f} seconds:"}] * (len(frames) > 1) + [{"type": "image"}]
        content.append({"type": "text", "text": _unspecial(P.prompt(self.preset, key, **texts), self.tokenizer)})
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        return self.processor(text=[chat], images=frames or None, add_special_tokens=False, return_tensors="pt").to(self.device)

    def _logits(self, media, key, replies, **texts):
        """replies: (given, scored) pairs of token lists. Yields (len(scored) + 1, V) float32 for each: row t predicts scored[t]."""
        inputs = self._inputs(media, key, **texts)
        for given, scored in replies:
            more = torch.tensor([given + scored], dtype=torch.long, device=self.device)  # (1, T)
            row = dict(inputs, input_ids=torch.cat([inputs["input_ids"], more], 1))
            for name in {"attention_mask", "mm_token_type_ids", "token_type_ids"} & inputs.keys():  # without the last two, pictures
                fill = torch.full_like(more, name == "attention_mask")                              # silently lose their places
                row[name] = torch.cat([inputs[name], fill], 1)
            with torch.no_grad():
                logits = self.model(**row, use_cache=False, logits_to_keep=len(scored) + 1).logits[0].float()
            yield logits

    def _tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _choose(self, asked):
        opened = "<think></think><answer>" if "<think>" in self.tokenizer.get_vocab() else ""
        starts = [[self._tokens(form)[0] for form in (word, word.capitalize())] for word in ("yes", "no")]
        rows = [next(self._logits(media, key, [(self._tokens(opened), [])], **texts)) for media, key, texts in asked]  # (1, V) each
        return [[float(logits[0, start].logsumexp(0)) for start in starts] for logits in rows]

    def _replies(self, asked, max_new_tokens):
        texts = []
        for media, key, fields in asked:
            inputs = self._inputs(media, key, **fields)
            with torch.no_grad():
                ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            texts.append(self.tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
        return texts

    def _logprobs(self, media, question, thinks, answers):
        replies = [(self._tokens(t), self._tokens(a)) for t, a in zip(thinks, answers)]
        logp, counts = [], torch.tensor([len(a) for _, a in replies])
        for logits, (_, answer) in zip(self._logits(media, "reason", replies, question=question), replies):
            wanted = torch.tensor(answer, dtype=torch.long, device=logits.device)[:, None]  # (n, 1)
            logp.append(float(logits[:-1].log_softmax(-1).gather(1, wanted).sum()) if answer else -math.inf)
        return torch.tensor(logp), counts  # (G,), (G,)
