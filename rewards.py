"""The verifier's reward inside EasyR1, verl, TRL and ms-swift: the other end of serve.py.

This one file is all that the engine's side needs. It uses Python's standard library alone (3.8 or later), so
it loads by its path, in any environment, beside any version of transformers:

    export ARGOS_URL=http://10.0.0.7:8500,http://10.0.0.7:8501   # where serve.py runs; each has its own rows
    EasyR1     worker.reward.reward_function=/path/to/rewards.py:easyr1
    verl       reward.custom_reward_function.path=/path/to/rewards.py reward.custom_reward_function.name=verl
    TRL        GRPOTrainer(reward_funcs=rewards.trl, ...)
    ms-swift   a plugin of a few lines around rewards.swift: benchmarks/engines.md

Each function also takes url= and deadline=, for engines that hand arguments through but no environment.

Every rollout comes with its row of rl.jsonl as JSON, which `python -m benchmarks.engines` wrote where the
engine hands it to a reward: the picture's name, the question, the truth.

What happens when something fails (never a silent 0):
  a server that does not answer   is asked again until the deadline (ARGOS_DEADLINE, 1800 seconds), then the
                                  error names it. It may be stopped and started meanwhile.
  a teacher that fails            one term: it drops out of the reward (serve.py), counted as not_scored.
                                  The outcome: there is no reward. TRL gets None, which it leaves out. EasyR1
                                  and verl take numbers only: all of the group get 0, so nobody gains or loses
                                  by it. Where not one rollout of a call has a reward, these two ask again
                                  until the deadline, then that is an error. ms-swift as verl: each rollout
                                  has to get one.
  a wrong row                     no reward, as above, and one line on stderr says what is wrong with it.
                                  Where nothing was ever scored, that is an error: most likely --data names
                                  another folder.

Before: serve.py. Next: benchmarks/engines.md
"""
import hashlib
import http.client
import json
import math
import os
import socket
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

REWARD_NAME, REWARD_TYPE = "argos", "batch"  # read by EasyR1

TERMS = ("outcome", "grounding", "reasoning")
ITEMS = 256  # rollouts of a request, in whole groups; serve.py bounds them


# ---- 1. What the engines call ------------------------------------------------------------------------------
def easyr1(reward_inputs, url=None, deadline=None):
    """EasyR1's batch reward. reward_inputs: [{"response": text, "ground_truth": row as JSON, ...}, ...].

    -> [{"overall": the reward, "outcome": .., "grounding": .., "reasoning": .., "not_scored": 0 or 1}, ...].
    A term that did not count for a rollout is left out, so that EasyR1 logs the mean over the others.
    """
    items = [make_item(one["ground_truth"], one["response"]) for one in reward_inputs]
    scores = []
    for result in verify(items, url, deadline, insist="some"):
        terms = {term: float(result[term]) for term in TERMS if result.get(term) is not None}
        scores.append({"overall": as_number(result), **terms, "not_scored": float(lacks(result))})
    return scores


def verl(data_source, solution_str, ground_truth, extra_info=None, url=None, deadline=None, **others):
    """verl's reward of one rollout. ground_truth: its row as JSON. -> {"score": reward, term: .., "not_scored"}

    verl sends rollouts one by one, as they end, so a group may come in parts. What a rollout is scored on
    must then not depend on the rest of its group: see `alone`. (A grounding or reasoning that a failing teacher
    leaves out drops out for this rollout alone: not_scored is 1.) And where the outcome was not scored, 0 for a
    part of the group would be a punishment: the server is asked again until the deadline, then that is an
    error.
    """
    item = make_item(alone(ground_truth), solution_str)
    result = verify([item], url, deadline, insist="all", patience=8)[0]  # the first picture may be damaged
    terms = {term: float(result.get(term) or 0.0) for term in TERMS}  # verl needs the same keys for all
    return {"score": as_number(result), **terms, "not_scored": float(lacks(result))}


