"""What is read out of a response: examples worked by hand, bad pieces, and properties of any string at all.

Run: pytest tests/test_claims.py
"""
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from verifier.claims import FrameClaim, Point, SegmentClaim, canonical, parse, sections  # noqa: E402

settings.register_profile("argos", deadline=None, derandomize=True, database=None)  # a busy machine is no failure
settings.load_profile("argos")
TAG = '<point x1="{}" y1="{}" alt="{}">{}</point>'


def tag(x, y, label="red square"):
    return TAG.format(x, y, label, label)


def test_the_image_format():
    p = parse(f'<think>I see {tag(44, 28)}, <point x1="4" y1="8" x2="5.5" y2="9" alt="red mug">red mug</point>.</think>'
              "<answer>2</answer>")
    assert p.answer == "2" and p.dropped == 0 and p.think.startswith("I see <point") and p.think.endswith("</point>.")
    assert p.points == [Point(44, 28, "red square"), Point(4, 8, "red mug"), Point(5.5, 9, "red mug")]
    # alt is the label; what a reader sees is kept where it names something else
    assert parse('<point x1="4" y1="8" alt="the red mug">it</point>').points == [Point(4, 8, "red mug", shown="it")]
    assert parse('<point x1="4" y1="8" alt="the red mug">Red-mug!</point>').points == [Point(4, 8, "red mug")]
    both = tag(4, 8) + TAG.format(4, 8, "red square", "green square")  # another point, not a repeat of the first
    assert [q.shown for q in parse(both).points] == ["", "green square"]


def test_the_video_format():
    p = parse("<think>The red square is at (44, 28) in frame 5 (2.5 seconds). "
              "In frame 5 (2.5 seconds) the red square appears. "
              "From 2.5 seconds to 3.5 seconds the red square moves.</think><answer>2.5 seconds</answer>", "video")
    assert p.points == [Point(44, 28, "red square", 5, 2.5)]
    assert p.frame_claims == [FrameClaim(5, 2.5, "the red square appears")]
    assert p.segment_claims == [SegmentClaim(2.5, 3.5, "the red square moves")]
    assert p.answer == "2.5 seconds" and p.dropped == 0


@pytest.mark.parametrize("text, label", [
    ("The red square is at (1, 2) in frame 5 (2.5 seconds)", "red square"),
    ("I see a man, the tall woman located at (1, 2) in frame 5 (2.5 seconds)", "tall woman"),
    ("First. Red mug at (1, 2) in frame 5 (2.5 seconds)", "Red mug"),
    ("dog (1, 2) in frame 5 (2.5 seconds)", "dog"),
    ("the cat moves from (9, 9) in frame 1 (0.5 seconds) and the dog stands at (1, 2) in frame 5 (2.5 seconds)",
        "dog"),
    (f"{tag(1, 2)} in frame 5 (2.5 seconds)", "red square"),
    # behind the point, where none stands before it
    ("(1, 2) in frame 5 (2.5 seconds) the cat jumps", "cat"),
    ("It moves. (1, 2) in frame 5 (2.5 seconds): a small black cat, then nothing", "small black cat"),
    ("(1, 2) in frame 5 (2.5 seconds) is the red mug and (NaN, 4) in frame 6", "red mug"),
    ("I see at (1, 2) in frame 5 (2.5 seconds) there is a tall man who walks", "tall man"),
    # each has its own words
    ("(9, 9) in frame 1 (0.5 seconds) the dog, (1, 2) in frame 5 (2.5 seconds) the cat", "cat"),
    ("(9, 9) in frame 1 (1, 2) in frame 5 (2.5 seconds) the cat", "cat"),
])
def test_the_label_of_a_video_point(text, label):
    assert parse(f"<think>{text}</think>", "video").points[-1] == Point(1, 2, label, 5, 2.5)


