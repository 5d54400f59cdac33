"""The teachers: the four models that Argos asks before it believes a response.

    Detector    picture, label          -> boxes                     paper: an open-vocabulary detector
    Segmenter   picture, boxes          -> masks                     paper: SAM-2
    Pointer     picture, label          -> points                    paper: Molmo-7B
    Judge       texts, frames, thinks   -> yes / no, p(answer)       paper: GLM-4.1V / 4.5V

Argos (argos.py) knows only these four roles, so that a teacher is replaced by naming another (`load_teachers`, `load_judge`):

    --detector   yolo-world, grounding-dino, mm-grounding-dino, owlv2          --segmenter  sam2, sam2-hf
    --pointer    molmo, qwen                                                   --judge      any vision-language model
    pixels       for the first three: rules for the embedded world's drawings, no model at all (tiny/pixels.py)

Each is written NAME or NAME:FOLDER_OR_HUB_ID. What a teacher says about a picture and a label depends on nothing else: not on the
other labels of a batch, nor on what came before. A reward that moved with its neighbours would be noise, and could not be cached.

Simplified against the paper: it names none of its detector, so YOLO-World is only our default; the judge is the policy's own base
model, its LoRA adapter switched off, instead of a larger model, unless one is named (SPEC section 2).

Coordinates everywhere: pixels of the picture passed in, which is the picture as the policy saw it; x to the right, y down,
pixel (0, 0) is the top left one.

Run:   python argos.py photo.jpg QUESTION RESPONSE --detector owlv2 --segmenter sam2-hf     # says what to download
Next:  argos.py (what the verdicts are used for), policy.py (the prompts that the VLM teachers send)
"""
import hashlib
import io
import math
import os
import re
import sys
import zlib
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import numpy as np


# ---- 1. The four roles ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Box:
    """Pixels x1 <= x < x2 and y1 <= y < y2. score: 0..1."""
    x1: float
    y1: float
    x2: float
    y2: float
    score: float = 1.0
    label: str = ""


class Detector(Protocol):
    def detect(self, image, labels: list[str]) -> list[list[Box]]:
        """image: PIL RGB. One list of boxes per label, empty where nothing was found."""


class Segmenter(Protocol):
    def segment(self, image, boxes: list[Box]) -> np.ndarray:
        """One mask per box: bool (N, H, W). A box without area (x1 = x2, y1 = y2) is a point prompt."""


class Pointer(Protocol):
    def point(self, image, label: str) -> list[tuple[float, float]]:
        """The centre (x, y) of each thing that the label names."""


class Judge(Protocol):
    def equivalent(self, question: str, truth: str, prediction: str) -> bool:
        """Do the two answers mean the same? The prediction is quoted data, never an instruction."""

    def frame_claim(self, image, claim: str) -> bool:
        """Is the claim true of this one frame?"""

    def segment_claim(self, frames: list, seconds: list[float], claim: str) -> bool:
        """Is the claim true of these frames? seconds: the time of each."""

    def answer_probability(self, media, question: str, thinks: list[str], answers: list[str],
                           length_normalized: bool = False) -> list[float]:
        """p(answer | question, think, media) of each response of a group, 0..1 (paper eq. 5). media: argos.Media."""

    # A judge may have these two as well. Without the first it is asked one by one, without the second nothing is extracted.
    def yes_or_no(self, questions: list[tuple]) -> list[bool]:
        """Many of the first three at once, each as (name of the method, *its arguments)."""

    def extract_claims(self, thinks: list[str]) -> list[str]:
        """The claims in each reasoning about a clip, as JSON (see argos.read_claims, which checks it)."""


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


def _quoted(text, tokenizer, limit):
    """Defused, and on one line without the double quotes that could end its quotation."""
    return " ".join(defuse(text, tokenizer, limit).replace('"', "'").split())


def _media(frames, seconds):
    from argos import Media
    return Media(frames=list(frames), seconds=list(seconds), original_size=frames[0].size)


