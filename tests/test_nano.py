"""nano.py against the files that it shortens: the same reward, advantages, gradient and log-probabilities, in 200 lines."""
import doctest
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import argos
import nano
import policy as P
import train_grpo
from tiny.pixels import PixelDetector, PixelSegmenter
from tiny.world import Thing, point


def respond(*points, answer):
    return f"<think>I see {', '.join(points)}.</think><answer>{answer}</answer>"


def picture():
    """Two red squares and a blue cross; the question is drawn by hand, so that every response below is easy to check."""
    things = [Thing("red", "square", 14, 14), Thing("red", "square", 70, 14), Thing("blue", "cross", 42, 70)]
    image = nano.Image.fromarray(nano.render([things], np.random.default_rng(0))[0])
    return SimpleNamespace(question="How many red squares are there?", answer="2", image=image), [point(t) for t in things]


def test_it_stays_small():
    lines = Path(nano.__file__).read_text().splitlines()
    assert len(lines) <= 200 and max(map(len, lines)) <= 110


def test_the_worked_examples():
    result = doctest.testmod(nano)
    assert result.attempted and not result.failed


# ---- 1. The reward ----------------------------------------------------------------------------------------------------
ITEM, (LEFT, RIGHT, CROSS) = picture()
FALSE = '<point x1="14" y1="70" alt="blue cross">blue cross</point>'        # it is at (42, 70)
OUTSIDE = '<point x1="200" y1="70" alt="blue cross">blue cross</point>'
UNKNOWN = '<point x1="42" y1="70" alt="purple dog">purple dog</point>'
RESPONSES = {  # response -> R_o, R_vg, R by hand: weights 1/2 and 1/4, rescaled to 2/3 and 1/3 where nobody judges
    respond(LEFT, RIGHT, answer="2"): (1, 1, 1),
    respond(LEFT, RIGHT, answer="3"): (0, 1, 0),
    respond(LEFT, FALSE, answer="2"): (1, 1 / 2, 2 / 3 + 1 / 6),
    respond(LEFT, CROSS, FALSE, answer="2"): (1, 2 / 3, 2 / 3 + 2 / 9),
    respond(FALSE, answer="2"): (1, 0, 2 / 3),
    respond(FALSE, answer="1"): (0, 0, 0),
    respond(LEFT, OUTSIDE, answer="2"): (1, 1 / 2, 2 / 3 + 1 / 6),
    respond(LEFT, LEFT, FALSE, answer="2"): (1, 1 / 2, 2 / 3 + 1 / 6),  # said twice, counted once
    respond(UNKNOWN, answer="2"): (1, 0, 2 / 3),
    respond("two red squares", answer="2"): (1, 0, 2 / 3),
    respond("nothing", answer="no"): (0, 0, 0),
    "2": (0, 0, 0),
}


@pytest.fixture(scope="module")
def verify(tmp_path_factory):
    """Argos with the same two terms: (item, response) -> Verdict."""
    verifier = argos.Argos(PixelDetector(), PixelSegmenter(), None, None, use=("outcome", "grounding"))
    path = tmp_path_factory.mktemp("nano") / "picture.png"

    def call(item, response):
        item.image.save(path)
        kind = "count" if item.answer.isdigit() else "phrase"
        return verifier.verify(argos.Sample("one", item.question, item.answer, kind, str(path)), response)
    return call


@pytest.mark.parametrize("response", RESPONSES)
def test_reward_is_the_verifiers(verify, response):
    r_o, r_vg = nano.score(ITEM, response)
    verdict = verify(ITEM, response)
    assert (r_o, r_vg, nano.gate(r_o, r_vg)) == pytest.approx(RESPONSES[response])
    assert (r_o, r_vg, nano.gate(r_o, r_vg)) == pytest.approx((verdict.outcome, verdict.grounding, verdict.reward))


