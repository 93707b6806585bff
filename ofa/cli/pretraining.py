"""``ofa pretraining score``: how good a pretrained model is at each of its tasks, on files in the columns of pretraining."""

import argparse
import json
from pathlib import Path

EXTRAS = {"text_data": "text_infilling", "image_data": "image_infilling", "detection_data": "detection"}
LENGTHS = {"caption": 30, "qa": 10, "visual_grounding": 4, "grounded_captioning": 30, "image_text_matching": 4, "detection": 80,
           "text_infilling": 100}  # tokens of an answer; image infilling has as many as there are codes
SHOWN = 12  # rows of each task on the page


def add_parser(subparsers) -> None:
    """Add ``pretraining`` to the commands of ``ofa``."""
    parser = subparsers.add_parser("pretraining", help="score a pretrained model at each of the eight tasks")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    score = actions.add_parser(
        "score", help="each task's figure beside that of the best constant answer",
        description="Asks a checkpoint of unify_task about rows that it was not trained on. Tasks without a file are left out. "
                    "Constant answers are taken from training rows.",
        epilog="example: ofa pretraining score runs/pretrain/checkpoint_last.pt --data vision_language_test.tsv --out scores.json")  # fmt: skip
    score.add_argument("checkpoint", help="checkpoint of --task unify_task")
    score.add_argument("--data", required=True, metavar="TSV", help="pictures and texts: captions, questions, boxes")
    for flag, task in EXTRAS.items():
        score.add_argument(f"--{flag.replace('_', '-')}", metavar="TSV", help=f"rows of {task.replace('_', ' ')}")
    score.add_argument("--neg-sample-dir", metavar="DIR", help="what does not fit, for matching (the training's)")
    score.add_argument("--out", required=True, metavar="FILE.json", help="figures to write")
    score.add_argument("--report", metavar="FILE.html", help="page with the figures and examples")
    score.add_argument("--report-title", default="Eight tasks", metavar="TEXT", help="(%(default)s)")
    score.add_argument("--training-log", metavar="FILE", help="train.log of the run, for curves on the page")
    score.add_argument("--rows", type=int, default=300, metavar="N", help="rows of each task, at most (%(default)s)")
    score.add_argument("--beam", type=int, default=3, metavar="N", help="(%(default)s)")
    score.add_argument("--batch-size", type=int, default=50, metavar="N", help="(%(default)s)")
    score.add_argument("--bpe-dir", metavar="DIR", help="vocabulary folder, if it has moved since training")
    score.add_argument("--cpu", action="store_true", help="do not use a GPU")
    score.set_defaults(run=run_score)


def run_score(args: argparse.Namespace) -> int:
    import torch

    from ofa import OFA
    from ofa.atomic import replacing
    from ofa.pretraining import TASKS
    from ofa.pretraining_scores import score

    model = OFA.load(args.checkpoint, args.bpe_dir, device="cpu" if args.cpu else None)
    given = {name: getattr(args, name) for name in ("data", *EXTRAS)}
    test = Rows(model, given, args)
    trained = test.training_rows()
    found, replies = {}, {}
    for task in TASKS:
        samples = test.samples[task]
        if samples:
            with torch.inference_mode():
                replies[task] = test.ask(task, samples)
            found[task] = score(task, replies[task], trained[task])
            print(f"{task:22} {found[task].measure:14} {found[task].model:.4f}   best constant {found[task].constant:.4f}   "
                  f"({found[task].rows} rows)", flush=True)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as file:
        json.dump({task: vars(entry) for task, entry in found.items()}, file, indent=1)
        file.write("\n")
    if args.report:
        write_page(args, found, replies)
    return 0


