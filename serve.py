"""The verifier as a service: for trainers that have outgrown one machine, or that are not ours.

The paper trained in EasyR1 on 16 GPUs. Such an engine samples and updates better than train_grpo.py can; what
it lacks is the verifier. So this process owns one GPU with the teachers, the judge and this project's
versions of all packages, and answers over HTTP. The engine loads rewards.py, which needs nothing but Python:

    python serve.py --preset 7b --judge out/sft/merged --data data/easyr1 --port 8500     # one per verifier GPU
    ARGOS_URL=http://127.0.0.1:8500  ...  worker.reward.reward_function=rewards.py:easyr1

benchmarks/engines.md has the whole recipe. To see it work on the tiny models:

    python serve.py --data tiny &
    curl -H "Content-Type: application/json" http://127.0.0.1:8500/verify -d '[{"row": {"image": "example.png",
        "question": "How many red squares?", "answer": "2", "kind": "count"}, "response": "<answer>2</answer>"}]'

    POST /verify   [{"row": as in rl.jsonl, "response": text}, ...]
                -> the rewards and their reasons, in the same order (verifier/rollouts.py);
                   or {"error": why}, with status 503 or 500 where asking again may help
    GET /health -> versions, teachers, pixel budget, failures, how many rollouts were verified and wait

Rows that are equal are one group, wherever they stand in a request. Requests that arrive together are one
batch: engines that send one rollout at a time (verl) then get whole groups where these are sampled together.
One thread asks the teachers, so they need not be safe to share.

Who may ask: whoever reaches the port. It is this machine alone unless --host says otherwise; there is no
password, so open it to a network of your own only. A row names a file, and none is read outside --data.
Sizes, counts and waiting times are bounded. Ctrl-C and SIGTERM answer what was begun, then end; a second one
ends at once.

Before: verifier/rollouts.py. Next: rewards.py (the other end), benchmarks/engines.md
"""
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

from tqdm import tqdm

from runs.checkpoints import follow_budget, shown_pixels
from runs.errors import BadInput, first_line, printable, run_main
from runs.settings import TeacherSettings, flag, parse_config, pixel_budget, preset_arguments, verifier_options
from verifier.rollouts import verify_rollouts
from teachers.names import load_judge, load_teachers
from argos import Argos, gate
from train_grpo import REWARDS, TINY_TEACHER, read_weights
import rewards

# All of these are our choice.
MAX_BYTES = 64_000_000  # of a request; 4,096 rollouts of 2,000 tokens are about half of it
MAX_ROLLOUTS = 4096     # of a request, and that may wait together
MAX_HELD = 4 * MAX_BYTES  # of all requests in memory; read as JSON, a hostile one takes 20 times its length
WAIT_SECONDS = 900      # then a request is given up, and may be sent again
READ_SECONDS = 30       # in which a request must have come


# ---- 1. Configuration --------------------------------------------------------------------------------------
@dataclass
class Config(TeacherSettings):
    judge: str = flag(TINY_TEACHER, "VLM that judges answers, claims and R_rq: folder or hub id; none: do "
                                    "without")
    data: str = flag("out/data", "folders whose files rows may name, separated by commas; relative names are "
                                 "looked up in them")
    reward: str = flag("argos", "argos; outcome: the answer alone; no-vg: without grounding; no-rq: without "
                                "reasoning quality")
    weights: str = flag("0.5,0.25,0.25", "w_o,w_vg,w_rq of eq. 9 (our choice)")
    tau: float = flag(0.5, "the gate's threshold on the outcome (our choice)")
    host: str = flag("127.0.0.1", "address to listen at; 0.0.0.0: also for other machines, without a "
                                  "password")
    port: int = flag(8500, "port to listen at; 0: any that is free")
    batch: int = flag(128, "rollouts that are verified together, in whole groups: their masks must fit into "
                           "memory")
    wait_ms: float = flag(5., "milliseconds without a request, after which those that came are verified")


def check(cfg):
    """-> the folders of --data. Raises BadInput for what would fail later, once the models are loaded."""
    if cfg.reward not in REWARDS:
        raise BadInput(f"--reward {cfg.reward}: choose {', '.join(REWARDS)}")
    read_weights(cfg.weights)
    gate(outcome=1, tau=cfg.tau)
    if cfg.batch < 1:
        raise BadInput(f"--batch {cfg.batch}: must be above 0")
    if not 0 <= cfg.wait_ms <= 10_000:
        raise BadInput(f"--wait_ms {cfg.wait_ms}: must be between 0 and 10000")
    folders = [folder for folder in cfg.data.split(",") if folder]
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadInput(f"--data {folder}: is no folder; name the one that holds the rows' pictures")
    follow_budget(cfg, *folders)
    return folders