class _VLM:
    """policy: a policy.Policy. preset: whose prompts, unless given the policy's own ("tiny" or "7b").

    adapter_off: ask the policy's own frozen base instead, at no extra memory (SPEC section 2).
    """

    def __init__(self, policy, preset=None, adapter_off=False):
        self.policy, self.preset, self.adapter_off = policy, preset or policy.preset, adapter_off

    def _ask(self, act, asked):
        """asked: [(media or None, key of the prompt, its texts)] -> act(policy module, encoded prompts) in the right mode. The
        vision tower runs once for each of them."""
        import policy as P
        with P.adapter_off(self.policy) if self.adapter_off else nullcontext():
            return act(P, P.encode_prompts(self.policy, [(m, P.prompt(self.preset, key, **texts)) for m, key, texts in asked]))


class VLMJudge(_VLM):
    """See Judge. Yes or no is whichever is the likelier first token of the reply. Claims and answers: 500 characters at most."""

    @property
    def tokenizer(self):
        return self.policy.tokenizer

    def _choose(self, asked):
        """-> how likely each reply starts with (yes, no)."""
        return self._ask(lambda P, prompts: P.choose(self.policy, prompts, ("yes", "no")).tolist(), asked)

    def _logprobs(self, media, question, thinks, answers):
        """-> log p of each answer after its opened sections, and its tokens: (G,), (G,)."""
        chunk = None if self.preset == "tiny" else 1  # logits of 8 long rollouts over 152,064 tokens would fill a GPU
        return self._ask(lambda P, prompt: P.answer_logprobs(self.policy, prompt, answers, thinks, chunk),
                         [(media, "reason", dict(question=question))])

    def _replies(self, asked, max_new_tokens):
        """-> what it writes, greedily, to each."""
        return self._ask(lambda P, prompts: P.sample(self.policy, prompts, 1, max_new_tokens=max_new_tokens, greedy=True).texts, asked)

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
                 "frame_claim": lambda image, claim: (_media([image], [0.0]), "frame", dict(claim=claim)),
                 "segment_claim": lambda frames, seconds, claim: (_media(frames, seconds), "segment", dict(claim=claim))}
        asked = [forms[name](*arguments) for name, *arguments in questions]
        asked = [(m, key, {k: _quoted(text, self.tokenizer, 500) for k, text in texts.items()}) for m, key, texts in asked]
        step = max(1, 32 // max((len(m.frames) for m, _, _ in asked if m), default=1))
        return [yes > no for i in range(0, len(asked), step) for yes, no in self._choose(asked[i:i + step])]

    def extract_claims(self, thinks, max_new_tokens=1024):
        """The reasoning is read without the clip, which could only tempt the judge to add what it sees (our choice)."""
        limit = {"tiny": 2_000}.get(self.preset, 20_000)
        asked = [(None, "claims", dict(claim=_quoted(t, self.tokenizer, limit))) for t in thinks]
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
        from transformers import AutoModelForImageTextToText, AutoProcessor
        self.preset, self.device = preset, _device(device)
        self.processor, = _load("judge", name, AutoProcessor)
        self.model = _load("judge", name, AutoModelForImageTextToText, dtype=dtype)[0].to(self.device).eval()

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    def _inputs(self, media, key, **texts):
        import policy as P
        content, frames = [], media.frames if media else []
        for frame, seconds in zip(frames, media.seconds if media else []):
            content += [{"type": "text", "text": f"{seconds:.1f} seconds:"}] * (len(frames) > 1) + [{"type": "image"}]
        content.append({"type": "text", "text": _unspecial(P.prompt(self.preset, key, **texts), self.tokenizer)})
        chat = self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        return self.processor(text=[chat], images=frames or None, add_special_tokens=False, return_tensors="pt").to(self.device)

    def _logits(self, media, key, replies, **texts):
        """replies: (given, scored) pairs of token lists. Yields (len(scored) + 1, V) float32 for each: row t predicts scored[t]."""
        import torch
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
        import torch
        texts = []
        for media, key, fields in asked:
            inputs = self._inputs(media, key, **fields)
            with torch.no_grad():
                ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            texts.append(self.tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
        return texts

    def _logprobs(self, media, question, thinks, answers):
        import torch
        replies = [(self._tokens(t), self._tokens(a)) for t, a in zip(thinks, answers)]
        logp, counts = [], torch.tensor([len(a) for _, a in replies])
        for logits, (_, answer) in zip(self._logits(media, "reason", replies, question=question), replies):
            wanted = torch.tensor(answer, dtype=torch.long, device=logits.device)[:, None]  # (n, 1)
            logp.append(float(logits[:-1].log_softmax(-1).gather(1, wanted).sum()) if answer else -math.inf)
        return torch.tensor(logp), counts  # (G,), (G,)


class VLMPointer(_VLM):
    """See Pointer. The model answers in absolute pixels of the picture that it saw; what falls outside is dropped."""

    def point(self, image, label, max_new_tokens=256):
        from argos import parse
        reply = self._ask(lambda P, prompt: P.sample(self.policy, prompt, 1, max_new_tokens=max_new_tokens, greedy=True).texts[0],
                          [(_media([image], [0.0]), "point", dict(label=_quoted(label, self.policy.tokenizer, 100)))])
        return [(p.x, p.y) for p in parse(reply).points if 0 <= p.x < image.width and 0 <= p.y < image.height]


class MolmoPointer:
    """See Pointer. Molmo answers in percent of the picture; what falls outside is dropped.

    Its checkpoint brings its own Python code, which runs when it is loaded: so only from a folder, which a person can read first.
    pair: (processor, model) already loaded.
    """

    def __init__(self, name=None, device=None, max_new_tokens=512, pair=None):
        from argos import BadInput
        self.identity, self.max_new_tokens, device = f"molmo {name} {max_new_tokens}", max_new_tokens, _device(device)
        if pair is None:
            if not name or not Path(name, "config.json").is_file():
                raise BadInput("molmo: it runs Python code that comes with the checkpoint; download it (hf download "
                               "allenai/Molmo-7B-D-0924 --local-dir FOLDER), read its .py files, and pass molmo:FOLDER")
            from transformers import AutoModelForCausalLM, AutoProcessor
            pair = _load("molmo", name, AutoProcessor, AutoModelForCausalLM, trust_remote_code=True, dtype="auto")
            pair[1].to(device).eval()
        (self.processor, self.model), self.device = pair, device

    def point(self, image, label):
        from argos import convert
        points = [convert(x, y, "percent", "seen", image.size, image.size) for x, y in read_molmo(self._reply(image, label))]
        return [(x, y) for x, y in points if 0 <= x < image.width and 0 <= y < image.height]

    def _reply(self, image, label):
        import torch
        from transformers import GenerationConfig
        tokenizer = self.processor.tokenizer
        inputs = self.processor.process(images=[image], text=f"Point to {_quoted(label, None, 100)}.")
        inputs = {name: value.to(self.device)[None] for name, value in inputs.items()}
        config = GenerationConfig(max_new_tokens=self.max_new_tokens, stop_strings="<|endoftext|>")
        with torch.no_grad():
            ids = self.model.generate_from_batch(inputs, config, tokenizer=tokenizer)
        return tokenizer.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


_MOLMO_TAG = re.compile(r"<points?\s([^<>]*)>", re.I | re.A)
_MOLMO_XY = re.compile(r"\b([xy])(\d{0,4})\s{0,3}=\s{0,3}[\"']?\s{0,3}(\d{1,3}(?:\.\d{1,6})?)(?![\d.])", re.I | re.A)


def read_molmo(text):
    """`<point x="61.5" y="40.4" alt="..">` and `<points x1="10" y1="20" x2=..>` -> [(x, y)], percent; bounded and linear.

    The first 20,000 characters and 64 points count. A coordinate without its partner is dropped.
    """
    points = []
    for tag in _MOLMO_TAG.finditer(text[:20_000]):
        pairs = {}
        for axis, number, value in _MOLMO_XY.findall(re.split(r"\balt\s*=", tag[1])[0]):  # an alt text may say x="5", too
            pairs.setdefault(number, {}).setdefault(axis.lower(), float(value))
        points += [(p["x"], p["y"]) for p in pairs.values() if len(p) == 2]
    return points[:MAX_BOXES]


# ---- 3. Detectors ---------------------------------------------------------------------------------------------------------
# The thresholds below are our choice, near what the models' authors show: lower ones invent boxes, which a policy learns to seek.
MAX_BOXES = 64  # boxes or points per label, best first, as many as argos counts points


def _device(device):
    import torch
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _load(what, name, *kinds, **options):
    """Each of kinds from a folder, or from a hub id that was downloaded before -> list; without kinds, the folder itself.

    Nothing is downloaded: BadInput says what to. The hub's name is turned into its folder first, since from_pretrained asks the
    network for files even if told not to.
    """
    from argos import BadInput
    from huggingface_hub import snapshot_download
    try:
        folder = name if Path(name).is_dir() else snapshot_download(name, local_files_only=True)
        return [kind.from_pretrained(folder, **options) for kind in kinds] or folder
    except Exception as error:  # many kinds, from a missing file to weights of another size; the first line names the cause
        hub = name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else "OWNER/NAME"
        raise BadInput(f"{what}: {name} cannot be loaded; download it with `hf download {hub}`, or pass a folder that holds it "
                       f"({_cause(error)})") from error


def _cause(error):
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"


def _needs(what, module, install):
    """Import a package that only this teacher needs."""
    import importlib
    from argos import BadInput
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"{what}: the package {module.split('.')[0]} is missing ({error}); run `{install}`") from error


def _phrase(label):
    """A label as a detector may read it: 100 characters, without the signs that one of the models takes for a separator or
    for a special token (GroundingDINO reads "a. b" as two labels)."""
    return " ".join(re.sub(r"[^\w\s'&/,+%#-]", " ", label[:100]).split())


class _Detector:
    """See Detector. Every phrase is asked by itself, `batch` rows at a time: asked together, labels compete for the boxes (the
    library keeps one label a box) and colour each other's features, and the reward would depend on the rest of the group.

    Subclasses give find(image, phrases) -> [(boxes (N, 4) in pixels, scores (N,)) per phrase], tensors.
    """

    def detect(self, image, labels):
        import torch
        phrases = [_phrase(label) for label in labels]
        asked, found = list(dict.fromkeys(filter(None, phrases))), {}
        for i in range(0, len(asked), self.batch):
            with torch.inference_mode():
                found |= zip(asked[i:i + self.batch], self.find(image, asked[i:i + self.batch]), strict=True)
        return [self._boxes(*found[phrase], image, label) if phrase else [] for phrase, label in zip(phrases, labels)]

    @staticmethod
    def _boxes(corners, scores, image, label):
        """The best MAX_BOXES, cut off at the border; a box without area, or of numbers that are none, is dropped."""
        (w, h), boxes = image.size, []
        for (x1, y1, x2, y2), score in zip(corners.tolist(), scores.tolist()):
            box = Box(max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h)), score, label)
            if box.x1 < box.x2 and box.y1 < box.y2 and math.isfinite(score):  # a comparison with nan is False
                boxes.append(box)
        return sorted(boxes, key=lambda b: -b.score)[:MAX_BOXES]


