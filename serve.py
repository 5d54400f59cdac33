"""The verifier as a service: for trainers that have outgrown one machine, or that are not ours.

The paper trained in EasyR1 on 16 GPUs. Such an engine samples and updates better than train_grpo.py can; what it
lacks is the verifier. So this process owns one GPU with the teachers, the judge and this project's versions of
all packages, and answers over HTTP. The engine loads rewards.py, which needs nothing but Python:

    python serve.py --preset 7b --judge out/sft/merged --data data/easyr1 --port 8500      # one per verifier GPU
    ARGOS_URL=http://127.0.0.1:8500  ...  worker.reward.reward_function=rewards.py:easyr1

benchmarks/engines.md has the whole recipe. To see it work on the tiny models:

    python serve.py --data tiny &
    curl -H "Content-Type: application/json" http://127.0.0.1:8500/verify -d '[{"row": {"image": "example.png",
        "question": "How many red squares?", "answer": "2", "kind": "count"}, "response": "<answer>2</answer>"}]'

    POST /verify   [{"row": as in rl.jsonl, "response": text}, ...]
                -> [{"reward", "outcome", "grounding", "reasoning": 0..1 or null, "reasons": the verdict in words,
                     "not_scored": {term: why}}, ...], in the same order; {"error": why} in place of a wrong row
    GET /health -> versions, teachers, pixel budget, failures, how many rollouts were verified and wait

Rows that are equal are one group, wherever they stand in a request. Requests that arrive together are one batch:
engines that send one rollout at a time (verl) then get whole groups where these are sampled together. One thread
asks the teachers, so they need not be safe to share.

Who may ask: whoever reaches the port. It is this machine alone unless --host says otherwise; there is no
password, so open it to a network of your own only. A row names a file, and none is read outside --data. Sizes,
counts and waiting times are bounded. Ctrl-C and SIGTERM answer what was begun, then end.

Before: train_grpo.py. Next: rewards.py (the other end), benchmarks/engines.md
"""
import json
import os
import queue
import re
import signal
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from runs.checkpoints import follow_budget
from runs.errors import BadInput, first_line, printable, run_main, warn
from runs.settings import TeacherSettings, flag, parse_config, pixel_budget, preset_arguments, verifier_options
from verifier.claims import parse
from verifier.samples import Sample
from teachers.names import load_judge, load_teachers
from argos import Argos, Verdict
from train_grpo import REWARDS, TINY_TEACHER, read_weights
import rewards


# ---- 1. Configuration --------------------------------------------------------------------------------------
@dataclass
class Config(TeacherSettings):
    judge: str = flag(TINY_TEACHER, "VLM that judges answers, claims and R_rq: folder or hub id; none: do without")
    data: str = flag("out/data", "folders whose files rows may name, separated by commas; relative names are looked "
                                 "up in them")
    reward: str = flag("argos", "argos; outcome: the answer alone; no-vg: without grounding; no-rq: without "
                                "reasoning quality")
    weights: str = flag("0.5,0.25,0.25", "w_o,w_vg,w_rq of eq. 9 (our choice)")
    tau: float = flag(0.5, "the gate's threshold on the outcome (our choice)")
    host: str = flag("127.0.0.1", "address to listen at; 0.0.0.0: also for other machines, without a password")
    port: int = flag(8500, "port to listen at; 0: any that is free")
    batch: int = flag(128, "rollouts that are verified together, in whole groups: their masks must fit into memory")
    wait_ms: float = flag(5., "milliseconds to wait for requests that belong together")
    max_mb: float = flag(64., "a larger request is refused")
    max_rows: int = flag(4096, "rollouts of a request, and rollouts that may wait; more are refused")
    seconds: float = flag(900., "a request that has waited so long is given up, and may be sent again")


