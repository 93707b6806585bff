"""What a task is: a row becomes prompt and target, what was generated a prediction.

In: rows of a TSV, options of a task, hypotheses. Out: ``Example``, ``Prediction``, result files
and rows of references. Others use ``TaskSpec`` and its parts (``task_spec``), ``AnswerSet``, the
text rules of ``text`` and ``results``. The declarations themselves are the files of ``tasks/``.
Imports ``ofa.tokens`` and ``ofa.io``.
"""
