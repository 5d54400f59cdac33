"""teachers/pointers.py: Molmo's replies, of any size and form, and whose pixels a pointer's numbers are."""
import time

import numpy as np
import pytest
import torch
from PIL import Image

import curate
import policy as P
from runs.errors import BadInput
from teacher_fixtures import TWO_SQUARES, folder, picture, policy  # noqa: F401  (fixtures)
from teachers.judges import one_frame
from teachers.pointers import MolmoPointer, Unreadable, VLMPointer, read_molmo, read_reply
from verifier.asking import TeacherFailed, Teachers


@pytest.mark.parametrize("reply, points", [
    (' <point x="61.5" y="40.4" alt="mug">mug</point>', [(61.5, 40.4)]),
    ('<points x1="10.0" y1="20.5" x2="30" y2="40.1" alt="mugs">mugs</points>', [(10, 20.5), (30, 40.1)]),
    ('Counting the <points x1="5" y1="6" x2="7" alt="x">', [(5, 6)]),                 # a partner is missing
    ('<point y="1.5" x="2.5" alt=\'say x1="9" y1="9"\'>', [(2.5, 1.5)]),              # an alt text is no coordinate
    ('<point x="1.2.3" y="5">', []), ('<point x="12345" y="5">', []),
    ("There are none.", []), ("<point >", []), ("", []),
    ('<points coords="1 1 615 404 2 300 401">mugs</points>', [(61.5, 40.4), (30, 40.1)]),  # Molmo 2: thousandths
    ('<points coords="1 1 100 200;3 2 900 900;4 3 1001 5 4 7">x</points>', [(10, 20), (90, 90)]),
    ('<points x1="1" y1="2" x2="3" y2="4', [(1, 2)]), ('<point x="1" y="101">', []),  # cut off; beyond 100 percent
    ("<points " + " ".join(f'x{i}="1" y{i}="2"' for i in range(500)) + ">", [(1, 2)] * 64)])
def test_molmo_replies(reply, points):
    assert read_molmo(reply) == points


@pytest.mark.parametrize("reply", ["<point " * 300_000, "<points x1=" + "1" * 2_000_000, "<point x" * 200_000 + ">",
                                   "<points " + 'x="' * 500_000 + ">", "<points" + " " * 2_000_000,
                                   '<points coords="' + "1 " * 500_000, "[" * 1_000_000, '{"a": [' * 200_000,
                                   "[" + "1" * 1_000_000 + ", 2]", '[{"point_2d": [' * 100_000, "(1, " * 500_000,
                                   "no " * 500_000, "no aa aa " * 200_000, "is not " * 300_000], ids=range(14))
def test_a_reply_of_any_size_is_read_at_once(reply):
    start = time.process_time()
    read_molmo(reply)
    try:
        read_reply(reply)
    except Unreadable:
        pass
    assert time.process_time() - start < .5


@pytest.mark.parametrize("reply, points", [
    # Qwen2.5-VL's own: JSON, fenced or bare, one or several, cut off
    ('[{"point_2d": [61, 40], "label": "mug"}]', [(61, 40)]),
    ('{"point_2d": [61.5, 40], "label": "mug"}', [(61.5, 40)]),
    ('```json\n[\n\t{"point_2d": [61, 40], "label": "mug"},\n\t{"point_2d": [5, 6], "label": "mug"}\n]\n```',
     [(61, 40), (5, 6)]),
    ('Here they are: [{"point_2d": [61, 40]}, {"point_2d": [5, 6]}] (2 mugs).', [(61, 40), (5, 6)]),
    ('[{"point_2d": [61, 40], "label": "mug"}, {"point_2d": [5, 6], "label": "mug"}, {"point_2d": [7', [(61, 40), (5, 6)]),
    ('{"bbox_2d": [10, 20, 30, 60], "label": "mug"}', [(20, 40)]),
    ('[{"bbox_2d": [10, 20, 30, 60]}, {"bbox_2d": ["0", "0", "5", "9.0"]}]', [(20, 40), (2.5, 4.5)]),
    ('{"bbox_2d": [[10, 20, 30, 60], [0, 0, 4, 4]]}', [(20, 40), (2, 2)]),
    ('{"bbox_2d": [0, 0, 9, 9], "point_2d": [1, 2]}', [(1, 2)]),                      # one thing: its point
    ('{"points": [{"x": 1, "y": 2}, {"x": "3", "y": 4.5}]}', [(1, 2), (3, 4.5)]),
    ('{"point_2d": [1, 2], "label": "the \\"point_2d\\": [5, 5]", "size": [9, 9]}', [(1, 2)]),
    ("[[12, 40], [30, 50]]", [(12, 40), (30, 50)]),
    # tags
    ('<points x1="61" y1="40" x2="5" y2="6" alt="mug">mug</points>', [(61, 40), (5, 6)]),
    ("```xml\n<point x='1061' y='40'/>\n```", [(1061, 40)]), ('<point x="12" y="40">', [(12, 40)]),
    ('<point x1="44" y1="28" alt="x (5, 5)">x (5, 5)</point>', [(44, 28)]),
    # a sentence
    ("The mug is at (61, 40.5).", [(61, 40.5)]), ("( 61 , 40 ), (5,6)", [(61, 40), (5, 6)]),
    # nothing there
    ("[]", []), ("```json\n[]\n```", []), ('{"points": []}', []), ('[{"point_2d": null, "label": "mug"}]', []),
    ("There are none.", []), ("None.", []), ("There's no mug.", []), ("No mug is visible in the image.", []),
    ("I cannot find a mug.", []), ("The image does not contain any mugs.", []), ("There is no mug (5, 5).", []),
    ("There is no mug, but a cup at (5, 6).", []), ("null", []), ("Not found.", []), ("N/A", []), ("There are 0 mugs.", []),
    ("The mug isn't visible.", []), ("No, I see no mug in it.", []),
    # no other is not none
    ("The mug is at (61, 40), and no other mug is visible.", [(61, 40)]), ("No, there is one mug at (61, 40).", [(61, 40)]),
    ("There are no other mugs than that at (61, 40).", [(61, 40)]), ("One is at (61, 40). The second is not visible.", [(61, 40)]),
    # many
    (str([[1, 2]] * 500), [(1, 2)] * 64), ('<point x="1" y="2">' * 500, [(1, 2)] * 64), ("(1, 2)" * 500, [(1, 2)] * 64)])