class YoloWorld(_Detector):
    """YOLO-World (arXiv:2401.17270) by ultralytics, which is under AGPL-3.0: imported here only.

    name: a .pt file. Its labels are read by CLIP's text encoder, here as transformers has it (the same ViT-B/32, without the clip package
    from git): the folder clip-vit-base-patch32 beside the file, else the hub's. threshold: least score. side: pixels of its input.
    """

    def __init__(self, name="yolov8x-worldv2.pt", device=None, threshold=.25, side=640, batch=8, text=None):
        from argos import BadInput
        os.environ |= dict(YOLO_AUTOINSTALL="0", YOLO_OFFLINE="1")  # before the import: install nothing, look nothing up
        if not Path(name).is_file():
            raise BadInput(f"yolo-world: {name} is missing; download https://github.com/ultralytics/assets/releases/download/v8.3.0/"
                           f"{Path(name).name}, and pass yolo-world:FILE")
        ultralytics = _needs("yolo-world", "ultralytics", "pip install ultralytics==8.4.190  # AGPL-3.0")
        ultralytics.settings.update({"sync": False})  # and send no statistics
        from ultralytics.nn.tasks import WorldModel, torch_safe_load
        from transformers import AutoTokenizer, CLIPTextModelWithProjection
        beside = Path(name).parent / "clip-vit-base-patch32"
        text = text or (str(beside) if beside.is_dir() else "openai/clip-vit-base-patch32")
        self.tokenizer, self.text = _load("yolo-world's text encoder", text, AutoTokenizer, CLIPTextModelWithProjection)
        try:
            checkpoint, _ = torch_safe_load(name, safe_only=True)  # a pickle, read as data: it may call nothing
            self.model = (checkpoint.get("ema") or checkpoint["model"]).float().eval()
            if not isinstance(self.model, WorldModel):
                raise ValueError(f"it holds a {type(self.model).__name__}")
            self.model.model[-1].nc = 1  # one label a row
        except Exception as error:
            raise BadInput(f"yolo-world: {name} is no YOLO-World checkpoint ({_cause(error)}); download yolov8x-worldv2.pt "
                           "again") from error
        self.device = _device(device)
        self.model.to(self.device), self.text.to(self.device).eval()
        self.identity, self.threshold, self.side, self.batch = f"yolo-world {name} {text} {threshold} {side}", threshold, side, batch

    def find(self, image, phrases):
        import torch
        from ultralytics.data.augment import LetterBox
        from ultralytics.utils import nms, ops
        tokens = self.tokenizer(phrases, padding=True, truncation=True, max_length=77, return_tensors="pt").to(self.device)
        features = torch.nn.functional.normalize(self.text(**tokens).text_embeds, dim=-1)[:, None]  # (B, 1, 512)
        # Padded as ultralytics' own predictor does, but RGB all the way: that one takes an array for BGR.
        pixels = LetterBox(self.side, auto=True, stride=32)(image=np.asarray(image.convert("RGB")))  # (h, w, 3)
        pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1)[None] / 255
        # The model carries the text features of its last call: given each time, nothing is left over.
        predicted, _ = self.model(pixels.expand(len(phrases), -1, -1, -1), txt_feats=features)  # (B, 5, anchors)
        found = []
        for row in predicted:  # one at a time: given many, non_max_suppression gives up on the last ones when it is late
            kept = nms.non_max_suppression(row[None], self.threshold, iou_thres=.7, max_det=MAX_BOXES)[0]  # (N, 6)
            found.append((ops.scale_boxes(pixels.shape[2:], kept[:, :4], (image.height, image.width)), kept[:, 4]))
        return found