class Rows:
    """Rows of files of pretraining as a model is asked about them.

    Attributes: samples: task -> (sample, its row by column name) of the first rows.
    """

    def __init__(self, model, files: dict, args: argparse.Namespace):
        from ofa.pretraining import TASKS
        from ofa.tasks.unify_task import MATCHING

        stored = model.checkpoint.trained.get("unify_task", {})
        negatives = args.neg_sample_dir or stored.get("neg_sample_dir")
        weights = {task: 1.0 for task in TASKS} | ({} if negatives else {MATCHING: 0.0})
        options = {name: path and f"{path},{path}" for name, path in files.items()}  # of two files the last is for evaluation
        self.model, self.stored, self.args = model, stored, args
        self.task = model.checkpoint.set_up("unify_task", **options, neg_sample_dir=negatives, task_weights=json.dumps(weights),
                                            skip_bad_rows=0, disable_validation=False)  # fmt: skip
        self.task.load_dataset("test")
        self.dataset = self.task.datasets["test"]
        self.samples = {task: [] for task in TASKS}
        self.collect()

    def collect(self) -> None:
        """The first rows of each task, as many as were asked for."""
        from ofa.data.pretraining import TASK
        from ofa.pretraining import PAIR_TASKS

        start = 0
        for file, end in zip(self.dataset.files, self.dataset.ends):
            tasks = PAIR_TASKS if file is self.dataset.pairs else [name for name, rows in self.dataset.extras.items() if rows is file]
            for index in range(start, int(end)):
                if all(len(self.samples[task]) >= self.args.rows for task in tasks if task in self.samples):
                    break
                for sample in (one for part in self.dataset[index] for one in part):
                    kept = self.samples[sample[TASK]]
                    if len(kept) < self.args.rows:
                        kept.append((sample, file[index - start]))
            start = int(end)

    def training_rows(self) -> dict[str, list[str]]:
        """Targets of training rows, of each task."""
        first = {name: (self.stored.get(name) or "").split(",")[0] for name in ("data", *EXTRAS)}
        files = {name: path if path and getattr(self.args, name) else None for name, path in first.items()}
        more = argparse.Namespace(**{**vars(self.args), "rows": 2000, **files})
        rows = Rows(self.model, files, more)
        return {task: [self.text(task, sample["target"]) for sample, _ in samples] for task, samples in rows.samples.items()}

    def text(self, task: str, tokens) -> str:
        """Text of token ids; of text infilling the tokens as they are, of which a mask is one."""
        vocabulary = self.task.vocabulary
        ids = [int(token) for token in tokens if int(token) not in (vocabulary.bos, vocabulary.eos, vocabulary.pad)]
        pieces = vocabulary.pieces(ids, drop=())
        return pieces if task == "text_infilling" else self.task.bpe.decode(pieces).strip()

    def ask(self, task: str, samples: list) -> list:
        """What the model says to each row."""
        from ofa.data.collate import collate
        from ofa.evaluation import to_device
        from ofa.image_codes import CODE_SIDE
        from ofa.progress import counted
        from ofa.spec import Decoding

        codes = self.task.vocabulary.codes
        count = (self.task.cfg.code_image_size // CODE_SIDE) ** 2
        options = {"beam": self.args.beam, "max_len_a": 0, "max_len_b": LENGTHS.get(task, count)}
        if task == "image_infilling":
            options |= {"beam": 1, "gen_code": True, "min_len": count, "constraint_range": (codes.start, codes.stop)}
        network = self.model.network
        generator = self.task.generator_for([network], argparse.Namespace(**options), Decoding(bins_only=task == "visual_grounding"))
        said = []
        starts = range(0, len(samples), self.args.batch_size)
        for start in counted(starts, len(starts), task, "batch"):
            batch = self.dataset.batch([sample for sample, _ in samples[start:start + self.args.batch_size]])
            batch = to_device(batch, self.model.device, self.model.dtype)
            said += [self.text(task, best[0]["tokens"].tolist()) for best in generator.generate([network], batch)]
        return self.replies(task, samples, said)

    def replies(self, task: str, samples: list, said: list[str]) -> list:
        """With the captions of other rows of the same picture as references."""
        from ofa.pretraining_scores import Reply
        from ofa.tasks.unify_task import TEXT_INFILLING

        texts: dict[str, list[str]] = {}
        targets = [self.text(task, sample["target"]) for sample, _ in samples]
        for target, (_, row) in zip(targets, samples):
            texts.setdefault(row.get("image", "") if task == "caption" else row["id"], []).append(target)
        found, seen = [], set()
        for target, answer, (sample, row) in zip(targets, said, samples):
            key = row.get("image", "") if task == "caption" else row["id"]
            if task == "caption" and key in seen:  # a picture is captioned once
                continue
            seen.add(key)
            source = self.text(task, sample["source"])
            if task == "text_infilling":
                before, behind = map(self.task.bpe.encode, TEXT_INFILLING)
                source = source.removeprefix(before).removesuffix(behind).strip()
            found.append(Reply(source, target, answer, tuple(dict.fromkeys(texts[key])), row.get("image", "")))
        return found


def write_page(args: argparse.Namespace, found: dict, replies: dict) -> None:
    """The table, the curves of the training, and some rows of every task."""
    from ofa.report import Item, Report, Table, training_curves, write_report

    rows = [(task.replace("_", " "), entry.measure, f"{entry.model:.4f}", f"{entry.constant:.4f}", entry.answer[:60]) for task, entry in found.items()]
    table = Table("each task on rows that were not trained on", ("task", "measure", "model", "best constant", "which is"), rows)
    items = []
    for task, answers in replies.items():
        for number, reply in enumerate(answers[:SHOWN]):
            items.append(Item(number, task.replace("_", " "), reply.image, reply.said, reply.references[:3] or (reply.target,),
                              question=reply.source))  # fmt: skip
    curves = training_curves(Path(args.training_log).read_text(encoding="utf-8")) if args.training_log else []
    write_report(args.report, Report(args.report_title, f"{sum(map(len, replies.values()))} rows", curves=curves, tables=[table], items=items,
                                     grading=None))  # fmt: skip
