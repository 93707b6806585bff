"""How captions get better in both stages: the quickstart's training with several seeds, on scenes
it never saw.

    python benchmarks/learning_curves.py [--seeds 1,2,3] [--folder runs/learning_curves] [--long]

Every seed gives other weights and another order of the training rows; synthetic shapes and its
test scenes stay the same. A finished seed is not run again. Prints, for each seed, CIDEr-D while
training (stage 1, then CIDEr optimization) and of the unseen test scenes after both stages; then
means and standard deviations. A run whose loss or score stops being a number counts as diverged.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

# updates count here, not the machine's speed
UNLIMITED = {"QUICKSTART_MINUTES": "600", "QUICKSTART_MINUTES2": "600"}
CAPTIONS_ALONE = {"QUICKSTART_ACTS": "2"}


def run(seed: int, folder: Path, flags: list[str]) -> dict:
    """One quickstart. Returns: curves and scores by name."""
    from ofa.report.training_log import training_curves

    environment = {
        **os.environ,
        **UNLIMITED,
        **CAPTIONS_ALONE,
        "QUICKSTART_SEED": str(seed),
        "QUICKSTART_DIR": str(folder),
    }
    subprocess.run(
        ["bash", str(ROOT / "run_scripts" / "quickstart.sh"), *flags],
        env=environment,
        check=True,
        stdout=sys.stderr,
    )
    found: dict = {}
    for stage in ("stage1", "stage2"):
        loss, score, *_ = training_curves((folder / stage / "train.log").read_text())
        found[stage] = score.values
        found["diverged"] = found.get("diverged", False) or not all(
            math.isfinite(value) for _, value in [*loss.values, *score.values]
        )
    for name in ("stage1", "test"):
        found[name + "_cider"] = json.loads(
            (folder / "results" / f"{name}_scores.json").read_text()
        )["scores"]["CIDEr"]
    return found


def curve(values: list[tuple[float, float]]) -> str:
    return "  ".join(f"{update:g}: {score:.2f}" for update, score in values)


def spread(values: list[float]) -> str:
    return (
        f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"
        if len(values) > 1
        else f"{values[0]:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "learning_curves")
    parser.add_argument("--long", action="store_true", help="the long quickstart for each seed")
    args = parser.parse_args()
    runs = []
    for seed in map(int, args.seeds.split(",")):
        found = run(seed, args.folder / f"seed{seed}", ["--long"] if args.long else [])
        runs.append(found)
        print(
            f"seed {seed}: validation CIDEr-D by update: stage 1  {curve(found['stage1'])}   stage"
            f" 2  {curve(found['stage2'])}"
        )
        print(
            f"        unseen scenes: stage 1 {found['stage1_cider']:.4f}, stage 2"
            f" {found['test_cider']:.4f}{', DIVERGED' if found['diverged'] else ''}",
            flush=True,
        )
    print(f"stage 1  {spread([found['stage1_cider'] for found in runs])}")
    print(f"stage 2  {spread([found['test_cider'] for found in runs])}")
    print(f"gain     {spread([found['test_cider'] - found['stage1_cider'] for found in runs])}")
    print(f"diverged {sum(found['diverged'] for found in runs)} of {len(runs)}")


if __name__ == "__main__":
    main()
