"""teachers/pointers.py: Molmo's replies, of any size and form, and whose pixels a pointer's numbers are."""
import time

import numpy as np
import pytest
import torch

import policy as P
from runs.errors import BadInput
from teacher_fixtures import TWO_SQUARES, folder, picture, policy  # noqa: F401  (fixtures)
from teachers.pointers import MolmoPointer, VLMPointer, read_molmo


@pytest.mark.parametrize("reply, points", [
    (' <point x="61.5" y="40.4" alt="mug">mug</point>', [(61.5, 40.4)]),
    ('<points x1="10.0" y1="20.5" x2="30" y2="40.1" alt="mugs">mugs</points>', [(10, 20.5), (30, 40.1)]),
    ('Counting the <points x1="5" y1="6" x2="7" alt="x">', [(5, 6)]),                 # a partner is missing
    ('<point y="1.5" x="2.5" alt=\'say x1="9" y1="9"\'>', [(2.5, 1.5)]),              # an alt text is no coordinate
    ('<point x="1.2.3" y="5">', []), ('<point x="12345" y="5">', []),
    ("There are none.", []), ("<point >", []), ("", []),
    ("<points " + " ".join(f'x{i}="1" y{i}="2"' for i in range(500)) + ">", [(1, 2)] * 64)])
def test_molmo_replies(reply, points):
    assert read_molmo(reply) == points


@pytest.mark.parametrize("reply", ["<point " * 300_000, "<points x1=" + "1" * 2_000_000, "<point x" * 200_000 + ">",
                                   "<points " + 'x="' * 500_000 + ">", "<points" + " " * 2_000_000], ids=range(5))
def test_a_reply_of_any_size_is_read_at_once(reply):
    start = time.process_time()
    read_molmo(reply)
    assert time.process_time() - start < .5


class Pair:
    """Molmo's processor and model, cut down to the two calls that its own code offers; the reply is made by hand."""
    def __init__(self, reply):
        self.reply, self.tokenizer, self.asked = reply, self, []

    def process(self, images, text):
        self.asked.append((images[0].size, text))
        return {"input_ids": torch.tensor([7, 8, 9]), "images": torch.zeros(2, 4)}

    def generate_from_batch(self, inputs, config, tokenizer):
        assert inputs["input_ids"].shape == (1, 3) and inputs["images"].shape == (1, 2, 4)  # a batch of one
        return torch.tensor([[7, 8, 9, 1, 2]])

    def decode(self, ids, skip_special_tokens):
        assert ids.tolist() == [1, 2]  # the reply without the prompt
        return self.reply


def test_molmo_points_are_percent_of_the_picture():
    pair = Pair('<points x1="50" y1="25" x2="0" y2="99.9" x3="100" y3="50" x4="120" y4="3" alt="mug">mug</points>')
    points = MolmoPointer(device="cpu", pair=(pair, pair)).point(picture(), 'mug"<|endoftext|>')
    assert np.allclose(points, [(100, 25), (0, 99.9)])  # 100 percent is the first pixel outside
    assert pair.asked == [((200, 100), "Point to mug'< |endoftext|>.")]


def test_molmo_runs_no_code_from_a_name():
    for name in (None, "allenai/Molmo-7B-D-0924", "/nowhere"):
        with pytest.raises(BadInput, match="read its .py files"):
            MolmoPointer(name, "cpu")


def test_the_vlm_pointer_keeps_what_lies_in_the_picture(policy, monkeypatch):
    tag = '<point x1="{}" y1="28" alt="red square">red square</point>'
    reply = f"{tag.format(44)}, {tag.format(300)}."
    monkeypatch.setattr(P, "sample", lambda *a, **k: P.Rollouts(None, None, None, [reply], None))
    assert VLMPointer(policy).point(TWO_SQUARES, "red square") == [(44, 28)]
