"""Argos in TRL's own process: the reward as TRL calls it, and the real TRL where it is installed.

(tests/requirements-more.txt installs it. The same reward from a server: tests/test_serve.py.)
"""
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from runs.errors import BadInput
from teachers.names import load_teachers
from serve import trl_reward
import argos
import train_grpo

ROOT = Path(__file__).parent.parent
GOOD = '<think>I see <point x1="24" y1="24" alt="red square">red square</point>.</think><answer>1</answer>'
UNSEEN = GOOD.replace('x1="24"', 'x1="70"')
WRONG = GOOD.replace("<answer>1", "<answer>2")
TEXTS = [GOOD, UNSEEN, WRONG, "no tags at all"]
EXPECTED = [1.0, 2 / 3, 0.0, 0.0]  # w = .5, .25 rescaled: no judge, no R_rq


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    image = Image.new("RGB", (84, 84), (215, 215, 210))
    image.paste((225, 30, 30), (14, 14, 36, 36))
    folder = tmp_path_factory.mktemp("media")
    image.save(folder / "red.png")
    return folder


@pytest.fixture(scope="module")
def verifier():
    return argos.Argos(*load_teachers(), None)


@pytest.fixture(scope="module")
def processor():
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/teacher")
    processor.image_processor.size = {"shortest_edge": 7056, "longest_edge": 28224}
    return processor


@pytest.fixture(scope="module")
def reward(verifier, processor, folder):
    return trl_reward(verifier, processor, folder)


def row(**changes):
    return json.dumps({"question": "How many red squares are there?", "answer": "1", "kind": "count",
                       "image": "red.png", **changes})


def test_trl_calls_it_with_columns_and_gets_one_number_each(reward):
    extra, metrics = {}, {}
    assert reward.__name__ == "argos"  # TRL names its metrics after it
    got = reward(prompts=["p"] * 4, completions=TEXTS, completion_ids=[[1]] * 4, trainer_state=None, row=[row()] * 4,
                 images=[[None]] * 4, log_metric=metrics.__setitem__, log_extra=extra.__setitem__)
    assert got == pytest.approx(EXPECTED)
    assert extra["outcome"] == [1, 1, 0, 0] and extra["grounding"][:2] == [1, 0] and extra["reasoning"] == [None] * 4
    assert metrics == {"argos/outcome": .5, "argos/grounding": pytest.approx(sum(extra["grounding"]) / 4)}
    chat = [[{"role": "assistant", "content": text}] for text in TEXTS]
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in TEXTS]
    for completions in (chat, parts):
        assert reward(prompts=["p"] * 4, completions=completions, row=[row()] * 4) == pytest.approx(EXPECTED)


def test_groups_are_told_apart(reward):
    """Two questions in one batch, and a group cut in two. Kills a group scored against its neighbour's truth."""
    rows = [row(answer=answer) for answer in "1221"]
    assert reward(completions=[GOOD, GOOD, WRONG, GOOD], row=rows) == pytest.approx([1, 0, 1, 1])


def test_what_cannot_be_scored_is_none_and_named(reward, monkeypatch, capsys):
    import rewards
    monkeypatch.setattr(rewards, "scored_before", False)
    with pytest.raises(RuntimeError, match="row lost.*nowhere.png"):  # nothing at all: a wrong folder
        reward(completions=[GOOD], row=[row(id="lost", image="nowhere.png")])
    assert reward(completions=[GOOD, GOOD], row=[row(id="lost", image="nowhere.png"), row()]) == [None, 1]
    assert "row lost" in capsys.readouterr().err
    with pytest.raises(ValueError, match="clip"):
        reward(completions=[GOOD], row=[row(image=None, video="red.png")])
    with pytest.raises(ValueError, match="row as JSON"):
        reward(completions=[GOOD], row=["not JSON"])


def test_a_processor_of_other_pixels_is_refused(verifier, processor, folder):
    """Its points would be read in pictures of another size: 640 x 480 is 168 x 140 for one, 644 x 476 for the other."""
    other = AutoProcessor.from_pretrained(ROOT / "tiny/teacher")
    other.image_processor.size = {"shortest_edge": 3136, "longest_edge": 401408}
    with pytest.raises(BadInput, match="3136 to 401408 pixels.*7056 to 28224"):
        trl_reward(verifier, other, folder)