@pytest.mark.parametrize("text, labels, misses", [
    # a sentence names a thing once, and follows it
    ("The red square moves from (1, 2) in frame 3 (1.5 seconds) to (3, 4) in frame 4 (2.0 seconds).", ["red square"] * 2, 0),
    ("The red square is at (1, 2) in frame 3 (1.5 seconds) and (3, 4) in frame 4 (2.0 seconds).", ["red square"] * 2, 0),
    ("The red square: (1, 2) in frame 3, (3, 4) in frame 4.", ["red square"] * 2, 0),
    ("The red square, at (1, 2) in frame 3, moves.", ["red square"], 0),
    ("The cat is at (1, 2) in frame 3 and it is at (3, 4) in frame 5.", ["cat"] * 2, 0),
    ("The cat is at (1, 2) in frame 3. (3, 4) in frame 5.", ["cat"], 1),  # another sentence
    ("(1, 2) in frame 3 the cat (3, 4) in frame 4 the dog", ["cat", "dog"], 0),
    ("First, (1, 2) in frame 3 (1.5 seconds) - the cat jumps", ["cat"], 0),
    # words that are no label
    ("(1, 2) in frame 3 (1.5 seconds), so the answer is 2", [], 1), ("(1, 2) in frame 3, therefore two", [], 1),
    ("(1, 2) in frame 3 (1.5 seconds) nothing is there", [], 1), ("the door, which (1, 2) in frame 3", [], 1),
    # the words before a point are its label, whatever stands behind it
    ("The green cross is here: (1, 2) in frame 3 (1.5 seconds), red square.", ["green cross"], 0),
    ("The green cross, (1, 2) in frame 3 (1.5 seconds), red square.", ["green cross"], 0),
    # pairs that are read, that are broken, and that are no pairs
    ("the cat (1, 2) on frame 3", ["cat"], 0), ("the cat (1, 2), in frame 3", ["cat"], 0),
    ("the cat (1, 2, 3) in frame 3", [], 1), ("the cat (1; 2) in frame 3", [], 1), ("the cat (1 2) in frame 3", [], 1),
    ("the cat (1, 2) frame 3", [], 1), ("the cat (x=1, y=2) in frame 3", [], 1), ("the cat (inf, 2) in frame 3", [], 1),
    ("The animals (a cat, a dog) in frame 3 (1.5 seconds) are here.", [], 0), ("It waits (1.5 seconds) in frame 3.", [], 0),
])
def test_labels_of_pairs_by_sentence(text, labels, misses):
    p = parse(f"<think>{text}</think>", "video")
    assert [point.label for point in p.points] == labels and sum(p.unreadable.values()) == misses


@pytest.mark.parametrize("start", ["< point ", "<\npoint ", "</point ", "<point1 ", "<point_1 ", "<pointx1", "<\u200bpoint ",
                                   "<po\u00adint ", "＜point ", "&lt;point ", "<Points/"])
def test_whatever_looks_like_a_point_is_a_miss_where_it_cannot_be_read(start):
    p = parse(f'<think>{tag(1, 2)} {start}x1="9" y1="9" alt="a">a</point></think><answer>2</answer>')
    assert len(p.points) == 1 and sum(p.unreadable.values()) == 1
    assert not parse(f"<think>{tag(1, 2)} The point of it: < 3 points > 2.</think>").unreadable.keys() - {"malformed point tag"}


@pytest.mark.parametrize("form", ["{}<think>x</think><answer>2</answer>", "<think>x</think>{}<answer>2</answer>",
                                  "<think>x</think><answer>2</answer>{}"])
def test_points_outside_the_reasoning_are_misses(form):
    p = parse(form.format(tag(1, 2)))
    assert not p.points and p.unreadable == {"point outside the reasoning": 1}
    assert parse(tag(1, 2) + "<answer>2</answer>").points and not parse(tag(1, 2)).unreadable  # no <think>: all is reasoning


@pytest.mark.parametrize("alt, text, shown", [
    ("red square", " " * 300 + "green cross", "green cross"), ("red square", "red square" + " " * 290 + "green cross", "red square green cross"),
    ("red square", "." * 300 + "green cross", "green cross"), ("red square", "\u200b" * 300 + "green cross", "green cross"),
    ("red square", "\n" * 300 + "green cross", "green cross"), ("red square", "square", "square"),
    ("red square", "The red-square.", ""), ("red square", "red squares", ""), ("man", "man's", ""), ("salt &amp; pepper", "salt & pepper", ""),
    ("red square", "", ""), ("red square", " ... ", ""), ("bus", "bu", "bu")])
def test_alt_and_all_of_the_text_are_compared(alt, text, shown):
    point, = parse(f'<think><point x1="1" y1="2" alt="{alt}">{text}</point></think>').points
    assert point.shown == shown


def test_more_forms_of_tags_are_read():
    p = parse('<think><point x="1" y="2px" alt="mug"/> <point x1="+3." y1=".5" alt="cup">cup</point></think>')
    assert [(q.x, q.y, q.label) for q in p.points] == [(1, 2, "mug"), (3, .5, "cup")] and not p.unreadable


