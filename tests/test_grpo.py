"""GRPO's arithmetic against numbers worked by hand, and against a plain loop written from the paper's equations."""
import math
from types import SimpleNamespace

import pytest
import torch

from runs.errors import BadInput
import train_grpo
from train_grpo import (REWARDS, UpdateStats, advantages, average, clipped_tokens, micro_batches, summarise, token_loss,
                        zero_variance_cause)


def test_advantages_by_hand():
    # rewards 1, 0, 0, 1: mean .5, sample std sqrt(4 * .25 / 3) = .57735, so A = +-.5 / .577351 = +-.866024
    a = advantages(torch.tensor([[1., 0., 0., 1.]]))
    assert torch.allclose(a, torch.tensor([[.866024, -.866024, -.866024, .866024]]), atol=1e-5)
    assert torch.equal(advantages(torch.tensor([[1., 0.]]), scale=False), torch.tensor([[.5, -.5]]))
    # No variance, no advantage, no division by zero.
    assert torch.equal(advantages(torch.full((1, 4), .7)), torch.zeros(1, 4))


def test_advantages_stay_within_their_group():
    both = advantages(torch.tensor([[1., 0., 1., 0.], [.2, .1, .1, .1]]))
    alone = advantages(torch.tensor([[.2, .1, .1, .1]]))
    assert torch.equal(both[1:], alone)


def test_clipping_by_hand():
    # r = 1.5 with A = 1 is clipped to 1.2; r = 1.5 with A = -1 is not (min of -1.5 and -1.2); r = .5 with A = -1 is
    # clipped to .8
    log = torch.log(torch.tensor([[1.5], [1.5], [.5], [.5]]))
    advantage = torch.tensor([[1.], [-1.], [-1.], [1.]])
    loss, ratio = token_loss(log, torch.zeros(4, 1), None, advantage, .2, .2, 0.)
    assert torch.allclose(loss[:, 0], torch.tensor([-1.2, 1.5, .8, -.5]))
    assert clipped_tokens(ratio, advantage, .2, .2)[:, 0].tolist() == [1, 0, 1, 0]
    assert clipped_tokens(ratio, advantage, .6, .6).sum() == 0
    higher, _ = token_loss(log[:1], torch.zeros(1, 1), None, torch.ones(1, 1), .2, .28, 0.)
    assert torch.allclose(higher, torch.tensor([[-1.28]]))  # clip-higher


def test_clipped_tokens_have_no_gradient():
    log = torch.log(torch.tensor([[1.5, 1.1]])).requires_grad_()
    loss, _ = token_loss(log, torch.zeros(1, 2), None, torch.ones(1, 1), .2, .2, 0.)
    loss.sum().backward()
    assert log.grad[0, 0] == 0 and math.isclose(log.grad[0, 1].item(), -1.1, rel_tol=1e-6)


def test_k3_is_the_kl_on_average_and_never_negative():
    torch.manual_seed(0)
    p, q = torch.randn(50).log_softmax(0), torch.randn(50).log_softmax(0)
    draws = torch.multinomial(p.exp(), 200_000, replacement=True)
    loss, _ = token_loss(p[draws][None], p[draws][None], q[draws][None], torch.zeros(1, 1), .2, .2, 1.)
    kl = (p.exp() * (p - q)).sum()
    assert loss.min() >= 0 and abs(loss.mean() - kl) < .02 * kl + 4 * loss.std() / 200_000 ** .5


def test_averages_by_hand():
    # two rollouts, of 1 and 3 tokens, longest allowed 4: per-token losses 4 | 1 1 1
    per_token = torch.tensor([[4., 9., 9.], [1., 1., 1.]])
    mask = torch.tensor([[1., 0., 0.], [1., 1., 1.]])

    def value(kind):
        return average(per_token, mask, kind, 2, torch.tensor(4.), 4).item()
    assert value("grpo") == pytest.approx((4 + 1) / 2)
    assert value("dapo") == pytest.approx(7 / 4)
    assert value("bnpo") == pytest.approx(7 / 4)
    assert value("dr_grpo") == pytest.approx(7 / (2 * 4))


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_micro_batches_add_up_to_the_whole(kind):
    torch.manual_seed(1)
    per_token, mask = torch.randn(6, 5), (torch.rand(6, 5) < .7).float()
    mask[:, 0] = 1
    whole = average(per_token, mask, kind, 6, mask.sum(), 5)
    parts = sum(average(per_token[i:i + 2], mask[i:i + 2], kind, 6, mask.sum(), 5) for i in (0, 2, 4))
    assert torch.allclose(whole, parts, atol=1e-6)


def test_micro_batches_by_hand():
    """Groups 4, 7, 9 of four rollouts each; rollout g of prompt b stands in row 4 b + g."""
    def cut(size):
        return [(batch.groups, list(batch.members)) for batch in micro_batches([4, 7, 9], 4, size)]
    everyone = [0, 1, 2, 3]
    assert cut(8) == cut(11) == [([4, 7], everyone), ([9], everyone)]
    assert cut(4) == [([4], everyone), ([7], everyone), ([9], everyone)]
    assert cut(3) == [([4], [0, 1, 2]), ([4], [3]), ([7], [0, 1, 2]), ([7], [3]), ([9], [0, 1, 2]), ([9], [3])]
    assert micro_batches([4, 7, 9], 4, 8)[0].rows == [16, 17, 18, 19, 28, 29, 30, 31]
    assert micro_batches([], 4, 8) == []


