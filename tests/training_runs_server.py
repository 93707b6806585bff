"""Imported once by the server of ``training_runs``: what every training needs."""

import os

import fairseq_cli.train  # noqa: F401

import ofa

ofa.register_fairseq_plugin()
os.fsync = lambda handle: None  # as in the tests' own process