def test_words_between_two_points_name_one_of_them():
    p = parse("<think>(9, 9) in frame 1 (0.5 seconds) the cat is at (1, 2) in frame 5 (2.5 seconds)</think>", "video")
    assert p.points == [Point(1, 2, "cat", 5, 2.5)] and p.unreadable == {"point without a label": 1}
    p = parse("<think>(9, 9) in frame 1 (0.5 seconds) the dog. The cat is at (1, 2) in frame 5 (2.5 seconds)</think>", "video")
    assert [q.label for q in p.points] == ["dog", "cat"] and not p.unreadable
    p = parse("<think>(9, 9) in frame 1 (0.5 seconds). In frame 5 (2.5 seconds) the cat is gone.</think>", "video")
    assert not p.points and p.unreadable == {"point without a label": 1}  # the claim's words are the claim's
    assert p.frame_claims == [FrameClaim(5, 2.5, "the cat is gone")]


@pytest.mark.parametrize("text, unreadable", [
    ("The cat is at (NaN, 3) in frame 5 (2.5 seconds).", {"coordinate missing or not a number": 1}),
    ("The cat is at (1, 2) in frame x.", {"coordinate missing or not a number": 1}),
    ("The cat is at (1, 2) in frame 5 (2.5 seconds). In frame x it is.", {}), ("(1, 2) in frame 5 (2.5 seconds).", {"point without a label": 1}),
    (tag(1, 2) + tag(1, 2) + "<point " * 3, {"malformed point tag": 3}),
    ("".join(tag(i, 2) for i in range(200)), {"point beyond 64": 64}),
    ("".join(tag(i, 2) for i in range(70)) * 9, {"point beyond 64": 6}),
    ("<point " * 50 + "".join(tag(i, 2) for i in range(99)), {"malformed point tag": 50, "point beyond 64": 14}),
    ("In frame x it is. From 1 to 2 seconds.", {})])
def test_points_that_cannot_be_read_are_counted(text, unreadable):
    p = parse(f"<think>{text}</think>", "video")
    assert p.unreadable == unreadable
    assert p.pieces == len(p.points) + len(p.frame_claims) + len(p.segment_claims) + sum(unreadable.values())


@pytest.mark.parametrize("text, claims", [
    ("In frame 5 the door is open.", [FrameClaim(5, None, "the door is open")]),
    ("The door is open in frame 5 (2.5 seconds).", [FrameClaim(5, 2.5, "The door is open")]),
    ("At 2.5 seconds, the door opens; at 3 s it shuts.", [FrameClaim(None, 2.5, "the door opens"),
    FrameClaim(None, 3, "it shuts")]),
    ("In frame 5 (2.5 seconds) it is 1.5 m wide and in frame 6 (3.0 seconds) it shrinks",
     [FrameClaim(5, 2.5, "it is 1.5 m wide"), FrameClaim(6, 3, "it shrinks")]),
    (f"In frame 5 (2.5 seconds) the {tag(1, 2)} appears.", [FrameClaim(5, 2.5, "the red square appears")]),
    # the words belong to one claim
    ("In frame 5 the door opens in frame 6.", [FrameClaim(5, None, "the door opens")]),
    ("It ends at 2.5 seconds.", []), ("In frame 5 (NaN seconds) it burns.", []), ("In frame 12345678 it burns.", []),
    ("In frame 2.5 it burns.", []), ("The cat is at (NaN, 3) in frame 5 (2.5 seconds).", []),
])
def test_frame_claims(text, claims):
    assert parse(f"<think>{text}</think>", "video").frame_claims == claims


