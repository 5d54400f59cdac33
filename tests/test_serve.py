"""serve.py and rewards.py: the two ends of the service, in one process, with the tiny pixel teachers and stub judges.

Run: pytest tests/test_serve.py
"""
import http.client
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

import rewards
import serve
from runs.errors import BadInput, run_main
from teachers.names import load_judge, load_teachers
from verifier.samples import Sample
import argos

ROOT = Path(__file__).parent.parent
POINT = '<think>I see <point x1="24" y1="24" alt="red square">red square</point>.</think><answer>1</answer>'
TEXTS = [POINT, POINT.replace('x1="24"', 'x1="70"'), POINT.replace("<answer>1", "<answer>2"), "no tags",
         "<think>There is one.</think><answer>1</answer>"]


class Judge:
    """Agrees always, after `seconds`. fails: what it raises, while it is not None."""
    def __init__(self):
        self.seconds, self.fails, self.calls = 0, None, 0

    def _work(self):
        self.calls += 1
        time.sleep(self.seconds)
        if self.fails:
            raise self.fails

    def equivalent(self, question, truth, prediction):
        self._work()
        return prediction == "the crimson thing"

    def frame_claim(self, image, claim):
        self._work()
        return True

    def segment_claim(self, frames, seconds, claim):
        self._work()
        return True

    def answer_probability(self, media, question, thinks, answers, length_normalized=False):
        self._work()
        return [.5] * len(thinks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for i in range(6):
        image = Image.new("RGB", (84, 84), (215, 215, 210 - i))
        image.paste((225, 30, 30), (14, 14, 36, 36))
        image.save(folder / f"{i}.png")
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:60])
    frames = [Image.new("RGB", (84, 84), (c, 0, 0)) for c in (0, 99, 200)]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:])
    outside = tmp_path_factory.mktemp("outside")
    shutil.copy(folder / "0.png", outside / "secret.png")
    (folder / "link.png").symlink_to(outside / "secret.png")
    return folder


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def serving(folder, judge):
    """start(verifier=None, port=0, **settings) -> a Server at work; its address is server.url."""
    servers = []

    def start(verifier=None, port=0, **settings):
        cfg = serve.Config(data=str(folder), port=port, **settings)
        server = serve.listening(cfg)
        server.service = serve.Service(verifier or argos.Argos(*load_teachers(), judge), [str(folder)], cfg)
        threading.Thread(target=server.serve_forever, args=[.02], daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        servers.append(server)
        return server

    yield start
    for server in servers:
        if not server.service.stopping:
            server.finish()
        server.server_close()


@pytest.fixture(autouse=True)
def fresh_client(monkeypatch):
    monkeypatch.setattr(rewards, "scored_before", False)
    monkeypatch.setattr(rewards, "told", set())


def row(i=0, **changes):
    return {"id": f"r{i}", "question": "How many red squares are there?", "answer": "1", "kind": "count",
            "image": f"{i}.png", **changes}


def item(i=0, text=POINT, **changes):
    return {"row": row(i, **changes), "response": text}


def free(i=0, text="<think>It is red.</think><answer>the crimson thing</answer>", **changes):
    """Only a judge can tell."""
    return item(i, text, **dict(kind="free", answer="a red square", question="What is there?") | changes)


def send(server, body, path="/verify", kind="application/json", length=None, method="POST"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest(method, path)
    connection.putheader("Content-Type", kind)
    if length != "none":
        connection.putheader("Content-Length", str(len(body)) if length is None else length)
    connection.endheaders()
    connection.send(body)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def close(results, verdicts):
    return all(result[name] == pytest.approx(getattr(verdict, name), abs=1e-5) if getattr(verdict, name) is not None
               else result[name] is None for result, verdict in zip(results, verdicts, strict=True)
               for name in ("reward", "outcome", "grounding", "reasoning"))


# ---- 1. The same scores as in process -------------------------------------------------------------------------
def test_shuffled_items_from_64_threads_score_as_in_process(serving, folder):
    verifier = argos.Argos(*load_teachers(), load_judge(str(ROOT / "tiny/teacher")))
    samples = [Sample.from_row(row(i), folder) for i in range(6)]
    expected = verifier.verify_groups(samples, [TEXTS] * 6)
    items = [(i, k) for i in range(6) for k in range(len(TEXTS))]
    random.Random(0).shuffle(items)
    server = serving(verifier)
    results = rewards.verify([item(i, TEXTS[k]) for i, k in items], server.url)
    verdicts = [expected[i][k] for i, k in items]
    assert close(results, verdicts)
    assert results[0]["reasons"] == verdicts[0].explain().split("\n")
    with ThreadPoolExecutor(64) as pool:
        singles = list(pool.map(lambda one: rewards.verify([item(one[0], TEXTS[one[1]])], server.url)[0], items * 2))
    assert close(singles, verdicts * 2)
    assert server.service.bar.n == 3 * len(items)


def test_equal_rows_are_one_group_wherever_they_stand(serving):
    """Where grounding is not called for, one that points lets all of the group be scored on it."""
    server = serving()
    plain = [item(1, TEXTS[4], grounding=False), item(2), item(1, POINT, grounding=False),
             item(0, TEXTS[4], grounding=False)]
    results = rewards.verify(plain, server.url)
    assert results[0]["grounding"] == 0 and results[2]["grounding"] == 1 and results[3]["grounding"] is None
    shuffled = dict(reversed(row(1, grounding=False).items()))
    assert rewards.verify([plain[0], {"row": shuffled, "response": POINT}], server.url)[0]["grounding"] == 0


def test_requests_that_come_together_are_one_batch(serving, monkeypatch):
    server = serving(wait_ms=150)
    batches = []
    real = serve.verify_rollouts
    monkeypatch.setattr(serve, "verify_rollouts", lambda v, rollouts, *rest: batches.append(len(rollouts)) or
                        real(v, rollouts, *rest))
    with ThreadPoolExecutor(8) as pool:
        texts = [TEXTS[4]] * 7 + [POINT]
        results = list(pool.map(lambda text: rewards.verify([item(0, text, grounding=False)], server.url)[0], texts))
    assert batches == [8] and [result["grounding"] for result in results] == [0] * 7 + [1]


def test_big_requests_are_cut_into_batches_of_whole_groups(serving, monkeypatch):
    server = serving(batch=4)
    sizes = []
    real = argos.Argos.verify_groups
    monkeypatch.setattr(argos.Argos, "verify_groups", lambda self, samples, groups, media: sizes.append(
        [len(group) for group in groups]) or real(self, samples, groups, media))
    rewards.verify([item(i, text) for text in TEXTS[:2] for i in range(4)] + [item(5)] * 5, server.url)
    assert sizes == [[2, 2], [2, 2], [5]]


def test_two_servers_share_the_rows_and_keep_groups_whole(serving):
    servers = [serving(), serving()]
    url = f" {servers[0].url}/ , {servers[1].url}"
    items = [item(k % 6, text, id=str(k)) for k in range(12) for text in (TEXTS[4], POINT)]
    for one in items:
        one["row"]["grounding"] = False
    results = rewards.verify(items, url)
    assert all(result["grounding"] is not None for result in results)
    counts = [server.service.bar.n for server in servers]
    assert sum(counts) == 24 and min(counts) > 0 and all(count % 2 == 0 for count in counts)


def test_two_servers_answer_in_the_order_of_the_items(serving):
    """Kills results that stand in the order of the requests."""
    items = [item(i, TEXTS[(i + k) % 5], id=str(i)) for k in range(3) for i in range(6)]
    one, other = serving().url, serving().url
    alone, both = [[r["reward"] for r in rewards.verify(items, url)] for url in (one, f"{one},{other}")]
    assert both == pytest.approx(alone) and both != pytest.approx(both[::-1])


def test_a_rows_server_depends_on_the_row_alone():
    """verl sends parts of a group in many calls and processes. Kills a choice by place, count or a salted hash."""
    servers = ["a", "b", "c"]
    items = [item(i % 6, id=str(i)) for i in range(40)]
    own = [rewards.make_requests([one], servers)[0][0] for one in items]
    assert set(own) == set(servers) and own[:12] == list("ccbbaaaabaab")
    for server, places in rewards.make_requests(items[::-1] + items, servers):
        assert {(own[::-1] + own)[place] for place in places} == {server}


def test_engines_that_tear_groups_apart_score_every_question_on_points(serving):
    """Else who is alone in a call and does not point is scored by another rule than the rest of the group."""
    url, truth = serving().url, json.dumps(row(grounding=False))
    whole, = rewards.easyr1([{"response": TEXTS[4], "ground_truth": truth}], url=url)
    assert whole["overall"] == pytest.approx(.625 / .75)  # nobody in its group points
    apart = [rewards.verl("argos", TEXTS[4], truth, url=url)["score"], *rewards.swift([TEXTS[4]], [truth], url=url),
             *rewards.trl([TEXTS[4]], [truth], url=url)]
    pointed = rewards.verl("argos", POINT, truth, url=url)["score"]
    assert apart == pytest.approx([.625] * 3) and pointed == pytest.approx(.875)


# ---- 2. Teachers that fail ------------------------------------------------------------------------------------
def test_a_failing_judge_drops_the_term_for_the_group(serving, judge):
    judge.fails = ValueError("no weights")
    server = serving()
    results = rewards.verify([item(0, text) for text in TEXTS], server.url)
    assert all(result["reasoning"] is None and "no weights" in result["not_scored"]["reasoning"] for result in results)
    assert results[0]["reward"] == 1
    assert "judge: ValueError" in str(send(server, b"", "/health", method="GET")[1]["failures"])


def test_an_outcome_that_is_not_scored(serving, judge, capsys):
    """None for TRL; the same number for the whole group for EasyR1; verl asks again, then it is an error."""
    judge.fails = ValueError("no weights")
    server = serving()
    items = [free(), free(text="<think>Hm.</think><answer>ball</answer>"), item(1)]
    texts, rows = [one["response"] for one in items], [json.dumps(one["row"]) for one in items]
    assert [r is None for r in rewards.trl(texts, rows, url=server.url)] == [True, True, False]
    inputs = [{"response": text, "ground_truth": truth} for text, truth in zip(texts, rows)]
    scores = rewards.easyr1(inputs, url=server.url)
    assert [s["overall"] for s in scores] == [0, 0, 1] and [s["not_scored"] for s in scores] == [1, 1, 1]
    start = time.monotonic()
    for call in (lambda: rewards.verl("argos", texts[0], rows[0], {}, url=server.url, deadline=.8),
                 lambda: rewards.easyr1(inputs[:2], url=server.url, deadline=.8)):
        with pytest.raises(RuntimeError, match=f"{server.url}.*no weights"):
            call()
    assert time.monotonic() - start < 4

    def recover():
        judge.fails = None
    threading.Timer(.3, recover).start()
    assert rewards.verl("argos", texts[0], rows[0], {}, url=server.url, deadline=10)["score"] > 0


def test_a_part_of_a_call_without_a_reward_is_no_zero_for_swift(serving, judge):
    """The rest of the group may be scored in another process. Kills a 0 that no response has earned."""
    judge.fails = ValueError("no weights")
    server = serving()
    texts, rows = [free()["response"], POINT], [json.dumps(free()["row"]), json.dumps(row(1))]
    with pytest.raises(RuntimeError, match=f"{server.url} gives no reward: .*no weights"):
        rewards.swift(texts, rows, url=server.url, deadline=.5)
    judge.fails = None
    assert min(rewards.swift(texts, rows, url=server.url, deadline=.5)) > 0


def test_a_terminal_that_is_gone_costs_no_answer(serving, monkeypatch):
    def gone(*about):
        raise OSError("Input/output error")
    monkeypatch.setattr(serve, "verify_rollouts", gone)
    monkeypatch.setattr(serve.traceback, "print_exc", gone)
    monkeypatch.setattr(serve, "WAIT_SECONDS", 2)
    status, said = send(serving(), json.dumps([item()]).encode())
    assert status == 500 and "Input/output error" in said["error"]


@pytest.mark.parametrize("error", [MemoryError("RAM"), BadInput("a setting"), KeyError("x"),
                                   type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), SystemExit(3)])
def test_whatever_the_verifier_raises_the_service_goes_on(serving, error, monkeypatch):
    server = serving()
    real = argos.Argos.verify_groups
    bad = []

    def verify_groups(self, samples, groups, media):
        if any(sample.id == "r5" for sample in samples):
            bad.append(len(samples))
            raise error
        return real(self, samples, groups, media)
    monkeypatch.setattr(argos.Argos, "verify_groups", verify_groups)
    status, results = send(server, json.dumps([item(0), item(5), item(1)]).encode())
    if isinstance(error, SystemExit):
        assert status == 500 and "SystemExit" in results["error"]
    else:
        assert [r["reward"] is None for r in results] == [False, True, False] and bad == [3, 1]
        assert type(error).__name__ in results[1]["not_scored"]["outcome"]
    assert send(server, json.dumps([item(0)]).encode())[1][0]["outcome"] == 1


# ---- 3. Rows that are wrong, and hostile requests ---------------------------------------------------------------
def test_a_wrong_row_spoils_no_other_and_opens_nothing_outside(serving, folder, monkeypatch):
    server = serving()
    secret = os.path.realpath(folder / "link.png")
    opened = []
    real = argos.load_media
    monkeypatch.setattr(argos, "load_media", lambda path, **k: opened.append(str(path)) or real(path, **k))
    names = ["none.png", "../outside0/secret.png", "../outside0/none.png", secret, "/etc/passwd", "link.png", "", ".",
             "a\0.png", "\ud800.png", "x" * 5000, 7, None, ["0.png"], {"a": 1}, "damaged.png", "clip.gif"]
    wrong = [item(0, image=name) for name in names]
    wrong += [item(0, kind="rhyme"), item(0, answer=float("nan")), item(0, answer=float("inf")), item(0, answer=None),
              item(0, answer=10 ** 4000), item(0, question="?" * 30_000), item(0, id=[1]), item(0, foils=7),
              item(0, video="0.png"), item(0, options="ab"), {"row": [], "response": ""}, {"row": row()}, 7, None, [],
              {"row": row(), "response": 5}, item(0, raw=json.loads("[" * 900 + "]" * 900))]
    right = {"image": "1.png"}
    results = send(server, json.dumps([item(1, **right), *wrong, item(2)]).encode())[1]
    assert results[0]["outcome"] == results[-1]["outcome"] == 1
    assert [i for i, result in enumerate(results[1:-1]) if "error" not in result] == []
    assert all("\n" not in r["error"] and len(r["error"]) < 600 for r in results[1:-1])
    there, not_there = (results[1 + k]["error"] for k in (1, 2))
    assert there.replace("secret", "none") == not_there  # nobody learns what lies outside
    assert all(Path(path).parent == folder for path in opened)


def test_a_clip_and_an_absolute_name_inside_are_verified(serving, folder):
    clip = {"row": {k: v for k, v in row(video="clip.gif").items() if k != "image"}, "response": POINT}
    results = rewards.verify([clip, item(0, image=str(folder / "0.png"))], serving().url)
    assert [result["outcome"] for result in results] == [1, 1]


HOSTILE_TEXTS = ["", "\0" * 99, "\ud800 \udfff", "<think>" * 3000, "</answer>" * 3000, "\u202e" * 500,
                 "<answer>" + "9" * 5000 + "</answer>", "<answer>NaN</answer>", "<answer>1e999999</answer>",
                 POINT.replace("24", "9" * 400), "<point " * 5000, POINT * 200, "<answer>{}[]%s{0}</answer>",
                 "<think>" + "in frame 3 " * 2000 + "</think><answer>1</answer>"]


def test_hostile_responses_get_numbers(serving):
    kinds = ("count", "phrase", "free")
    items = [item(i, text, kind=kind, answer="1") for i, kind in enumerate(kinds) for text in HOSTILE_TEXTS]
    items.append(item(0, "<answer>1</answer>" + "x " * 5_000_000))
    results = rewards.verify(items, serving().url)
    assert all(0 <= result["reward"] <= 1 for result in results)


@pytest.mark.parametrize("body, status", [
    (b"", 400), (b"{", 400), (b"[" * 200_000, 400), (b"[" + b"9" * 5000 + b"]", 400), (b"\xff\xfe\xfd", 400),
    (b"{}", 400), (b"null", 400), (b"NaN", 400), (b"[" + b"1," * 4096 + b"1]", 400), (b"[]", 200), (b"[NaN]", 200),
    (b'[{"row": 1, "row": {"id": NaN}, "response": "a", "response": Infinity}]', 200)])
def test_bodies_that_are_not_what_was_asked_for(serving, body, status):
    assert send(serving(), body)[0] == status


def test_heads_that_are_not_what_was_asked_for(serving, monkeypatch):
    server = serving()
    body = json.dumps([item()]).encode()
    for given, status in [({"path": "/"}, 404), ({"path": "/verify/../x"}, 404), ({"kind": "text/plain"}, 415),
                          ({"length": "none"}, 411), ({"length": "-1"}, 411), ({"length": "1" * 5000}, 411),
                          ({"length": "1e3"}, 411), ({"method": "GET"}, 404)]:
        assert send(server, body, **given)[0] == status, given
    assert send(server, b" " * 70_000_000)[0] == 413
    monkeypatch.setattr(serve, "READ_SECONDS", .3)
    assert send(server, body, length="999999999999")[0] == 413
    assert send(server, body, length=str(len(body) + 1))[0] == 408
    for garbage in (b"\x16\x03\x01\0\0\r\n\r\n", b"GET /health\r\n", b"POST\r\n\r\n", b"A" * 70_000 + b"\r\n", b"\r\n"):
        with socket.create_connection(server.server_address) as raw:
            raw.sendall(garbage)
            raw.settimeout(5)
            raw.recv(100)
    assert send(server, body)[0] == 200


def test_a_client_that_dribbles_is_cut_off_and_one_that_goes_is_forgotten(serving, judge, monkeypatch, capsys):
    monkeypatch.setattr(serve, "READ_SECONDS", .3)
    server = serving()
    with socket.create_connection(server.server_address) as raw:
        start = time.monotonic()
        raw.settimeout(.05)
        raw.sendall(b"POST /verify HTTP/1.1\r\nX: ")
        said = b""
        while time.monotonic() < start + 5 and not said:
            try:
                raw.sendall(b"x")
                said = raw.recv(100) or b"closed"
            except TimeoutError:
                pass
            except OSError:
                said = b"closed"
        assert time.monotonic() - start < 2
    judge.seconds = .2
    body = json.dumps([item()]).encode()
    head = b"POST /verify HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(3):
        raw = socket.create_connection(server.server_address)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # away with a reset
        raw.sendall(head + body)
        raw.close()
    assert rewards.verify([item()], server.url)[0]["outcome"] == 1
    assert "Traceback" not in capsys.readouterr().err


def test_hundreds_at_once_and_health_while_teachers_are_busy(serving, judge):
    server = serving()
    judge.seconds = .5
    with ThreadPoolExecutor(200) as pool:
        results = [pool.submit(rewards.verify, [item(i % 6)], server.url) for i in range(300)]
        time.sleep(.2)
        start = time.monotonic()
        status, health = send(server, b"", "/health", method="GET")
        assert time.monotonic() - start < 2 and status == 200
        judge.seconds = 0
        assert all(result.result()[0]["outcome"] == 1 for result in results)
    assert health["budget"]["max_pixels"] == 28224 and health["settings"]["detector"] == "pixels"
    assert set(health["versions"]) == {"torch", "transformers", "pillow"}


def test_no_more_wait_than_there_is_room_for(serving, judge, monkeypatch):
    monkeypatch.setattr(serve, "MAX_ROLLOUTS", 4)
    monkeypatch.setattr(serve, "WAIT_SECONDS", .3)
    judge.seconds = .5
    server = serving(batch=1)
    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(lambda i: send(server, json.dumps([item(i % 6)]).encode()), range(12)))
    assert {status for status, _ in said} == {503}  # those who waited too long, too
    assert any("4 rollouts wait" in text["error"] for status, text in said if status == 503)
    judge.seconds = 0
    assert rewards.verify([item()], server.url)[0]["outcome"] == 1  # a client asks until there is room