class ZeroShotDetector(_Detector):
    """GroundingDINO (arXiv:2303.05499), MM-GroundingDINO (2401.02361) or OWLv2 (2306.09683), as transformers has them."""

    def __init__(self, name, device=None, threshold=.3, batch=4):
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
        self.processor, self.model = _load("detector", name, AutoProcessor, AutoModelForZeroShotObjectDetection)
        self.device = _device(device)
        self.model.to(self.device).eval()
        self.owl = self.model.config.model_type in ("owlv2", "owlvit")
        self.identity, self.threshold, self.batch = f"{self.model.config.model_type} {name} {threshold}", threshold, batch

    def find(self, image, phrases):
        return (self._owl if self.owl else self._dino)(image.convert("RGB"), phrases)

    def _dino(self, image, phrases):
        """One row a phrase, so a row's boxes are its phrase's, exactly: no guess from the tokens that a box has touched.

        The full stop does two things: it ends a phrase, and without it the processor would merge the list into one text."""
        inputs = self.processor(images=[image] * len(phrases), text=[f"{p.lower()}." for p in phrases], padding=True,
                                return_tensors="pt").to(self.device)
        results = self.processor.post_process_grounded_object_detection(
            self.model(**inputs), inputs["input_ids"], threshold=self.threshold, target_sizes=[(image.height, image.width)] * len(phrases))
        return [(r["boxes"], r["scores"]) for r in results]

    def _owl(self, image, phrases):
        """All phrases on one picture: its queries do not see each other. The library would give a box to its best phrase only, so
        each phrase gets its own slice. Boxes are fractions of the picture padded to a square, which the processor knows."""
        longest = self.model.config.text_config.max_position_embeddings
        inputs = self.processor(images=image, text=[phrases], return_tensors="pt",
                                text_kwargs=dict(truncation=True, max_length=longest)).to(self.device)
        out = self.model(**inputs)  # logits (1, patches, phrases), pred_boxes (1, patches, 4)
        found = []
        for k in range(len(phrases)):
            one = SimpleNamespace(logits=out.logits[..., k:k + 1], pred_boxes=out.pred_boxes)
            result, = self.processor.post_process_grounded_object_detection(one, self.threshold, [(image.height, image.width)])
            found.append((result["boxes"], result["scores"]))
        return found