@pytest.mark.parametrize("response, answer", [
    ("<think>x</think><answer>2</answer>", "2"),
    ("<answer> 2 </answer>", "2"),                                        # no reasoning
    ("x</think><answer>2</answer>", "2"),                                 # <think> stood in the prompt
    ("<answer>3</answer></think><answer>2</answer>", "2"),                # so the first answer was inside it
    ("<THINK>x</THINK><Answer >2</ANSWER>", "2"),
    ("<answer>2</answer><answer>2.0</answer>", "2.0"),                    # the same answer twice; the last counts
    ("<answer>two</answer><answer>2</answer>", "2"),
    ("<think><think>x</think>y</think><answer>2</answer>", "2"),
    ("<answer>2\u200b</answer>", "2"),
    ("<answer>1,200</answer>", "1,200"), ("<answer>red and white</answer>", "red and white"),
    # none of these has an answer that counts
    ("", None), ("2", None), ("<answer>2", None), ("<answer></answer>", None),
    ("<answer> \u200b\u202e\x00 </answer>", None),
    ("<think><answer>2</answer></think>", None), ("<think>x<answer>2</answer>", None),
    ("<think>x</think><answer>2</answer><answer>3</answer>", None), ("<answer>2</answer><answer></answer>", None),
    ("<think>a</think><answer>2</answer></think><answer>3</answer>", None),  # a stray </think> hides no answer
    ("<answer>A or B</answer>", None), ("<answer>A or B or C</answer>", None), ("<answer>A, B</answer>", None),
    ("<answer>A and B</answer>", None), ("<answer>A/B</answer>", None), ("<answer>A B</answer>", None),
    ("<answer>2 or 3</answer>", None), ("<answer>2, 3</answer>", None), ("<answer>A. red or B. blue</answer>", None),
    ("<answer>red o\u200br blue</answer>", None), ("<answer>Ａ ｏｒ Ｂ</answer>", None),
    ("<answer>2<think>x</think>3</answer>", None), ("<answer>" + "x" * 10_001 + "</answer>", None),
    ("".join(f"<answer>{i}</answer>" for i in range(1000)), None),
])
def test_which_answer_counts(response, answer):
    p = parse(response)
    assert p.answer == answer and bool(p.no_answer) == (answer is None)


@pytest.mark.parametrize("text, reasoning, answers, dropped", [  # every place with every tag: the table in sections()
    ("a<think>b</think>c", "b", [], {}), ("<think>a</think>b</think>c", "a", [], {"</think> without <think>": 1}),
    ("a<answer>b</answer>c", "a\nc", ["b"], {}), ("a</answer>b", "a</answer>b", [], {"</answer> without <answer>": 1}),
    ("<think>a<think>b<think>c</think>d</think><answer>e</answer></think>f",
        "a<think>b<think>c</think>d</think><answer>e</answer>",
     [], {"nested <think>": 2, "<answer> inside <think>": 1}),
    ("<think>a</answer></think>", "a</answer>", [], {}),  # counted with its <answer>, of which there is none
    ("<answer>a<think>b</think>", "b", [], {"<answer> not closed": 1}),
    ("<think></think><answer>a</think>b</answer>", "", ["a</think>b"], {"</think> without <think>": 1}),
    ("<answer>a<answer>b</answer>", "", ["b"], {"<answer> not closed": 1}),
    ("a</think><answer>b</answer>", "a", ["b"], {}),      # the prompt has opened <think>
    ("<think>a", "a", [], {"<think> not closed": 1}), ("a<answer>b", "a", [], {"<answer> not closed": 1})])
def test_tags_cut_a_response(text, reasoning, answers, dropped):
    found = sections(text)
    assert found[:2] == (reasoning, answers) and dict(+found[2]) == dropped


def test_a_point_on_another_frame_is_another_point():
    text = "".join(f"the dog (1, 2) in frame {i} ({i / 2} seconds). " for i in (3, 4, 4))
    p = parse(f"<think>{text}</think>", "video")
    assert [(q.frame, q.seconds) for q in p.points] == [(3, 1.5), (4, 2)]
    assert p.dropped_reasons == {"repeated point": 1}


@pytest.mark.parametrize("inside, kept, reason", [
    ('<point x1="NaN" y1="2" alt="a">a</point>', 0, "coordinate missing or not a number"),
    ('<point x1="1e308" y1="2" alt="a">a</point>', 0, "coordinate missing or not a number"),
    ('<point x1="٣" y1="2" alt="a">a</point>', 0, "coordinate missing or not a number"),
    ('<point x1="99999999999" y1="2" alt="a">a</point>', 0, "coordinate missing or not a number"),
    ('<point x1="1" alt="a">a</point>', 0, "coordinate missing or not a number"),
    ('<point x1="1" y1="2" x2="3" alt="a">a</point>', 1, "coordinate missing or not a number"),
    ('<point alt="a">a</point>', 0, "point without coordinates"),
    ("<point alt='x1=\"44\" y1=\"28\"'>a</point>", 0, "point without coordinates"),  # hidden in the label
    ('<point x1="1" y1="2" alt=""> </point>', 0, "point without a label"),
    ('<point x1="1" y1="2" alt="a">a', 0, "malformed point tag"), ('<point x1="1" y1="2"/>', 0, "point without a label"),
    ("<point " * 50, 0, "malformed point tag"),
    (tag(1, 2) + tag(1, 2) + tag(1.4, 2) + tag(1, 2, "Red Square"), 1, "repeated point"),
    ("".join(tag(i, 2) for i in range(70)), 64, "point beyond 64"),
    ('<point x1=3 y1=4 alt=“mug”>mug</point>', 1, None), ("<point x1='-3' y1='4'>the mug</point>", 1, None),
])
def test_bad_pieces_are_dropped_and_counted(inside, kept, reason):
    p = parse(f"<think>{inside}</think><answer>2</answer>")
    assert len(p.points) == kept and p.answer == "2"
    assert set(p.dropped_reasons) == ({reason} if reason else set())
    assert p.dropped == sum(p.dropped_reasons.values())


