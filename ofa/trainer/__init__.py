"""The fairseq side of training: how runs are saved, resumed, checked and logged.

In: fairseq's configuration, task, model and criterion. Out: runs that stop and resume exactly, on
one process or many. ``OFATrainer`` (``fairseq_trainer``) is fairseq's trainer with all that belongs
to an update, ``fairseq_run`` what is around it; ``fairseq_compat`` is the table of what is replaced
in fairseq, which ``ofa.fairseq_plugin`` applies; ``console`` shows a person what matters of a run.
Tasks use ``fairseq_distributed``, ``fairseq_resume``, ``fairseq_tensorboard`` and ``nonfinite``.
"""