# ---- 4. Segmenters --------------------------------------------------------------------------------------------------------
class _Segmenter:
    """See Segmenter. A picture is embedded once and serves all labels and all rollouts: the last `remember` pictures are kept by
    content. A box that several labels share is asked once.

    A box asks for one mask; a point is ambiguous (the bar, or the chart?), so three are asked for and the one that the model thinks
    best is taken, as SAM's authors advise. Subclasses give embed(image) and masks(embedded, prompts (N, 4), points) ->
    bool (N, K, H, W) and the model's own scores (N, K).
    """
    remember, batch = 4, 32

    def segment(self, image, boxes):
        import torch
        places = [(float(b.x1), float(b.y1), float(b.x2), float(b.y2)) for b in boxes]
        masks = {}
        for points in (False, True):
            asked = [p for p in dict.fromkeys(places) if (p[:2] == p[2:]) == points]
            for i in range(0, len(asked), self.batch):
                prompts = np.array(asked[i:i + self.batch], np.float32)  # (N, 4), also for N = 1
                with torch.inference_mode():
                    found, scores = (np.asarray(a) for a in self.masks(self._embedded(image), prompts, points))
                masks |= zip(asked[i:i + self.batch], found[np.arange(len(prompts)), scores.argmax(1)], strict=True)
        return np.stack([masks[p] for p in places]) if places else np.zeros((0, image.height, image.width), bool)

    def _embedded(self, image):
        known, key = self.__dict__.setdefault("known", OrderedDict()), image_digest(image)
        if key not in known:
            known[key] = self.embed(image.convert("RGB"))
        known.move_to_end(key)
        while len(known) > self.remember:
            known.popitem(last=False)
        return known[key]