# ---- 2. From rows and responses to verdicts ----------------------------------------------------------------
def verify_items(verifier, items, folders, batch):
    """Verify responses that came from elsewhere -> for each a Verdict, or the BadInput of its row, in order.

    items: [{"row": as in rl.jsonl, "response": text}, ...]. Equal rows are one group, wherever they stand.
    folders: where the rows' files lie. batch: rollouts that are verified together, in whole groups.
    """
    found = [None] * len(items)
    places = {}  # a row as JSON -> where the responses to it stand
    for i, item in enumerate(items):
        try:
            row = json.dumps(item["row"], sort_keys=True)
            if not isinstance(item["response"], str):
                raise TypeError
            places.setdefault(row, []).append(i)
        except (TypeError, KeyError, RecursionError):
            found[i] = BadInput('send {"row": {...}, "response": "..."}')

    for rows in batches(places, batch):
        groups = []  # of (sample, its media, its responses), as verify_groups takes them
        asked = []   # where they stand
        for row in rows:
            try:
                sample = read_row(json.loads(row), folders)
                media = verifier.load(sample)
            except BadInput as error:
                verifier.failures["wrong row"] += len(places[row])
                for i in places[row]:
                    found[i] = error
            else:
                groups.append((sample, media, [items[i]["response"] for i in places[row]]))
                asked.append(places[row])
        for where, verdicts in zip(asked, verify_groups(verifier, groups)):
            for i, verdict in zip(where, verdicts):
                found[i] = verdict
    return found


def batches(places, size):
    """Lists of rows that have at most `size` responses together, or are a single row that has more."""
    together, count = [], 0
    for row, where in places.items():
        if together and count + len(where) > size:
            yield together
            together, count = [], 0
        together.append(row)
        count += len(where)
    if together:
        yield together


def read_row(row, folders):
    """A row as in rl.jsonl -> Sample, whose file lies in one of the folders: links are followed, then looked at.

    Raises BadInput, which names the row, for any other file and for what Sample.from_row refuses.
    """
    if not isinstance(row, dict):
        raise BadInput("the row is not a JSON object; send it as rl.jsonl has it")
    where = f"row {str(row.get('id', 'without an id'))[:200]}"
    name = row.get("image") or row.get("video")
    usable = isinstance(name, str) and "\0" not in name  # with a NUL it is no name of a file
    for folder in folders if usable else []:
        path = Path(os.path.realpath(Path(folder, name)))
        if path.is_relative_to(os.path.realpath(folder)) and os.path.isfile(path):
            return Sample.from_row(row, folder, where)
    raise BadInput(f"{where}: {str(name)[:200]!r} is no file in the folders of --data; correct the row, or name the "
                   "folder where it really lies, too")


def verify_groups(verifier, groups):
    """Lists of Verdicts. Where all at once fail, each alone: what one makes the verifier raise spoils no other."""
    samples = [sample for sample, _, _ in groups]
    media = [seen for _, seen, _ in groups]
    responses = [texts for _, _, texts in groups]
    try:
        return verifier.verify_groups(samples, responses, media)
    except Exception as error:  # a full GPU, or a bug
        reason = f"the verifier failed ({type(error).__name__}: {first_line(error)})"
        verifier.failures[f"verifier: {type(error).__name__}"] += 1
        warn(reason)
    if len(groups) > 1:
        return [verify_groups(verifier, [group])[0] for group in groups]
    nothing = Verdict(parse("", "image"), {}, not_scored={"outcome": reason}, arithmetic=reason)
    return [[nothing] * len(texts) for texts in responses]