def test_reward_is_the_verifiers_on_drawn_questions(verify):
    """True points, points with x and y swapped, the true answer and a false one."""
    rng, seen = np.random.default_rng(3), set()
    for _ in range(24):
        item = nano.new_item(rng)
        for think in (item.think, nano.POINT.sub(nano.SWAPPED, item.think)):
            for answer in (item.answer, item.answer.capitalize(), "4" if item.answer == "1" else "1"):
                response = f"<think>{think}</think><answer>{answer}</answer>"
                verdict = verify(item, response)
                r_o, r_vg = nano.score(item, response)
                assert (r_o, r_vg, nano.gate(r_o, r_vg)) == pytest.approx((verdict.outcome, verdict.grounding, verdict.reward))
                assert nano.ground(item.image, nano.read(response)[1]) == [v.score for v in verdict.points]
                seen.add((r_o, r_vg))
    assert {(1, 1), (0, 1), (1, 0), (0, 0)} <= seen and len(seen) > 5


# ---- 2. The policy ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def responses():
    """Six questions, and a response to each that the cold start would show, so that lengths differ."""
    model, processor = nano.load()
    rng = np.random.default_rng(5)
    items = [nano.new_item(rng) for _ in range(6)]
    texts = [f"<think>{item.think}</think><answer>{item.answer}</answer><|im_end|>" for item in items]
    rows = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    assert len(set(rows.attention_mask.sum(1).tolist())) > 1
    return SimpleNamespace(model=model, processor=processor, items=items, ids=rows.input_ids, mask=rows.attention_mask)


def actor_and_prompts(items):
    actor = P.load_policy("tiny/base")
    media = [SimpleNamespace(frames=[item.image], seconds=[0.]) for item in items]
    return actor, P.encode_prompts(actor, [(m, P.prompt("tiny", "reason", question=i.question)) for m, i in zip(media, items)])


def test_prompts_bans_and_log_probabilities_are_the_policys(responses):
    actor, theirs = actor_and_prompts(responses.items)
    ours = nano.encode(responses.processor, responses.items)
    assert len(set(theirs.lengths().tolist())) > 1 and torch.equal(ours["input_ids"], theirs.input_ids)
    banned = responses.model.generation_config.suppress_tokens
    assert sorted(banned) == (actor.ban == -torch.inf).nonzero()[:, 0].tolist()
    assert actor.core.config.image_token_id in banned
    with torch.no_grad():
        logp = nano.log_probs(responses.model, ours, responses.ids, responses.mask)
        expected, _ = P.token_logprobs(actor, theirs, 1, responses.ids, responses.mask)
    assert torch.allclose(logp, expected, atol=1e-5) and (logp[responses.mask == 1] < 0).all()


def test_sampled_responses_end_with_their_first_end_token(responses, monkeypatch):
    monkeypatch.setattr(responses.model.generation_config, "temperature", 3.)  # the base is sure of its answer: all would be as long
    torch.manual_seed(0)
    prompts, ids, mask, texts, scores = nano.respond(responses.model, responses.processor, responses.items * 4)
    end, banned = responses.processor.tokenizer.eos_token_id, set(responses.model.generation_config.suppress_tokens)
    for row, counts, text in zip(ids.tolist(), mask.tolist(), texts):
        length = row.index(end) + 1 if end in row else len(row)
        assert counts == [1] * length + [0] * (len(row) - length)
        assert not banned & set(row[:length])
        assert text == responses.processor.tokenizer.decode(row[:length], skip_special_tokens=True)
    assert len(set(mask.sum(1).tolist())) > 1 and scores.shape == (24, 2)


def test_sampling_cuts_nothing_off(responses):
    """Where hundreds of tokens are likely, more are drawn than the 50 that the library keeps by itself."""
    torch.manual_seed(0)
    prompts = nano.encode(responses.processor, responses.items)
    drawn = responses.model.generate(**prompts, num_return_sequences=50, max_new_tokens=1, temperature=10.)[:, -1]
    assert len(set(drawn.tolist())) > 100


# ---- 3. Learning --------------------------------------------------------------------------------------------------------
REWARDS = torch.tensor([[1., 0., 0., 1.], [.2, .1, .1, .1], [.7, .7, .7, .7]])


