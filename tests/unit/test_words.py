"""One name for one thing: words of an earlier dialect stay out of code, messages and documents."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BANNED = {  # pattern -> the word to use
    r"pictures?": "image",
    r"blanks?": "space",
    r"mend(s|ed|ing)?": "fix, repair",
    r"put(s|ting)? right": "fix, repair",
    r"pass(es|ed|ing)? over(?! (all|the vocabulary))": "skip, ignore",
    r"whole numbers?": "integer",
    r"from 0 on": "non-negative",
    r"is no number": "NaN or inf, not finite",
    r"what was said|repl(y|ies)": "prediction, output",
    r"(model|network)s? (said|says|say)": "predict",
    r"next to": "compared with",
    r"so many": "the count, named",
    r"colour(s|ed)?": "color",
    r"pre-train\w*": "pretraining",
    r"(the|a) released?|(the|an?) official": "upstream",
    r"light (tuning|checkpoints?)|few parameters": "parameter-efficient tuning, delta checkpoint",
    r"best constants?": "constant baseline",
    r"(picture|sign|text)[ -]worlds?": "synthetic shapes, words, sentences",
    r"extra rows": "auxiliary rows",
    r"go(es)? on|going on|hand(s|ed)? over": "continue, resume, pass",
}
ALLOWED = {  # lines that may hold such a word, and why
    r'"(max_)?pictures"|pictures=summary|codes_per_picture': "keys of manifests",
    r'"colour"|"best_constant"|"mended"': "keys of JSON files",
    r"aliases=\[|also=\(|^ALIASES|PICTURES:-": "earlier names, still accepted",
    r"The earlier names still work|calls the rules": "the changelog's lines on them",
    r"--max-pictures|prepare text-world": "tests of these",
    r'Random\(|f"(picture|text|sign)-world ': "seeds and fingerprints decide what files hold",
    r"CUDA's release notes": "their name",
}
TEXT = set(".py .sh .md .html .css .toml .yml .sbatch .cff .ipynb".split())


def text_files() -> list[Path]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("a checkout without git")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [
        path
        for path in paths
        if (path.suffix in TEXT or path.name == "Dockerfile") and path != Path(__file__).resolve()
    ]


def findings(text: str) -> list[str]:
    """Banned words of a text, also across a line break of its prose."""
    kept = "\n".join(line for line in text.splitlines() if not allowed(line))
    prose = re.sub(r"[\"']?\n\s*#?\s*f?[\"']?", " ", kept)
    return [
        f"'{found[0]}': say {better}"
        for pattern, better in BANNED.items()
        for found in re.finditer(rf"(?<![\w-])({pattern})(?![\w-])", prose, re.IGNORECASE)
    ]


def allowed(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in ALLOWED)


def test_words_of_the_dialect_are_not_used():
    found = {
        str(path.relative_to(ROOT)): words
        for path in text_files()
        if (words := findings(path.read_text(encoding="utf-8")))
    }
    assert not found, "\n".join(f"{path}: {'; '.join(words)}" for path, words in found.items())


@pytest.mark.parametrize(
    "text, number",
    [("a picture", 1), ("so\n    many rows", 1), ("an image of go_on", 0), ('{"pictures": 3}', 0)],
)
def test_a_word_is_found_in_prose_and_not_in_a_key(text, number):
    assert len(findings(text)) == number