class Sam2(_Segmenter):
    """SAM 2.1 by the sam2 package. name: a .pt file that keeps its published name, a folder that holds one, or a hub id.

    overrides: hydra overrides of the published configuration, for a model of another size.
    """

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None, overrides=()):
        from argos import BadInput
        build = _needs("sam2", "sam2.build_sam", "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0")
        from hydra import initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        configs = {file: config for config, file in build.HF_MODEL_ID_TO_FILENAMES.values()}
        file, self.device = Path(name), _device(device)
        if not file.is_file():
            file = Path(_load("sam2", name))
            file = next((file / f for f in configs if (file / f).is_file()), file)
        if not file.is_file() or file.name not in configs:
            raise BadInput(f"sam2: {name} is no checkpoint; download one with `hf download facebook/sam2.1-hiera-large "
                           "sam2.1_hiera_large.pt --local-dir FOLDER` and pass sam2:FOLDER")
        try:
            GlobalHydra.instance().clear()  # whoever used hydra before: sam2's configurations must be found
            with initialize_config_module("sam2", version_base="1.2"):
                self.model = build.build_sam2(configs[file.name], str(file), self.device, hydra_overrides_extra=list(overrides))
        except Exception as error:  # a truncated file, or weights of another size than the name says
            raise BadInput(f"sam2: {file} cannot be loaded ({_cause(error)}); download it again") from error
        self.identity = f"sam2 {file}"

    def embed(self, image):
        from sam2.sam2_image_predictor import SAM2ImagePredictor
        predictor = SAM2ImagePredictor(self.model)  # holds one picture's features; the weights are shared
        predictor.set_image(np.array(image))
        return predictor

    def masks(self, predictor, prompts, points):
        asked = dict(point_coords=prompts[:, None, :2], point_labels=np.ones((len(prompts), 1))) if points else dict(box=prompts)
        masks, scores, _ = predictor.predict(**asked, multimask_output=points)  # the first axis is missing where N = 1
        return masks.reshape(len(prompts), -1, *masks.shape[-2:]) > 0, scores.reshape(len(prompts), -1)


