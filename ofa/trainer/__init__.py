"""The fairseq side of training: how runs are saved, resumed, checked and logged.

In: fairseq's configuration, trainer and iterators. Out: runs that stop and resume exactly, on one
process or many. Each file has an ``install()`` that ``ofa.fairseq_plugin`` calls; tasks use
``fairseq_distributed``, ``fairseq_nonfinite`` and ``fairseq_tensorboard``. All files here import
fairseq.
"""