# ---- 3. Requests: many threads bring them, one asks the teachers --------------------------------------------
class Refused(Exception):
    """A request that gets no results. status: HTTP's number; after 503 a client sends it again."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Service:
    """The verifier behind a queue. cfg: the settings of this script; folders: where the rows' files lie."""

    def __init__(self, verifier, folders, cfg):
        self.verifier = verifier
        self.folders = folders
        self.cfg = cfg
        self.inbox = queue.Queue()    # of (items, Future for their results), and None at the end
        self.lock = threading.Lock()  # of the next three
        self.stopping = False
        self.waiting = 0              # rollouts that were accepted and are not yet answered
        self.verified = 0
        self.worker = threading.Thread(target=self._work)
        self.worker.start()

    def ask(self, items):
        """The results of POST /verify. Every request's own thread waits in here. Raises Refused."""
        answer = Future()
        with self.lock:
            if self.stopping:
                raise Refused(503, "is stopping")
            if self.waiting and self.waiting + len(items) > self.cfg.max_rows:
                raise Refused(503, f"is busy: {self.waiting} rollouts wait")
            self.waiting += len(items)
            self.inbox.put((items, answer))
        try:
            return answer.result(timeout=self.cfg.seconds)
        except TimeoutError:
            answer.cancel()  # where it was not begun
            raise Refused(503, f"is busy: no answer within {self.cfg.seconds:g} seconds") from None
        except Exception as error:
            raise Refused(500, f"failed: {first_line(error)}") from None

    def finish(self):
        """Answer what was accepted, accept no more."""
        with self.lock:
            self.stopping = True
            self.inbox.put(None)
        self.worker.join()

    def health(self):
        names = ("detector", "segmenter", "pointer", "judge", "reward", "weights", "tau", "foils", "extract", "data")
        settings = {name: getattr(self.cfg, name) for name in names}
        versions = {name: version(name) for name in ("torch", "transformers", "pillow")}
        with self.lock:
            counts = {"verified": self.verified, "waiting": self.waiting, "stopping": self.stopping}
        return counts | {"failures": dict(self.verifier.failures), "budget": pixel_budget(self.cfg),
                         "settings": settings, "versions": versions}

    def _work(self):
        """The thread that asks the teachers, and no other does."""
        with tqdm(desc="verified", unit=" rollouts", mininterval=5) as bar:
            while requests := self._together():
                count = sum(len(items) for items, _ in requests)
                self._answer([(items, answer) for items, answer in requests if answer.set_running_or_notify_cancel()])
                with self.lock:
                    self.waiting -= count
                    self.verified += count
                bar.update(count)

    def _together(self):
        """Wait for requests -> those that arrive together, until they make a batch; [] at the end."""
        requests = [self.inbox.get()]
        if requests == [None]:
            return []
        time.sleep(self.cfg.wait_ms / 1000)
        while sum(len(items) for items, _ in requests) < self.cfg.batch:
            try:
                requests.append(self.inbox.get_nowait())
            except queue.Empty:
                break
            if requests[-1] is None:
                self.inbox.put(requests.pop())  # for the next call
                break
        return requests

    def _answer(self, requests):
        items = [item for own, _ in requests for item in own]
        try:
            results = [report(one) for one in verify_items(self.verifier, items, self.folders, self.cfg.batch)]
        except Exception as error:  # a bug: these requests get a 500, and the next ones their answers
            traceback.print_exc()
            for _, answer in requests:
                answer.set_exception(error)
            return
        for own, answer in requests:
            answer.set_result(results[:len(own)])
            results = results[len(own):]


def report(result):
    """A Verdict or BadInput as a client gets it."""
    if isinstance(result, BadInput):
        return {"error": printable(result)}
    scores = {name: getattr(result, name) for name in ("reward", "outcome", "grounding", "reasoning")}
    return scores | {"not_scored": result.not_scored, "reasons": result.explain().split("\n")}


# ---- 4. HTTP -----------------------------------------------------------------------------------------------
class Server(ThreadingHTTPServer):
    daemon_threads = False    # server_close waits for the threads: who was accepted gets the answer
    request_queue_size = 512  # clients that may knock in one moment


class Handler(BaseHTTPRequestHandler):
    """One request. self.server.service: the Service."""
    timeout = 30  # seconds without a byte, then the client is gone

    def do_GET(self):
        if self.path == "/health":
            self._reply(200, self.server.service.health())
        else:
            self._reply(404, {"error": "ask GET /health or POST /verify"})

    def do_POST(self):
        try:
            self._reply(200, self.server.service.ask(self._items()))
        except Refused as refusal:
            self._reply(refusal.status, {"error": str(refusal)})

    def _items(self):
        """What was sent, as far as it keeps to the bounds. Raises Refused."""
        cfg = self.server.service.cfg
        if self.path != "/verify":
            raise Refused(404, "ask GET /health or POST /verify")
        if self.headers.get_content_type() != "application/json":  # a web page cannot send this unasked
            raise Refused(415, "send Content-Type: application/json")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length, re.ASCII):
            raise Refused(411, "send a Content-Length")
        body = self._read(int(length), keep=int(length) <= cfg.max_mb * 1e6)
        if len(body) < int(length):
            raise Refused(413, f"send at most {cfg.max_mb:g} MB, or raise --max_mb")
        try:
            items = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(items, list) or len(items) > cfg.max_rows:
            raise Refused(400, f"send a list of at most {cfg.max_rows} items")
        return items

    def _read(self, length, keep):
        """The body, or b"" if it is not to be kept: who closes on unread bytes is not heard. Raises Refused."""
        parts = []
        end = time.monotonic() + self.timeout  # of all of it: a client may send a byte now and then, forever
        while length > 0:
            part = self.rfile.read1(min(length, 1 << 20))
            if not part or time.monotonic() > end:
                raise Refused(408, "the request was not sent in time")
            length -= len(part)
            if keep:
                parts.append(part)
        return b"".join(parts)

    def _reply(self, status, thing):
        body = json.dumps(thing).encode()
        self.close_connection = True
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            pass

    def log_message(self, *about):
        """Nothing: a line a request would hide what matters."""


