"""How captions get better in both stages of the quickstart, with several seeds: other weights and
another order of the rows, the same synthetic shapes.

Prints CIDEr-D while training and of unseen scenes after both stages, mean and standard deviation. A
finished seed is not run again.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from frame import ROOT, Args, program, spread

# captions alone; updates count here, not the machine's speed
SETTINGS = {"QUICKSTART_JOINT": "0", "QUICKSTART_MINUTES": "600", "QUICKSTART_MINUTES2": "600"}


def run(seed: int, folder: Path, flags: list[str]) -> dict:
    """One quickstart. Returns: curves and scores by name."""
    from ofa.report.page import training_curves

    own = {"QUICKSTART_SEED": str(seed), "QUICKSTART_DIR": str(folder)}
    script = ["bash", str(ROOT / "run_scripts" / "quickstart.sh"), *flags]
    subprocess.run(script, env={**os.environ, **SETTINGS, **own}, check=True, stdout=sys.stderr)
    found: dict = {"diverged": False}
    for stage in ("stage1", "stage2"):
        loss, score, *_ = training_curves((folder / stage / "train.log").read_text())
        found[stage] = score.values
        values = [value for _, value in [*loss.values, *score.values]]
        found["diverged"] |= not all(map(math.isfinite, values))
    for name in ("stage1", "test"):
        scores = json.loads((folder / "results" / f"{name}_scores.json").read_text())["scores"]
        found[f"{name}_cider"] = scores["CIDEr"]
    return found


@program(
    seeds="1,2,3",
    folder=ROOT / "runs" / "learning_curves",
    long=(False, "the long quickstart for each seed"),
)
def main(args: Args) -> dict:
    runs = {}
    for seed in map(int, args.seeds.split(",")):
        found = runs[seed] = run(seed, args.folder / f"seed{seed}", ["--long"] * args.long)
        for stage, test in (("stage1", "stage1_cider"), ("stage2", "test_cider")):
            curve = "  ".join(f"{update:g}: {score:.2f}" for update, score in found[stage])
            shown = f"by update {curve}; unseen scenes {found[test]:.4f}"
            print(f"seed {seed}, {stage}: {shown}", flush=True)
    before = [found["stage1_cider"] for found in runs.values()]
    after = [found["test_cider"] for found in runs.values()]
    print(f"stage 1  {spread(before)}")
    print(f"stage 2  {spread(after)}")
    print(f"gain     {spread([b - a for a, b in zip(before, after)])}")
    print(f"diverged {[seed for seed, found in runs.items() if found['diverged']] or 'none'}")
    return runs