def test_bad_video_pieces_are_dropped_and_counted():
    many = "".join(f"In frame {i} it sits. From {i} to {i + 1} seconds it naps. " for i in range(70))
    p = parse("<think>" + "In frame 5 (2.5 seconds) it glows. " * 3
              + "From 1 to 2 seconds. In frame 3. In frame x it is. " + many + "</think>", "video")
    assert len(p.frame_claims) == len(p.segment_claims) == 64
    assert p.dropped_reasons == {"repeated frame claim": 2, "segment claim without text": 1,
                                 "frame claim without text": 1, "malformed frame reference": 1, "frame claim beyond 64": 7,
                                 "segment claim beyond 64": 6}


@settings(max_examples=300)
@given(st.lists(st.sampled_from([
    "<think>", "</think>", "<answer>", "</answer>", '<point x1="4" y1="8" alt="a">', "a</point>", "(1, 2) in frame 3",
    " (2.5 seconds)",
    "from 1 to 2 seconds", "in frame 5 ", "2", "A or B", ". ", '"', "<", "\x00", "\u202e", "\ud800",
    "9" * 40]) | st.text(max_size=9), max_size=40))
def test_parse_is_total_and_bounded(pieces):
    response = "".join(pieces)
    for media in ("image", "video"):
        p = parse(response, media)
        assert max(len(p.points), len(p.frame_claims), len(p.segment_claims), sum(p.unreadable.values())) <= 64
        assert p.dropped >= sum(p.unreadable.values()) >= 0 and min(p.unreadable.values(), default=1) > 0
        assert p.answer is None or p.answer.strip() and p.answer.isprintable()
        assert all(0 < len(q.label) <= 80 and math.isfinite(q.x + q.y) for q in p.points)
        assert len(p.think) <= len(response) + len(pieces)


@pytest.mark.parametrize("media", ["image", "video"])
@given(x=st.integers(-99, 9999), y=st.integers(0, 9999), frame=st.integers(0, 31),
    label=st.sampled_from(["red mug", "dog"]))
def test_what_is_written_is_read(media, x, y, frame, label):
    text, want = tag(x, y, label), Point(x, y, label)
    if media == "video":
        text = f"The {label} is at ({x}, {y}) in frame {frame} ({frame / 2:.1f} seconds)."
        want = Point(x, y, label, frame, frame / 2)
    response = f"<think>{text}</think><answer>yes</answer>"
    assert parse(response, media).points == [want]
    assert canonical(response, media) == response  # the canonical form is its own canonical form


def test_canonical_form():
    assert canonical("<think>see <point alt='the mug' x1=4 y1=8.50>mug</point> </think> so <answer>(A)</answer>") == \
        '<think>see <point x1="4" y1="8.50" alt="mug">mug</point></think><answer>(A)</answer>'
    two_names = '<think><point x1="4" y1="8" alt="mug">cup</point></think><answer>1</answer>'
    assert canonical(two_names) == two_names  # SFT data is not mended into what nobody checked
    loose = "dog ( 1,2 ) at frame 5 (2.50 secs). From 1 to 2 s it naps. At 3 s it wakes."
    # sentence case stays
    strict = "dog (1, 2) in frame 5 (2.5 seconds). From 1.0 seconds to 2.0 seconds it naps. At 3.0 seconds it wakes."
    written = canonical(f"<think>{loose}</think><answer>2</answer>", "video")
    assert written == f"<think>{strict}</think><answer>2</answer>"