def trl(completions, row, log_extra=None, log_metric=None, url=None, deadline=None, ask=None, **columns):
    """TRL's reward. completions: texts, or chats; row: the data set's column of rows as JSON.

    -> a number each, or None where nothing was scored, which TRL leaves out. The terms appear in TRL's table
    of completions, their means among its metrics. Several processes may share a group, so see `alone`, too.
    ask: who scores the items, in place of the servers (serve.trl_reward: a verifier in this process).
    """
    items = [make_item(alone(one), text_of(completion)) for one, completion in zip(row, completions)]
    if any("video" in item["row"] for item in items):
        raise ValueError("argos: TRL shows the model no clip, so it trains blind; use rows with pictures")
    results = name_wrong_rows(ask(items)) if ask else verify(items, url, deadline)
    for term in TERMS:
        values = [result.get(term) for result in results]
        known = [value for value in values if value is not None]
        if log_extra:
            log_extra(term, values)
        if log_metric and known:
            log_metric("argos/" + term, sum(known) / len(known))
    return [result.get("reward") for result in results]


trl.__name__ = "argos"  # TRL's metrics bear the name of the function


def swift(completions, row, url=None, deadline=None, **columns):
    """ms-swift's reward: TRL's, in numbers, as ms-swift makes 0 of None. A group may be split over processes, so
    0 for a part of it would be a punishment: where a teacher that fails has left any rollout without a reward,
    the server is asked again until the deadline, then that is an error.
    """
    items = [make_item(alone(one), text_of(completion)) for one, completion in zip(row, completions)]
    return [as_number(result) for result in verify(items, url, deadline, insist="all")]


# ---- 2. Rows and results -----------------------------------------------------------------------------------
def make_item(row, response):
    if not isinstance(row, dict):
        try:
            row = json.loads(row)
        except (TypeError, ValueError):
            row = None
    if not isinstance(row, dict):
        raise ValueError("argos: a rollout came without its row as JSON; python -m benchmarks.engines writes it")
    return {"row": row, "response": response}


def alone(row):
    """The row, so that the score does not depend on who else is in the group.

    Where a question does not call for points, a whole group is scored on them as soon as one of it points.
    Here nobody knows the others, so all are scored on it. Within a group that orders rollouts as before.
    """
    row = make_item(row, "")["row"]
    return dict(row, grounding=True)


def text_of(completion):
    """A completion is a text, or a chat whose last message has a text or parts of one."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or [])


def as_number(result):
    """The reward for engines that take no None: 0, which all of its group then get."""
    reward = result.get("reward")
    return 0.0 if reward is None else float(reward)


def lacks(result):
    """Whether some term of the reward, or all of it, was not scored."""
    return result.get("reward") is None or bool(result["not_scored"])


# ---- 3. Asking the servers ---------------------------------------------------------------------------------
class Refused(Exception):
    """What asking again will not change."""


def verify(items, url=None, deadline=None, insist="", patience=1):
    """Ask the servers -> one result an item, in order: {"reward", "outcome", ..., "not_scored"}, as serve.py says.

    items: [{"row": dict, "response": text}, ...]. url: servers, separated by commas. deadline: seconds.
    insist: ask again while failing teachers leave rows that are right without a reward: "some" stops once one item
    has one, "all" once each has. patience: see name_wrong_rows. Raises RuntimeError, which names the server.
    """
    url = url or os.environ.get("ARGOS_URL") or "http://127.0.0.1:8500"
    servers = [one.strip().rstrip("/") for one in url.split(",") if one.strip()]
    if not servers:
        raise ValueError(f"argos: ARGOS_URL={url!r} names no server; write http://HOST:PORT")
    if deadline is None:
        deadline = os.environ.get("ARGOS_DEADLINE") or 1800
    end = time.monotonic() + float(deadline)

    for _ in tries(end):
        results, asked = ask_all(servers, items, end)
        lacking = [result for result in results if result.get("reward") is None]
        unscored = [result["not_scored"] for result in lacking if "error" not in result]
        some = len(lacking) < len(results)
        if not (unscored and insist) or (insist == "some" and some):
            return name_wrong_rows(results, patience)
    raise RuntimeError(f"argos: {', '.join(asked)} gives no reward: {unscored[0]}")


def tries(end):
    """At once, then after pauses that grow, until time.monotonic() would be past `end`."""
    pause = 0.2  # seconds
    yield
    while time.monotonic() + pause < end:
        time.sleep(pause)
        yield
        pause = min(2 * pause, 10.0)


def ask_all(servers, items, end):
    """-> (the results of all items, which servers gave them). Requests go out side by side."""
    results = [None] * len(items)
    requests = make_requests(items, servers)
    with ThreadPoolExecutor(max_workers=min(32, len(requests) or 1)) as pool:
        answers = []
        for server, places in requests:
            answers.append(pool.submit(ask, server, [items[i] for i in places], end))
        for (_, places), answer in zip(requests, answers):
            for i, result in zip(places, answer.result()):
                results[i] = result
    return results, sorted({server for server, _ in requests})


def make_requests(items, servers):
    """-> [(server, which items), ...]: equal rows in one request, a row always to the same server."""
    groups = {}  # a row as JSON -> its items
    for i, item in enumerate(items):
        groups.setdefault(json.dumps(item["row"], sort_keys=True), []).append(i)
    requests = []
    filling = {}  # server -> the request that still has room
    for row, places in groups.items():
        digest = hashlib.sha256(row.encode()).digest()
        server = servers[int.from_bytes(digest[:8], "big") % len(servers)]
        if server not in filling or len(filling[server]) + len(places) > ITEMS:
            filling[server] = []
            requests.append((server, filling[server]))
        filling[server] += places
    return requests


def ask(server, items, end):
    """One request's results. Asks until it is answered, or time.monotonic() is past `end`."""
    for _ in tries(end):
        try:
            return ask_once(server, items, end)
        except Refused as refusal:
            raise RuntimeError(f"argos: {server} {refusal}") from None
        except (OSError, http.client.HTTPException) as error:  # nobody is there, or it went away
            problem = f"{type(error).__name__}: {error}"
    raise RuntimeError(f"argos: {server} does not answer ({problem}); is serve.py running there? "
                       "ARGOS_URL names the servers, ARGOS_DEADLINE the seconds to wait")


