"""Argos inside other trainers: the functions that TRL and EasyR1 call, called as they call them.

The real TRL runs where it is installed (tests/requirements-more.txt).
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
import argos
import train_grpo

ROOT = Path(__file__).parent.parent
GOOD = '<think>I see <point x1="24" y1="24" alt="red square">red square</point>.</think><answer>1</answer>'
UNSEEN = GOOD.replace('x1="24"', 'x1="70"')
WRONG = GOOD.replace("<answer>1", "<answer>2")
TEXTS = [GOOD, UNSEEN, WRONG, "no tags at all"]
EXPECTED = [1.0, 2 / 3, 0.0, 0.0]  # w = .5, .25 rescaled: no judge, no R_rq


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    image = Image.new("RGB", (84, 84), (215, 215, 210))
    image.paste((225, 30, 30), (14, 14, 36, 36))
    path = tmp_path_factory.mktemp("media") / "red.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def verifier():
    return argos.Argos(*load_teachers(), None)


def columns(image, n=4):
    question = "How many red squares are there?"
    return dict(question=[question] * n, answer=["1"] * n, kind=["count"] * n, image=[image] * n)


def test_trl_calls_it_with_columns_and_gets_one_number_each(picture, verifier):
    reward, extra = train_grpo.trl_reward(verifier), {}
    assert reward.__name__ == "argos_reward"  # TRL names its metrics after it
    for image in (str(picture), Image.open(picture)):
        got = reward(prompts=["p"] * 4, completions=TEXTS, completion_ids=[[1]] * 4, trainer_state=None,
                     log_metric=None, log_extra=extra.__setitem__, **columns(image))
        assert got == pytest.approx(EXPECTED)
    assert extra["outcome"] == [1, 1, 0, 0] and extra["grounding"][:2] == [1, 0] and extra["reasoning"] == [None] * 4
    chat = [[{"role": "assistant", "content": t}] for t in TEXTS]
    several = columns(str(picture)) | {"image": None, "images": [[str(picture)]] * 4}
    assert reward(prompts=["p"] * 4, completions=chat, **several) == pytest.approx(EXPECTED)


def test_groups_are_told_apart(picture, verifier):
    """Two questions in one batch, and a group cut in two. Kills a group scored against its neighbour's truth."""
    rows = columns(str(picture))
    rows["answer"] = ["1", "2", "2", "1"]
    got = train_grpo.trl_reward(verifier)(prompts=[""] * 4, completions=[GOOD, GOOD, WRONG, GOOD], **rows)
    assert got == pytest.approx([1, 0, 1, 1])


def test_a_bad_row_is_named(verifier):
    with pytest.raises(BadInput, match="row 0"):
        train_grpo.trl_reward(verifier)(prompts=[""], completions=[GOOD], **columns("nowhere.png", 1))


def test_easyr1_gets_a_dictionary_each(picture):
    row = json.dumps({"question": "How many red squares are there?", "answer": "1", "kind": "count",
                      "image": str(picture)})
    inputs = [{"response": t, "response_length": 9, "ground_truth": row} for t in TEXTS]
    scores = train_grpo.compute_score(inputs, reward="no-rq", judge=str(ROOT / "tiny/teacher"))
    assert [s["overall"] for s in scores] == pytest.approx(EXPECTED)
    assert all(type(v) is float for s in scores for v in s.values()) and train_grpo.REWARD_TYPE == "batch"
    assert train_grpo.verifier_for.cache_info().currsize == 1  # the teachers are loaded once


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


def test_the_real_trainer_trains_with_it(picture, verifier, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets")
    question = "How many red squares are there?"
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"{question} Think and point."}]}]
    rows = dict(prompt=[asked] * 2, image=[Image.open(picture).convert("RGB")] * 2, question=[question] * 2,
                answer=["1"] * 2, kind=["count"] * 2)
    seen = []
    reward = train_grpo.trl_reward(verifier)

    def argos_reward(**inputs):
        seen.append((inputs["completions"], reward(**inputs)))
        return seen[-1][1]
    config = trl.GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], max_steps=2,
                            num_generations=4, per_device_train_batch_size=4, max_completion_length=60,
                            logging_steps=1, temperature=1.3, save_strategy="no")
    model = AutoModelForImageTextToText.from_pretrained(ROOT / "tiny/teacher")
    processor = AutoProcessor.from_pretrained(ROOT / "tiny/teacher")
    trainer = trl.GRPOTrainer(model=model, args=config, reward_funcs=argos_reward, processing_class=processor,
                              train_dataset=datasets.Dataset.from_dict(rows))
    trainer.train()
    name = "rewards/argos_reward/mean"
    logged = [row[name] for row in trainer.state.log_history if name in row]
    assert logged == pytest.approx([sum(r) / 4 for _, r in seen]) and len(seen) == 2
    assert all(0 <= r <= 1 for _, group in seen for r in group)
    assert max(r for _, group in seen for r in group) > .5  # the shipped teacher answers this one