class Sam2HF(_Segmenter):
    """SAM 2.1 as transformers has it: no further package, no hydra. name: a folder or a hub id."""

    def __init__(self, name="facebook/sam2.1-hiera-large", device=None):
        from transformers import Sam2Model, Sam2Processor
        self.processor, self.model = _load("sam2-hf", name, Sam2Processor, Sam2Model)
        self.device = _device(device)
        self.model.to(self.device).eval()
        self.identity = f"sam2-hf {name}"

    def embed(self, image):
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        return self.model.get_image_embeddings(inputs["pixel_values"]), [(image.height, image.width)]

    def masks(self, embedded, prompts, points):
        embeddings, size = embedded
        asked = (dict(input_points=[[[xy] for xy in prompts[:, :2].tolist()]], input_labels=[[[1]] * len(prompts)]) if points
                 else dict(input_boxes=[prompts.tolist()]))
        asked = self.processor(original_sizes=size, return_tensors="pt", **asked).to(self.device)
        del asked["original_sizes"]
        out = self.model(image_embeddings=list(embeddings), multimask_output=points, **asked)
        return self.processor.post_process_masks(out.pred_masks, size)[0].cpu(), out.iou_scores[0].float().cpu()


# ---- 5. Teachers by name, and what they said remembered on disk -------------------------------------------------------------
def image_digest(image):
    """The content of a PIL picture as a key: mode, size, pixels."""
    return hashlib.blake2b(f"{image.mode} {image.size} ".encode() + image.tobytes(), digest_size=16).hexdigest()


class Cached:
    """A detector, segmenter or pointer whose answers are kept in a folder, which several processes may share.

    An answer is one file, named by picture, question and teacher.identity (class, checkpoint, thresholds); a checkpoint that is
    changed in place keeps its name, so name a new folder for it. A file begins with the digest of the rest: one that was
    damaged does not count and is written again.
    """

    def __init__(self, teacher, folder):
        from argos import BadInput
        self.teacher, self.folder = teacher, Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--teacher_cache {folder}: cannot be used ({error}); name a folder that can be written") from error
        self.identity = getattr(teacher, "identity", type(teacher).__name__)

    def detect(self, image, labels):
        def ask(missing):
            return [np.array([(b.x1, b.y1, b.x2, b.y2, b.score) for b in boxes], float).reshape(-1, 5)
                    for boxes in self.teacher.detect(image, missing)]
        return [[Box(*row, label) for row in rows.tolist()] for label, rows in zip(labels, self._answers("detect", image, labels, ask))]

    def segment(self, image, boxes):
        def ask(missing):
            return [np.packbits(mask) for mask in self.teacher.segment(image, missing)]
        shape = (image.height, image.width)
        packed = self._answers("segment", image, [replace(b, score=1.0, label="") for b in boxes], ask)
        return np.array([np.unpackbits(p, count=shape[0] * shape[1]).reshape(shape) for p in packed], bool).reshape(-1, *shape)

    def point(self, image, label):
        rows, = self._answers("point", image, [label], lambda _: [np.array(self.teacher.point(image, label), float).reshape(-1, 2)])
        return [tuple(row) for row in rows.tolist()]

    def _answers(self, role, image, questions, ask):
        """One array for each question: from the folder, or from ask(those that are missing), each of them once."""
        about, known = f"{self.identity}\0{role}\0{image_digest(image)}\0", {}
        for question in questions:
            key = hashlib.blake2b((about + str(question)).encode("utf-8", "replace"), digest_size=16).hexdigest()
            known[question] = self.folder / key[:2] / key, None
        for question, (path, _) in known.items():
            known[question] = path, self._read(path)
        missing = [question for question, (_, answer) in known.items() if answer is None]
        for question, answer in zip(missing, ask(missing) if missing else [], strict=True):
            known[question] = known[question][0], answer
            self._write(known[question][0], answer)
        return [known[question][1] for question in questions]

    @staticmethod
    def _read(path):
        try:
            data = path.read_bytes()
            good = hashlib.blake2b(data[16:], digest_size=16).digest() == data[:16]
            return np.load(io.BytesIO(zlib.decompress(data[16:])), allow_pickle=False) if good else None
        except OSError:
            return None

    def _write(self, path, answer):
        from argos import write_atomically
        file = io.BytesIO()
        np.save(file, answer, allow_pickle=False)
        data = zlib.compress(file.getvalue(), 1)
        try:
            write_atomically(path, hashlib.blake2b(data, digest_size=16).digest() + data)
        except OSError as error:  # a full disk costs time, never the run
            print(f"--teacher_cache {self.folder}: an answer was not kept ({error}); make room", file=sys.stderr)