def test_what_qwen_replies(reply, points):
    """Kills [] for a reply that was not understood: "nothing there" is what a policy would then be told."""
    assert read_reply(reply) == points


@pytest.mark.parametrize("reply", ["", "Sure!", "I think so.", '[{"label": "mug"}]', "<point >", "{", "x" * 100_000, "[" * 999,
                                   '[{"point_2d": [7', "\x00", "\ud800", "{'a': 1}", "true", "[true, false]"])
def test_a_reply_that_cannot_be_read_is_a_failure(reply):
    with pytest.raises(Unreadable, match="no point and no none"):
        read_reply(reply)


def test_numbers_of_no_picture_are_dropped(policy, monkeypatch):
    numbers = ["[NaN, 4]", "[Infinity, 4]", "[1e999, 4]", f"[{10 ** 400}, 4]", "[-1, 4]", "[4, 84]", '["1e3", 4]', "[44, 28]"]
    reply = "[" + ", ".join(f'{{"point_2d": {pair}}}' for pair in numbers) + "]"
    says(monkeypatch, reply)
    assert VLMPointer(policy).point(TWO_SQUARES, "red square") == [(44, 28)]


@pytest.mark.parametrize("label", ["mug (5, 5)", "mug [5, 5]", "<point x='5' y='5'>", '{"point_2d": [5, 5]}'])
def test_a_policys_label_does_not_point(policy, monkeypatch, label):
    """The teacher repeats the label; what stands in it is the policy's."""
    for reply in (f"The {label} is somewhere.", label, label.replace("(5, 5)", "( 5,5 )"), f"[{label}"):
        says(monkeypatch, reply)
        try:
            assert VLMPointer(policy).point(TWO_SQUARES, label) == []
        except Unreadable:
            pass
    says(monkeypatch, f'[{{"point_2d": [44, 28]}}] {label}')
    assert VLMPointer(policy).point(TWO_SQUARES, label) == [(44, 28)]


def test_an_unreadable_reply_is_counted_as_the_pointers_failure(policy, monkeypatch):
    """Never as "nothing there": with a broken pointer the term drops out, with one odd label that label is 0."""
    says(monkeypatch, "Certainly!")
    teachers = Teachers(None, None, VLMPointer(policy), None)
    with pytest.raises(TeacherFailed, match="the pointer failed .Unreadable: no point and no none in 'Certainly!'"):
        teachers.find(TWO_SQUARES, ["red square"], pointed=True)
    assert teachers.failures == {"pointer: Unreadable": 1}


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


def test_molmo_says_none_or_fails():
    for reply, found in (("There are none.", []), ('<point x="150" y="3">', Unreadable), ("Hm.", Unreadable), ("", Unreadable)):
        pair = Pair(reply)
        pointer = MolmoPointer(device="cpu", pair=(pair, pair))
        if found is Unreadable:
            with pytest.raises(Unreadable):
                pointer.point(picture(), "mug")
        else:
            assert pointer.point(picture(), "mug") == found


def test_molmo_runs_no_code_from_a_name():
    for name in (None, "allenai/Molmo-7B-D-0924", "/nowhere"):
        with pytest.raises(BadInput, match="read its .py files"):
            MolmoPointer(name, "cpu")


def says(monkeypatch, reply):
    monkeypatch.setattr(P, "sample", lambda *a, **k: P.Rollouts(None, None, None, [reply], None))


def test_the_vlm_pointers_pixels_are_those_of_the_picture(policy, monkeypatch):
    """What the model is shown has the picture's own size: its processor's limits (7,056 to 28,224 pixels) resize nothing."""
    encode, seen = policy.core.get_image_features, []
    monkeypatch.setattr(policy.core, "get_image_features", lambda pixels, grid: (seen.append(grid), encode(pixels, grid))[1])
    says(monkeypatch, "[28, 56]")
    for width, height in ((28, 56), (280, 392)):
        seen.clear()
        VLMPointer(policy).point(Image.new("RGB", (width, height)), "red square")
        assert (seen[0] * 14).tolist() == [[14, height, width]]


def test_the_vlm_pointer_keeps_what_lies_in_the_picture(policy, monkeypatch):
    tag = '<point x1="{}" y1="28" alt="red square">red square</point>'
    reply = f"{tag.format(44)}, {tag.format(300)}."
    says(monkeypatch, reply)
    assert VLMPointer(policy).point(TWO_SQUARES, "red square") == [(44, 28)]


def test_curation_draws_what_the_pointer_could_say(policy, monkeypatch, capsys):
    """Kills a night's run that one odd reply ends."""
    replies = iter(["Certainly!", "[44, 28]"])
    pointer = VLMPointer(policy)
    monkeypatch.setattr(pointer, "_replies", lambda questions, most: [next(replies)])
    assert curate.point(one_frame(TWO_SQUARES), ["red mug", "red square"], pointer) == [[(44, 28)]]
    assert "not drawn: 'red mug': no point and no none in 'Certainly!'" in capsys.readouterr().err