# ---- 2. Requests: many threads bring them, one asks the teachers -------------------------------------------
class Refused(Exception):
    """A request that gets no results. status: HTTP's number; after 500 and more a client sends it again."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Service:
    """The verifier behind a queue. cfg: the settings of this script; folders: where the rows' files lie."""

    def __init__(self, verifier, folders, cfg):
        self.verifier = verifier
        self.folders = folders
        self.cfg = cfg
        self.lock = threading.Lock()  # of the next two
        self.queue = deque()          # of (rollouts, Future of their results)
        self.stopping = False
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.bar = tqdm(desc="verified", unit=" rollouts", mininterval=5)

    def ask(self, rollouts):
        """The results of POST /verify. Every request's own thread waits in here. Raises Refused."""
        answer = Future()
        with self.lock:
            if self.stopping:
                raise Refused(503, "is stopping")
            if self.queue and self.waiting() + len(rollouts) > MAX_ROLLOUTS:
                raise Refused(503, f"is busy: {self.waiting()} rollouts wait")
            self.queue.append((rollouts, answer))
            self.worker.submit(self._next_batch)
        try:
            return answer.result(timeout=WAIT_SECONDS)
        except TimeoutError:
            answer.cancel()  # where it was not begun
            raise Refused(503, f"is busy: no answer within {WAIT_SECONDS} seconds") from None

    def waiting(self):
        return sum(max(1, len(rollouts)) for rollouts, _ in list(self.queue))

    def finish(self):
        """Answer what was accepted, accept no more."""
        with self.lock:
            self.stopping = True
        self.worker.shutdown()  # waits
        self.bar.close()

    def health(self):
        names = ("detector", "segmenter", "pointer", "judge", "reward", "weights", "tau", "foils", "extract",
                 "data")
        return {"verified": self.bar.n, "waiting": self.waiting(), "stopping": self.stopping,
                "failures": dict(self.verifier.failures), "budget": pixel_budget(self.cfg),
                "settings": {name: getattr(self.cfg, name) for name in names},
                "versions": {name: version(name) for name in ("torch", "transformers", "pillow")}}

    def _await_the_rest(self):
        """Returns once there is a batch, or for wait_ms nothing more has come."""
        before = 0
        while before < self.waiting() < self.cfg.batch:
            before = self.waiting()
            time.sleep(self.cfg.wait_ms / 1000)

    def _next_batch(self):
        """The worker does this once for every request, unless an earlier one was answered along with it."""
        if not self.queue:
            return
        self._await_the_rest()
        requests = []
        count = 0
        with self.lock:
            while self.queue and count < self.cfg.batch:
                own, answer = self.queue.popleft()
                if answer.set_running_or_notify_cancel():  # else nobody waits for it any more
                    requests.append((own, answer))
                    count += len(own)
        rollouts = [rollout for own, _ in requests for rollout in own]
        try:
            results = verify_rollouts(self.verifier, rollouts, self.folders, self.cfg.batch)
        except BaseException as error:  # a bug: these requests get a 500, and the next ones their answers
            for _, answer in requests:
                answer.set_exception(Refused(500, f"failed ({type(error).__name__}: {first_line(error)})"))
            traceback.print_exc()  # last: it fails where the terminal is gone
            return
        for own, answer in requests:
            answer.set_result(results[:len(own)])
            results = results[len(own):]
        self.bar.update(count)


# ---- 3. HTTP -----------------------------------------------------------------------------------------------
class Server(ThreadingHTTPServer):
    request_queue_size = 512  # clients that may knock in one moment

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.service = None  # a Service, once its models are loaded
        self.begun = set()   # Handlers whose request was read and whose answer is not yet sent
        self.lock = threading.Lock()
        self.held = 0        # bytes of the requests that are in memory

    @contextmanager
    def holding(self, length):
        """Inside, a request of so many bytes is in memory. Raises Refused where that is too much."""
        with self.lock:
            if self.held + length > MAX_HELD:
                raise Refused(503, f"is busy: it holds requests of {self.held:,} bytes")
            self.held += length
        try:
            yield
        finally:
            with self.lock:
                self.held -= length

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):  # a client that has gone is not worth a line
            super().handle_error(request, client_address)

    def finish(self):
        """Answer what was begun. Threads that still wait for the rest of a request end with the process."""
        self.shutdown()
        self.service.finish()
        while self.begun:
            time.sleep(.02)