# ---- 5. One machine and another trainer: no server ---------------------------------------------------------
def trl_reward(verifier, processor, data=".", batch=128):
    """The reward for TRL where all is in one process: GRPOTrainer(reward_funcs=trl_reward(verifier, processor), ...)

    verifier: an argos.Argos; processor: the trainer's own; data: folder of the rows' pictures. The data set has the
    columns that `python -m benchmarks.engines --engine trl` writes. Raises BadInput where the two would see a picture
    in different sizes: points are pixels of the picture as the policy saw it.
    """
    size = processor.image_processor.size
    seen = (size["shortest_edge"], size["longest_edge"])  # pixels, whatever their names say
    if seen != (verifier.min_pixels, verifier.max_pixels):
        raise BadInput(f"the trainer's processor shows pictures of {seen[0]} to {seen[1]} pixels, the verifier reads "
                       f"points in {verifier.min_pixels} to {verifier.max_pixels}: set processor.image_processor.size, "
                       "or Argos's min_pixels and max_pixels")

    def ask(items):
        return [report(one) for one in verify_items(verifier, items, [data], batch)]

    def argos(completions, row, log_extra=None, log_metric=None, **columns):  # TRL names its metrics after it
        return rewards.trl(completions, row, log_extra, log_metric, ask=ask)
    return argos


# ---- 6. The process ----------------------------------------------------------------------------------------
def build_verifier(cfg):
    judge = None if cfg.judge == "none" else load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    base = getattr(judge, "policy", None)  # --pointer base: the judge points
    teachers = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache, base=base)
    return Argos(*teachers, judge, read_weights(cfg.weights), cfg.tau, REWARDS[cfg.reward], **verifier_options(cfg))


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("serve", Config))
    if cfg.reward not in REWARDS:
        raise BadInput(f"--reward {cfg.reward}: choose {', '.join(REWARDS)}")
    for name in ("batch", "max_rows", "max_mb", "seconds"):
        if not getattr(cfg, name) > 0:
            raise BadInput(f"--{name} {getattr(cfg, name)}: must be above 0")
    folders = [folder for folder in cfg.data.split(",") if folder]
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadInput(f"--data {folder}: is no folder; name the one that holds the rows' pictures and clips")
    follow_budget(cfg, *folders)
    verifier = build_verifier(cfg)
    verifier.self_check()  # refuses to serve where points miss
    with listening(cfg) as server:
        server.service = Service(verifier, folders, cfg)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, partial(end_gently, stop))
        accepting = threading.Thread(target=server.serve_forever)
        accepting.start()
        host, port = server.server_address[:2]
        print(f"verifying at http://{host}:{port} with the files of {printable(cfg.data)}; Ctrl-C ends", flush=True)
        stop.wait()
        server.shutdown()
        server.service.finish()
    print(f"stopped; {server.service.verified} rollouts were verified")  # the last answers were sent


def listening(cfg):
    """A Server on the port that was asked for, not yet at work. Raises BadInput where it cannot be had."""
    try:
        return Server((cfg.host, cfg.port), Handler)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--host {cfg.host} --port {cfg.port}: {first_line(error)}; name another") from None


def end_gently(stop, number, frame):
    """Of a signal: the first ends the service after its last answers, a second one at once."""
    signal.signal(number, signal.SIG_DFL)
    stop.set()


if __name__ == "__main__":
    run_main(main)