@pytest.mark.parametrize("size", range(1, 14))
def test_every_rollout_is_in_one_micro_batch(size):
    batches = micro_batches([5, 0, 2], 4, size)
    rows = [row for batch in batches for row in batch.rows]
    assert sorted(rows) == [0, 1, 2, 3, 8, 9, 10, 11, 20, 21, 22, 23]
    assert all(len(batch.rows) == len(batch.groups) * len(batch.members) <= size for batch in batches)


def verdict(outcome, answer="1", **scores):
    parsed = SimpleNamespace(answer=answer, points=[0, 0], unreadable={"broken": 1})
    points = [SimpleNamespace(score=1., miss=""), SimpleNamespace(score=0., miss="beside")]
    return SimpleNamespace(outcome=outcome, parsed=parsed, points=points, **scores)


def test_zero_variance_groups_are_named_by_cause():
    assert zero_variance_cause([verdict(1.), verdict(1.)]) == "all right"
    assert zero_variance_cause([verdict(0.), verdict(0.)]) == "all wrong"
    assert zero_variance_cause([verdict(0., None), verdict(0., None)]) == "all malformed"
    assert zero_variance_cause([verdict(1.), verdict(0.)]) == "all equal"
    assert zero_variance_cause([verdict(1.), verdict(None)]) == "not scored"


def test_a_step_is_summarised_without_what_was_not_scored():
    one_process = SimpleNamespace(num_processes=1)
    right = verdict(1., reward=1., grounding=.5, reasoning=None)
    wrong = verdict(0., reward=0., grounding=None, reasoning=None)
    failed = verdict(None, reward=None, grounding=1., reasoning=None)
    rollouts = SimpleNamespace(mask=torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]),
                               finished=torch.tensor([True, True, False]))
    free = SimpleNamespace(kind="free", answer="2", source="", media="image")  # the judge takes 1 for 2
    counted = SimpleNamespace(kind="count", answer="2", source="clips", media="video")
    row = summarise(one_process, [free, counted], [[right, wrong], [failed]], rollouts, ["not scored"], .5)
    assert (row["reward"], row["outcome"], row["gate_open"]) == (.5, .5, .5)
    assert (row["grounding"], row["reasoning"]) == (.75, None)
    assert (row["points"], row["length"], row["skipped"], row["not scored"], row["all right"]) == (2, 2, 1, 1, 0)
    assert row["unfinished"] == pytest.approx(1 / 3) and row["unfinished_in"] == {"clips": 1, "image": 0}
    assert row["judge_only"] == .5 and row["malformed"] == {"clips": 0, "image": 0}
    assert row["misses"] == {"beside": pytest.approx(1 / 3), "unreadable": pytest.approx(1 / 3)}  # where points are scored
    nothing = [[verdict(None, reward=None, grounding=None, reasoning=None)]]
    row = summarise(one_process, [free], nothing, rollouts, [], .5)
    assert (row["reward"], row["outcome"], row["gate_open"], row["grounding"]) == (0, 0, 0, None)


def test_updates_of_processes_add_up(monkeypatch):
    mine = UpdateStats(loss=1., entropy=.5, clip_fraction=.25, kl=2., sampler_gap=.1, grad_norm=3.)
    other = UpdateStats(loss=2., entropy=.5, clip_fraction=0., kl=1., sampler_gap=.4, grad_norm=3.)
    monkeypatch.setattr(train_grpo.processes, "gather", lambda accelerator, things: [*things, other])
    both = UpdateStats(loss=3., entropy=1., clip_fraction=.25, kl=3., sampler_gap=.4, grad_norm=3.)
    assert mine.over_all(None) == both


def test_reward_names_are_the_papers_ablations():
    assert set(REWARDS["no-vg"]) == {"outcome", "reasoning"} and set(REWARDS["no-rq"]) == {"outcome", "grounding"}
    assert set(REWARDS["argos"]) == {"outcome", "grounding", "reasoning"} and REWARDS["outcome"] == ("outcome",)


def test_damaged_files_make_room_for_the_next_that_can_be_read():
    good = {2, 5}

    def usable(samples):
        kept = [sample for sample in samples if sample.path in good]
        return kept, [sample.path for sample in kept]
    verifier = SimpleNamespace(usable=usable)
    train, order = [SimpleNamespace(path=k) for k in range(6)], [0, 1, 2, 3, 4, 5]
    assert train_grpo.readable(verifier, train, order, [1, 2])[1] == [2]
    assert train_grpo.readable(verifier, train, order, [3, 4])[1] == [5]
    assert train_grpo.readable(verifier, train, order, [6, 7])[1] == [2]  # the second time around, 0 and 1 again
    good.clear()
    train[0].path = "a.png"
    with pytest.raises(BadInput, match="no file of the training data"):
        train_grpo.readable(verifier, train, order, [0])