def _pixels(kind):
    def make(device=None):
        from tiny import pixels
        return getattr(pixels, kind)()
    return make


def _qwen(name="Qwen/Qwen2.5-VL-7B-Instruct", device=None):
    import policy
    dtype = "bfloat16" if _device(device).type == "cuda" else "float32"
    pointer = VLMPointer(policy.load_policy(name, dtype=dtype, device=device))
    pointer.identity = f"qwen {name} {dtype}"
    return pointer


# name -> how to make it: make(device=...), make(name=..., device=...)
DETECTORS = {"pixels": _pixels("PixelDetector"), "yolo-world": YoloWorld,
             "grounding-dino": partial(ZeroShotDetector, name="IDEA-Research/grounding-dino-base"),
             "mm-grounding-dino": partial(ZeroShotDetector, name="openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"),
             "owlv2": partial(ZeroShotDetector, name="google/owlv2-base-patch16-ensemble", threshold=.2)}
SEGMENTERS = {"pixels": _pixels("PixelSegmenter"), "sam2": Sam2, "sam2-hf": Sam2HF}
POINTERS = {"pixels": _pixels("PixelPointer"), "molmo": MolmoPointer, "qwen": _qwen}


def load_teachers(detector="pixels", segmenter="pixels", pointer="pixels", device=None, cache=None, base=None):
    """-> (detector, segmenter, pointer). Each is asked for by NAME or NAME:FOLDER_OR_HUB_ID; without a checkpoint, a published one.

    device: "cuda" where there is one, unless given. cache: a folder that keeps their answers (see Cached). base: a policy that is
    loaded anyway, which the pointer "base" asks with its adapter off. Nothing is downloaded: argos.BadInput says what to, for a name or
    checkpoint that is not there.
    """
    from argos import BadInput
    made, makers = [], POINTERS | ({"base": lambda device: VLMPointer(base, adapter_off=True)} if base else {})
    for role, asked, makers in (("detector", detector, DETECTORS), ("segmenter", segmenter, SEGMENTERS), ("pointer", pointer, makers)):
        name, _, checkpoint = asked.partition(":")
        if name not in makers or name in ("pixels", "base") and checkpoint:
            raise BadInput(f"--{role} {asked}: choose {', '.join(makers)}; real ones take a checkpoint, as NAME:FOLDER_OR_HUB_ID")
        teacher = makers[name](device=device, **({"name": checkpoint} if checkpoint else {}))
        made.append(Cached(teacher, cache) if cache and name != "base" else teacher)
    return tuple(made)


def load_judge(name, preset=None, device=None, dtype="float32"):
    """Any vision-language model as a judge: a folder or hub id. Qwen2.5-VL takes the fast path of policy.py, with weights of this
    dtype (see policy.load_policy); others the library's, with weights as they were published."""
    import policy
    from argos import BadInput
    from transformers import AutoConfig
    try:
        kind = _load("judge", name, AutoConfig)[0].model_type
    except BadInput:
        kind = "qwen2_5_vl"  # load_policy says what is wrong, or fetches it
    if kind == "qwen2_5_vl":
        return VLMJudge(policy.load_policy(name, dtype=dtype, device=device), preset)
    return PlainJudge(name, preset or "7b", device)