def test_many_large_requests_do_not_fill_the_memory(serving, judge, monkeypatch):
    body = json.dumps([item()]).encode()
    monkeypatch.setattr(serve, "MAX_HELD", len(body) + 10)
    judge.seconds = .1
    server = serving()
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: send(server, body), range(4)))
    assert sorted({status for status, _ in said}) == [200, 503] and server.held == 0
    with ThreadPoolExecutor(4) as pool:  # a client asks until there is room
        results = list(pool.map(lambda _: rewards.verify([item()], server.url)[0], range(4)))
    assert [result["outcome"] for result in results] == [1] * 4 and server.held == 0


# ---- 4. The client ----------------------------------------------------------------------------------------------
def test_the_client_loads_by_path_and_needs_python_alone(tmp_path):
    shutil.copy(ROOT / "rewards.py", tmp_path / "elsewhere.py")
    code = ("import importlib.util, sys; spec = importlib.util.spec_from_file_location('custom', 'elsewhere.py'); "
            "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
            "print(module.REWARD_TYPE, module.easyr1([]), 'runs' in sys.modules)")
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "batch [] False\n", ran.stderr


def test_the_calls_of_the_engines(serving):
    server = serving()
    truth = json.dumps(row())
    scores = rewards.easyr1([{"response": text, "response_length": 9, "ground_truth": truth} for text in TEXTS],
                            url=server.url)
    assert scores[0]["overall"] == pytest.approx(.875) and scores[2]["overall"] == 0
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda text: rewards.verl(
            data_source="argos", solution_str=text, ground_truth=truth, extra_info={}, url=server.url,
            reward_router_address=None, reward_model_tokenizer=None), TEXTS))
    assert [one["score"] for one in got] == pytest.approx([one["overall"] for one in scores])
    assert {frozenset(one) for one in got} == {frozenset(("score", *rewards.TERMS, "not_scored"))}
    table, metrics = {}, {}
    trl = rewards.trl(prompts=["p"] * 5, completions=[[{"role": "assistant", "content": t}] for t in TEXTS],
                      row=[truth] * 5, log_extra=table.__setitem__, log_metric=metrics.__setitem__, url=server.url)
    assert trl == pytest.approx([one["overall"] for one in scores]) and set(table) == set(rewards.TERMS)


