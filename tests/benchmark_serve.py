"""The service under load, beside verify_groups in this process on the same rollouts. A script, not a test.

64 clients at once send groups of 8 to serve.py (tiny pixel teachers; its judge is tiny/teacher). One server is killed
in the middle (SIGKILL) and started again. Is anything lost, or scored twice differently? How fast is it, and which part
of the rollouts comes in whole groups where clients send single ones, as verl does?

Responses are real: sampled once for `--samples` questions, 8 each, then repeated under new ids until there are
`--rollouts`. The pixel teachers remember recent pictures, and repeated pictures are equal: both sides gain by it alike.

Run:   python tests/benchmark_serve.py --rollouts 10000        (about 5 minutes on one core)
"""
import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; here and in the servers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from teachers.judges import VLMJudge  # noqa: E402
from teachers.names import load_teachers  # noqa: E402
from verifier.samples import Sample  # noqa: E402
import argos  # noqa: E402
import policy as P  # noqa: E402
import rewards  # noqa: E402
from tiny import world  # noqa: E402

GROUP = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--servers", type=int, default=1, help="at least as many cores")
    parser.add_argument("--teacher", default="tiny/teacher", help="samples the responses, and judges")
    cfg = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        verifier = argos.Argos(*load_teachers(), VLMJudge(P.load_policy(str(ROOT / cfg.teacher))))
        rows, texts = draw(verifier, cfg.samples, folder)
        items = repeat(rows, texts, cfg.rollouts)
        print(f"{len(items)} rollouts in groups of {GROUP}, {cfg.samples} questions, {cfg.clients} clients, "
              f"{cfg.servers} server(s), {os.cpu_count()} cores")
        expected, in_process = verify_here(verifier, items, folder)
        servers = [Process(folder, cfg.teacher) for _ in range(cfg.servers)]
        try:
            load(servers, items, expected, in_process, cfg.clients)
            torn(servers, items, at_once=True)
            torn(servers, items, at_once=False)
        finally:
            for server in servers:
                server.kill()


# ---- Rollouts ----------------------------------------------------------------------------------------------
def draw(verifier, count, folder):
    """-> the rows, and for each 8 responses of a policy."""
    world.write_split("val", count, folder)
    rows = [json.loads(line) for line in Path(folder, "val.jsonl").read_text().splitlines()]
    samples = [Sample.from_row(row, folder) for row in rows]
    policy = verifier.judge.policy
    asked = [(verifier.load(s), P.prompt("tiny", "reason", question=s.question)) for s in samples]
    texts = P.sample(policy, P.encode_prompts(policy, asked), GROUP, max_new_tokens=112).texts
    return rows, [texts[i:i + GROUP] for i in range(0, len(texts), GROUP)]


def repeat(rows, texts, count):
    """Items in groups that stand together; each repeated group has an id of its own, so it is another group."""
    items = []
    for i in range(-(-count // GROUP)):
        row = dict(rows[i % len(rows)], id=f"group {i}")
        items += [{"row": row, "response": text} for text in texts[i % len(rows)]]
    return items[:count]


def verify_here(verifier, items, folder):
    """-> the rewards by verify_groups in this process, and rollouts per second. Batches are as large as the server's."""
    found = []
    start = time.perf_counter()
    for at in range(0, len(items), 128):
        part = [items[i:i + GROUP] for i in range(at, min(at + 128, len(items)), GROUP)]
        samples = [Sample.from_row(group[0]["row"], folder) for group in part]
        for verdicts in verifier.verify_groups(samples, [[one["response"] for one in group] for group in part]):
            found += [verdict.reward for verdict in verdicts]
    return found, len(items) / (time.perf_counter() - start)


# ---- Servers -----------------------------------------------------------------------------------------------
class Process:
    """serve.py as a process that can be killed and started again on its port."""
    def __init__(self, folder, judge):
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "serve.py", "--data", folder, "--judge", judge, "--port", str(self.port)]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdout.readline()  # it is ready

    def kill(self):
        self.process.kill()
        self.process.wait()


# ---- 1. Load, with a server killed in the middle -------------------------------------------------------------
def load(servers, items, expected, in_process, clients):
    url = ",".join(server.url for server in servers)
    groups = [range(i, min(i + GROUP, len(items))) for i in range(0, len(items), GROUP)]
    again = random.Random(0).sample(groups, len(groups) // 20)  # these are sent twice: are they scored alike?
    order = groups + again
    rewarded = [[] for _ in items]
    seconds = []
    sent_bytes = sum(len(json.dumps(item)) for item in items) / len(items)
    answer_bytes = []

    def send(group):
        begin = time.perf_counter()
        results = rewards.verify([items[i] for i in group], url)
        seconds.append(time.perf_counter() - begin)
        answer_bytes.append(len(json.dumps(results)) / len(results))
        for i, result in zip(group, results):
            rewarded[i].append(result["reward"])

    def kill_in_the_middle():
        while len(seconds) < len(order) / 2:
            time.sleep(.05)
        servers[0].kill()
        begin = time.perf_counter()
        servers[0].start()
        down.append(time.perf_counter() - begin)

    down = []
    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, order))
    wall = time.perf_counter() - start
    killer.join()

    lost = sum(not values or None in values for values in rewarded)
    twice = sum(max(values) - min(values) > 1e-5 for values in rewarded)
    other = sum(abs(values[0] - truth) > 1e-5 for values, truth in zip(rewarded, expected))
    rate = sum(len(group) for group in order) / (wall - down[0])
    print(f"load: {lost} lost, {twice} of those sent twice scored differently, {other} other than in process")
    print(f"      a server was killed after half of it, and back after {down[0]:.1f} s")
    print(f"      {rate:.0f} rollouts/s while it was up, in process {in_process:.0f}: {rate / in_process:.2f} x; "
          f"with the time it was down {sum(map(len, order)) / wall:.0f}")
    print(f"      {sent_bytes:.0f} bytes a rollout to the server, {statistics.mean(answer_bytes):.0f} back")
    print(f"      seconds for a group: median {statistics.median(seconds):.2f}, 95 % under "
          f"{statistics.quantiles(seconds, n=20)[-1]:.2f} ({clients} clients wait for one another)")


# ---- 2. Single rollouts, as verl sends them ----------------------------------------------------------------
def torn(servers, items, at_once, count=40):
    """Which part of the groups is verified whole? Where grounding is not called for, one that points makes all of its
    group be scored on it: so a group of 7 that do not and 1 that does tells whom it was verified with."""
    url = ",".join(server.url for server in servers)
    plain = "<think>I count.</think><answer>1</answer>"
    pointing = '<think>A <point x1="9" y1="9" alt="red square">red square</point>.</think><answer>1</answer>'
    pictures = [item["row"] for item in items if "image" in item["row"]]
    whole = 0
    waits = random.Random(1)
    with ThreadPoolExecutor(GROUP) as pool:
        for k in range(count):
            row = dict(pictures[k % len(pictures)], id=f"torn {at_once} {k}", grounding=False)

            def one(text, pause, row=row):
                time.sleep(pause)
                return rewards.verify([{"row": row, "response": text}], url)[0]
            pauses = [0 if at_once else waits.uniform(0, .3) for _ in range(GROUP)]
            results = list(pool.map(one, [pointing] + [plain] * (GROUP - 1), pauses))
            whole += all(any("can be checked" in line for line in result["reasons"]) for result in results)
    when = "8 threads at once" if at_once else "spread over 0.3 s"
    print(f"singles, {when}: {whole} of {count} groups whole")


if __name__ == "__main__":
    main()