def test_advantages_are_those_of_train_grpo():
    assert torch.equal(nano.advantages(REWARDS), train_grpo.advantages(REWARDS))
    assert torch.allclose(nano.advantages(REWARDS)[0], torch.tensor([.866024, -.866024, -.866024, .866024]), atol=1e-5)


def test_loss_and_gradient_are_those_of_train_grpo():
    torch.manual_seed(0)
    mask = (torch.arange(7) < torch.tensor([[7], [3], [1], [5], [6], [2], [4], [7]])).long()  # (8, 7)
    advantage = nano.advantages(torch.rand(2, 4)).flatten()
    ours = (torch.rand(8, 7).log() * mask).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    nano.policy_loss(ours, mask, advantage).backward()
    per_token, ratio = train_grpo.token_loss(theirs, theirs.detach(), None, advantage[:, None], .2, .2, 0.)
    train_grpo.average(per_token, mask, "grpo", 8, mask.sum(), 7).backward()
    assert (ratio == 1).all() and torch.allclose(ours.grad, theirs.grad, atol=1e-7)
    # the values differ by log p where the ratio stands for it; averaged alike they are equal
    value = train_grpo.average(-advantage[:, None] * ours, mask, "grpo", 8, mask.sum(), 7)
    assert nano.policy_loss(ours, mask, advantage).item() == pytest.approx(value.item())


def test_a_step_makes_the_better_half_likelier(responses):
    model = nano.copy.deepcopy(responses.model)
    prompts, advantage = nano.encode(responses.processor, responses.items), torch.tensor([1., -1., 1., -1., 1., -1.])
    total = lambda: nano.log_probs(model, prompts, responses.ids, responses.mask).sum(1).detach()
    eyes, before = next(model.model.visual.parameters()).clone(), total()
    nano.learn(model, torch.optim.AdamW(model.parameters(), lr=1e-4), prompts, responses.ids, responses.mask, advantage)
    assert ((total() - before) * advantage).sum() > 0
    assert torch.equal(eyes, next(model.model.visual.parameters()))


@pytest.mark.parametrize("arm", ["Argos", "answer only"])
def test_the_loop_rewards_groups_by_its_arm(monkeypatch, arm):
    """Two questions with three responses each, whose scores are known: each group is one question's, each arm has its reward."""
    scores = np.array([[1, .5], [1, 0], [0, 1], [0, 0], [1, 1], [1, .5]])
    asked, learnt = [], []
    monkeypatch.setattr(nano, "QUESTIONS", 2)
    monkeypatch.setattr(nano, "G", 3)
    monkeypatch.setattr(nano, "respond", lambda model, processor, rows: asked.append(rows) or (None, None, None, ["2"] * 6, scores))
    monkeypatch.setattr(nano, "learn", lambda model, optimizer, prompts, ids, mask, advantage: learnt.append(advantage))
    history = nano.train(torch.nn.Linear(1, 1), None, arm, 2, np.random.default_rng(0))
    rewards = [[5 / 6, 2 / 3, 0], [0, 1, 5 / 6]] if arm == "Argos" else [[1., 1., 0.], [0., 1., 1.]]
    assert torch.allclose(learnt[0].float(), train_grpo.advantages(torch.tensor(rewards)).flatten(), atol=1e-4)
    (first, second), again = asked[0][::3], asked[1][0]
    assert [id(item) for item in asked[0]] == [id(first)] * 3 + [id(second)] * 3 and again.image != first.image
    assert np.allclose(history, [[[2 / 3, .5], [2 / 3, .5]]] * 2)


# ---- 4. All of it -------------------------------------------------------------------------------------------------------
def test_a_short_run(tmp_path, monkeypatch, capsys):
    for name, value in dict(COLD_STEPS=2, HELD_OUT=6, QUESTIONS=2, G=4).items():
        monkeypatch.setattr(nano, name, value)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # the tests that follow keep theirs
    monkeypatch.chdir(tmp_path)  # it writes to out/ where it is started
    nano.main(["--steps", "2", "--seed", "1"])
    said = capsys.readouterr().out
    assert Path("out/nano.png").stat().st_size > 5000
    assert said.count("held out") == 3 and "R_vg" in said and "nan" not in said
