"""Packages of ``ofa-fairseq``: the folders of this checkout, installed under the one name ``ofa``.

Nothing called ``models`` or ``data`` is ever installed. The scripts of ``run_scripts/`` are data,
the recipes of ``ofa train``. Everything else stands in pyproject.toml.
"""

from setuptools import find_namespace_packages, find_packages, setup

FOLDERS = {
    "ofa": "ofa",
    **{f"ofa.{name}": name for name in ("models", "data", "criterions", "tasks")},
}
RECIPES = "ofa.run_scripts"

setup(
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{part}" for part in find_packages(folder)))
    ]
    + [RECIPES, *(f"{RECIPES}.{part}" for part in find_namespace_packages("run_scripts"))],
    package_dir=FOLDERS | {RECIPES: "run_scripts"},
)
