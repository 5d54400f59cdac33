"""verify_group on 8 rollouts of one sample against 8 single verdicts, side by side in one run. A script, not a test.

A group shares its picture: the file is read once, each label detected and segmented once, each claim judged once, and the
reasoning of all rollouts scored in one batch on one prefill. Rounds alternate, so that a noisy machine is noisy for both.

Run:   python tests/benchmark_verify.py --samples 20
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from teachers.judges import VLMJudge  # noqa: E402
from teachers.names import load_teachers  # noqa: E402
from verifier.samples import read_samples  # noqa: E402
import argos  # noqa: E402
import policy as P  # noqa: E402
from tiny import world  # noqa: E402
from tiny.pixels import _find  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher", default="tiny/teacher")
    cfg = parser.parse_args()
    teacher = P.load_policy(cfg.teacher)
    detector, segmenter, pointer = load_teachers()
    verifier = argos.Argos(detector, segmenter, pointer, VLMJudge(teacher))
    with tempfile.TemporaryDirectory() as folder:
        world.write_split("val", cfg.samples, folder)
        samples = read_samples(Path(folder, "val.jsonl"))
        media = [verifier.load(s) for s in samples]
        prompts = P.encode_prompts(teacher, [(m, P.prompt("tiny", "reason", question=s.question)) for m, s in zip(media, samples)])
        texts = P.sample(teacher, prompts, cfg.group, max_new_tokens=112).texts
        groups = [texts[i:i + cfg.group] for i in range(0, len(texts), cfg.group)]

        def forget():  # the pixel teachers remember recent pictures; a fair start for both
            _find.cache_clear()

        best = {"group": float("inf"), "single": float("inf")}
        for _ in range(cfg.rounds):
            forget()
            start = time.perf_counter()
            together = [verifier.verify_group(s, g) for s, g in zip(samples, groups)]
            best["group"] = min(best["group"], time.perf_counter() - start)
            forget()
            start = time.perf_counter()
            alone = [[verifier.verify(s, r) for r in g] for s, g in zip(samples, groups)]
            best["single"] = min(best["single"], time.perf_counter() - start)
        gap = max(abs(a.reward - b.reward) for x, y in zip(together, alone) for a, b in zip(x, y))
    print(f"{cfg.samples} groups of {cfg.group}: verify_group {best['group']:.2f} s, single verdicts {best['single']:.2f} s: "
          f"{best['single'] / best['group']:.1f} x; largest difference in reward {gap:.1e}")


if __name__ == "__main__":
    main()