@pytest.mark.parametrize("size", [{"height": 224, "width": 224}, {"shortest_edge": 224}, 224, None])
def test_a_processor_without_a_budget_is_one_line(size, verifier, folder):
    """CLIP's, or a tokenizer alone. Kills a KeyError."""
    image_processor = None if size is None else SimpleNamespace(size=size)
    with pytest.raises(BadInput, match="states no fewest and most pixels"):
        trl_reward(verifier, SimpleNamespace(image_processor=image_processor), folder)


# ---- The real TRL ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", train_grpo.LOSSES)
@pytest.mark.parametrize("beta", [0., .04])
def test_our_loss_is_trls(kind, beta):
    """Same log-probabilities and advantages, ragged rollouts: value and gradient of GRPOTrainer's _compute_loss."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    torch.manual_seed(0)
    logprobs, old, reference = (-torch.rand(6, 5, dtype=torch.double) for _ in range(3))
    mask = (torch.arange(5) < torch.tensor([5, 1, 3, 2, 5, 4])[:, None]).double()
    advantage = torch.randn(6, dtype=torch.double)
    ours, theirs = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    per_token, _ = train_grpo.token_loss(ours, old, reference, advantage[:, None], .2, .28, beta)
    loss = train_grpo.average(per_token, mask, kind, 6, mask.sum(), 8)
    loss.backward()

    class Trainer(trl.GRPOTrainer):
        def __init__(self):  # only what _compute_loss reads; a field missing here would raise
            self.beta, self.loss_type, self.max_completion_length = beta, kind, 8
            self.epsilon_low, self.epsilon_high = .2, .28
            self.aux_loss_enabled = self._entropy_bonus_enabled = self.use_vllm = False
            self.top_entropy_quantile, self.off_policy_mask_threshold = 1.0, None
            self.importance_sampling_level = "token"
            self.args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
            self.current_gradient_accumulation_steps, self.model = 1, SimpleNamespace(training=True)
            self.accelerator = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x)
            self._metrics = {"train": defaultdict(list)}

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            return theirs, torch.zeros_like(theirs), None

    inputs = dict(prompt_ids=torch.zeros(6, 1), prompt_mask=torch.ones(6, 1), completion_ids=torch.zeros(6, 5),
                  completion_mask=mask, advantages=advantage, old_per_token_logps=old, ref_per_token_logps=reference,
                  num_items_in_batch=mask.sum())
    value = Trainer()._compute_loss(None, inputs)
    value.backward()
    torch.testing.assert_close(loss, value)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_real_trainer_trains_with_it(folder, reward, processor, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets")
    question = "How many red squares are there?"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"{question} Think and point."}]}]
    rows = dict(prompt=[asked] * 2, image=[Image.open(folder / "red.png").convert("RGB")] * 2, row=[row()] * 2)
    seen = []

    def argos_reward(**inputs):
        seen.append((inputs["completions"], reward(**inputs)))
        return seen[-1][1]
    config = trl.GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], max_steps=2,
                            num_generations=4, per_device_train_batch_size=4, max_completion_length=60,
                            logging_steps=1, temperature=1.3, save_strategy="no")
    model = AutoModelForImageTextToText.from_pretrained(ROOT / "tiny/teacher")
    trainer = trl.GRPOTrainer(model=model, args=config, reward_funcs=argos_reward, processing_class=processor,
                              train_dataset=datasets.Dataset.from_dict(rows))
    trainer.train()
    name = "rewards/argos_reward/mean"
    logged = [row[name] for row in trainer.state.log_history if name in row]
    assert logged == pytest.approx([sum(r) / 4 for _, r in seen]) and len(seen) == 2
    assert all(0 <= r <= 1 for _, group in seen for r in group)
    assert max(r for _, group in seen for r in group) > .5  # the shipped teacher answers this one