def ask_once(server, items, end):
    """Raises Refused; OSError or HTTPException where it may be answered another time."""
    address = urllib.parse.urlsplit(server)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        connection = kinds[address.scheme](address.hostname, address.port, timeout=min(10.0, left(end)))
    except (KeyError, AttributeError, ValueError, http.client.InvalidURL):
        raise Refused("is no address of a server; write http://HOST:PORT") from None
    try:
        connection.connect()
        connection.sock.settimeout(left(end))  # verifying takes as long as it takes
        keep_alive(connection.sock)
        body = json.dumps(items).encode()
        connection.request("POST", address.path + "/verify", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    said = f"{response.status} {text[:300].decode('utf-8', 'replace')}"
    if response.status == 408 or response.status >= 500:
        raise http.client.HTTPException(said)
    if response.status != 200:
        raise Refused(f"refuses: {said}")
    try:
        results = json.loads(text)
    except ValueError:
        results = None
    if not isinstance(results, list) or len(results) != len(items) or not all(map(is_result, results)):
        raise Refused("is another service: it does not answer as serve.py does")
    return results


def left(end):
    """Seconds until then; a little where it is past, as 0 would mean never to wait; a day where it is for ever."""
    return min(max(0.1, end - time.monotonic()), 86_400.0)


def keep_alive(connection):
    """Notice within two minutes that a machine has lost power: it says no goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_result(thing):
    """Whether it is what serve.py says of a rollout. No reward is None; NaN would spoil a whole step."""
    if not isinstance(thing, dict):
        return False
    scores = [thing.get(name) for name in ("reward",) + TERMS]
    numbers = all(score is None or is_number(score) for score in scores)
    return "error" in thing or (numbers and {"reward", "not_scored"} <= set(thing))


def is_number(score):
    return isinstance(score, (int, float)) and math.isfinite(score)


# ---- 4. Wrong rows -----------------------------------------------------------------------------------------
told = set()           # wrong rows that were named
scored_before = False  # whether this process ever had a reward


def name_wrong_rows(results, patience=1):
    """-> the results; a wrong row looks like one that was not scored, after a line on stderr for each.

    Raises RuntimeError where this process has seen nothing but wrong rows, `patience` different ones.
    """
    global scored_before
    errors = [result["error"] for result in results if "error" in result]
    if len(errors) < len(results):  # by itself: what another thread has learned meanwhile must not be undone
        scored_before = True
    for error in errors:
        if error not in told and len(told) < 1000:
            told.add(error)
            print(f"argos: not scored: {error}", file=sys.stderr)
    if errors and not scored_before and len(told) >= patience:
        raise RuntimeError(f"argos: no rollout could be scored. {errors[0]}")
    named = []
    for result in results:
        if "error" in result:
            result = {"reward": None, "not_scored": {"row": result["error"]}}
        named.append(result)
    return named