def test_wrong_rows_are_named_once_and_all_wrong_is_an_error(serving, capsys):
    server = serving()
    lost = json.dumps(row(id="lost", image="none.png"))
    with pytest.raises(RuntimeError, match="row lost.*none.png.*--data"):
        rewards.easyr1([{"response": "", "ground_truth": lost}], url=server.url)
    rewards.told.clear()
    assert rewards.verl("a", POINT, lost, url=server.url)["score"] == 0  # one damaged picture ends no training
    with pytest.raises(RuntimeError, match="none.png"):
        for i in range(8):
            rewards.verl("a", POINT, json.dumps(row(id=i, image="none.png")), url=server.url)
    assert rewards.trl([POINT, POINT, POINT], [lost, json.dumps(row()), lost], url=server.url)[::2] == [None, None]
    assert capsys.readouterr().err.count("row lost") == 2
    with pytest.raises(ValueError, match="row as JSON"):
        rewards.easyr1([{"response": "", "ground_truth": "1"}])


def test_errors_name_the_server_and_come_in_time(serving, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(RuntimeError, match=f"{silent} does not answer.*ARGOS_DEADLINE"):
            rewards.verify([item()], silent, .5)
        nobody.listen()  # takes the request and says nothing
        with pytest.raises(RuntimeError, match=f"{silent} does not answer"):
            rewards.verify([item()], silent, .5)
        assert time.monotonic() - start < 3
    for url in ("127.0.0.1:8500", "ftp://x", "http://x:notaport", "http://"):
        with pytest.raises(RuntimeError, match="no address|does not answer"):
            rewards.verify([item()], url, .3)
    monkeypatch.setenv("ARGOS_URL", ",")
    with pytest.raises(ValueError, match="names no server"):
        rewards.verify([item()])


@pytest.mark.parametrize("status, said", [(200, b"<html>"), (200, b"{}"), (200, b"[{}]"), (404, b"{}"), (301, b""),
                                          (200, b'[{"reward": NaN, "not_scored": {}}]'),
                                          (200, b'[{"reward": "1", "not_scored": {}}]'),
                                          (200, b'[{"reward": 1, "outcome": Infinity, "not_scored": {}}]')])
def test_another_service_is_told_at_once(status, said):
    class Other(serve.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *about):
            pass

    with serve.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, args=[.02], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(RuntimeError, match=f"{url} (is another service|refuses: {status})"):
            rewards.verify([item()], url)
        server.shutdown()


def test_what_one_thread_has_learned_no_other_undoes():
    """verl asks from 8 threads. Kills `known = known or ...`, which writes back what it has read before."""
    class Meanwhile(list):
        def __len__(self):
            rewards.scored_before = True  # by another thread, at the worst moment
            return super().__len__()
    rewards.name_wrong_rows(Meanwhile([{"error": "row a"}]))
    assert rewards.scored_before


def test_waiting_for_ever_and_chats_without_a_text(serving):
    url = serving().url
    assert rewards.verify([item()], url, "inf")[0]["outcome"] == 1
    completions = [[{"role": "assistant", "content": None}], [{"role": "assistant", "content": [{"text": POINT}]}]]
    assert rewards.trl(completions, [json.dumps(row())] * 2, url=url) == [0, pytest.approx(.875)]


# ---- 5. The process ---------------------------------------------------------------------------------------------
def run(folder, port, more):
    """The target of a child process."""
    sys.argv = ["serve.py", "--data", str(folder), "--port", str(port), "--judge", "none", *more]
    run_main(serve.main)


@pytest.fixture
def start(folder):
    """start(port, flags) -> a process of serve.py; forked, as this one has imported all that takes long."""
    started = []

    def start(port, *more):
        process = multiprocessing.get_context("fork").Process(target=run, args=(folder, port, more))
        process.start()
        started.append(process)
        wait_until(lambda: answers(port))
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            raw.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return b"200" in raw.recv(50)
    except OSError:
        return False


def wait_until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(.02)


def test_killed_and_started_again_loses_nothing(start):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(port, "--batch", "1", "--wait_ms", "50")
    items = [item(i % 6, TEXTS[k], id=f"{i}") for i in range(12) for k in range(2)]
    with ThreadPoolExecutor(24) as pool:
        answered = [pool.submit(rewards.verify, [one], url, 60) for one in items]
        wait_until(lambda: any(answer.done() for answer in answered))
        process.kill()
        process.join()
        assert not all(answer.done() for answer in answered)
        start(port)
        results = [answer.result()[0] for answer in answered]
    assert [result["reward"] for result in results] == pytest.approx([1, 2 / 3] * 12)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_its_answers_and_a_second_one_at_once(start, number):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(port, "--wait_ms", "500")
    with ThreadPoolExecutor(2) as pool, socket.create_connection(("127.0.0.1", port)):  # who says nothing
        begun = pool.submit(rewards.verify, [item()], url, 30)
        time.sleep(.2)
        os.kill(process.pid, number)
        assert begun.result()[0]["reward"] == 1
        process.join(10)
        assert process.exitcode == 0

        process = start(port, "--wait_ms", "9000")  # the port is free again
        begun = pool.submit(rewards.verify, [item()], url, 1)
        time.sleep(.2)
        os.kill(process.pid, number)
        time.sleep(.1)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGTERM)
        process.join(2)
        assert process.exitcode == -signal.SIGTERM
        with pytest.raises(RuntimeError, match=url):
            begun.result()


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def test_what_cannot_be_served_is_one_line(folder, monkeypatch):
    def check(*typed):
        monkeypatch.setattr(sys, "argv", ["serve.py", *typed])
        with pytest.raises(BadInput) as caught:
            serve.main()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "name another" in check("--data", str(folder), "--port", port)
    assert "name another" in check("--data", str(folder), "--port", "99999")
    assert "name another" in check("--data", str(folder), "--host", "999.0.0.1", "--port", "0")
    assert "--data nowhere" in check("--data", f"{folder},nowhere")
    assert "tau" in check("--data", str(folder), "--tau", "nan")
    assert "--reward" in check("--data", str(folder), "--reward", "all")
    assert "--batch" in check("--data", str(folder), "--batch", "0")
    assert "--weights" in check("--data", str(folder), "--weights", "1")


def test_presets_and_help(capsys):
    arguments = serve.preset_arguments("serve", serve.Config, ["--preset", "7b"])
    cfg = serve.parse_config(serve.Config, serve.__doc__, arguments)
    assert (cfg.batch, cfg.detector, cfg.dtype, cfg.port) == (56, "grounding-dino", "nf4", 8500)
    with pytest.raises(SystemExit):
        serve.parse_config(serve.Config, serve.__doc__, ["--help"])
    assert "--wait_ms" in capsys.readouterr().out
