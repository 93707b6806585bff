"""Packages of ``ofa-fairseq``: the folders of this checkout, installed under the one name ``ofa``.

Nothing called ``models`` or ``data`` is ever installed. Everything else stands in pyproject.toml.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "ofa": "ofa",
    **{f"ofa.{name}": name for name in ("models", "data", "criterions", "tasks")},
}

setup(
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{part}" for part in find_packages(folder)))
    ],
    package_dir=FOLDERS,
)