class Handler(BaseHTTPRequestHandler):
    """One request."""
    timeout = 2 * READ_SECONDS  # of what _cut does not end: a client that does not take its answer

    def setup(self):
        super().setup()
        self.impatience = threading.Timer(READ_SECONDS, self._cut)  # a byte now and then could go on forever
        self.impatience.daemon = True
        self.impatience.start()

    def finish(self):
        self.impatience.cancel()
        super().finish()

    def _cut(self):
        with suppress(OSError):  # it has gone meanwhile
            self.connection.shutdown(socket.SHUT_RD)

    def do_GET(self):
        if self.path == "/health":
            self._reply(200, self.server.service.health())
        else:
            self._reply(404, {"error": "ask GET /health or POST /verify"})

    def do_POST(self):
        try:
            length = self._length()
            with self.server.holding(length):
                rollouts = self._rollouts(length)
                self.server.begun.add(self)
                self._reply(200, self.server.service.ask(rollouts))
        except Refused as refusal:
            self._reply(refusal.status, {"error": str(refusal)})
        finally:
            self.server.begun.discard(self)

    def _length(self):
        """Bytes of what is sent. Raises Refused where the head of the request is not what was asked for."""
        if self.path != "/verify":
            raise Refused(404, "ask GET /health or POST /verify")
        if self.headers.get_content_type() != "application/json":  # a web page cannot send this unasked
            raise Refused(415, "send Content-Type: application/json")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,12}", length):
            raise Refused(411, "send a Content-Length")
        length = int(length)
        if length > MAX_BYTES:
            self._skip(length)
            raise Refused(413, f"send at most {MAX_BYTES:,} bytes")
        return length

    def _rollouts(self, length):
        """What was sent, as far as it keeps to the bounds. Raises Refused."""
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refused(408, f"the request was not sent within {READ_SECONDS} seconds")
        self.impatience.cancel()
        try:
            rollouts = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(rollouts, list) or len(rollouts) > MAX_ROLLOUTS:
            raise Refused(400, f"send a list of at most {MAX_ROLLOUTS:,} rollouts")
        return rollouts

    def _skip(self, length):
        """Read and forget: a client that still sends does not hear what it is told."""
        while length > 0:
            part = self.rfile.read(min(length, 1 << 20))
            if not part:
                return
            length -= len(part)

    def _reply(self, status, thing):
        body = json.dumps(thing).encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about):
        """Nothing: a line a request would hide what matters."""


# ---- 4. One machine and another trainer: no server ---------------------------------------------------------
def trl_reward(verifier, processor, data=".", batch=128):
    """TRL's reward where all is in one process: GRPOTrainer(reward_funcs=trl_reward(verifier, processor), ...)

    verifier: an argos.Argos; processor: the trainer's own; data: folder of the rows' pictures. The data set
    has the columns that `python -m benchmarks.engines --engine trl` writes. Raises BadInput where the two
    would see a picture in different sizes: points are pixels of the picture as the policy saw it.
    """
    seen = shown_pixels(processor)
    if seen != (verifier.min_pixels, verifier.max_pixels):
        raise BadInput(f"the trainer's processor shows pictures of {seen[0]} to {seen[1]} pixels, the verifier "
                       f"reads points in {verifier.min_pixels} to {verifier.max_pixels}: set "
                       "processor.image_processor.size, or Argos's min_pixels and max_pixels")

    def ask(rollouts):
        return verify_rollouts(verifier, rollouts, [data], batch)

    def argos(completions, row, log_extra=None, log_metric=None, **columns):  # TRL names its metrics after it
        return rewards.trl(completions, row, log_extra, log_metric, ask=ask)
    return argos


# ---- 5. The process ----------------------------------------------------------------------------------------
def build_verifier(cfg):
    judge = None if cfg.judge == "none" else load_judge(cfg.judge, cfg.preset, dtype=cfg.dtype)
    base = getattr(judge, "policy", None)  # --pointer base: the judge points
    teachers = load_teachers(cfg.detector, cfg.segmenter, cfg.pointer, cache=cfg.teacher_cache, base=base)
    weights = read_weights(cfg.weights)
    return Argos(*teachers, judge, weights, cfg.tau, REWARDS[cfg.reward], **verifier_options(cfg))


def listening(cfg):
    """A Server on the port that was asked for, not yet at work. Raises BadInput where it cannot be had."""
    try:
        return Server((cfg.host, cfg.port), Handler)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--host {cfg.host} --port {cfg.port}: {first_line(error)}; name another") from None


def end_gently(stop, number, frame):
    """Of a signal: the first ends the service after its last answers, a second one at once."""
    for every in (signal.SIGINT, signal.SIGTERM):
        signal.signal(every, signal.SIG_DFL)
    stop.set()


def main():
    cfg = parse_config(Config, __doc__, preset_arguments("serve", Config))
    folders = check(cfg)
    with listening(cfg) as server:  # a port that is taken is told before models are loaded
        verifier = build_verifier(cfg)
        verifier.self_check()  # refuses to serve where points miss
        server.service = Service(verifier, folders, cfg)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, partial(end_gently, stop))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        files = printable(cfg.data)
        print(f"verifying at http://{host}:{port} with the files of {files}; Ctrl-C ends", flush=True)
        stop.wait()
        server.finish()
    print(f"stopped; {server.service.bar.n} rollouts were verified")


if __name__ == "__main__":
    run_main(main)
