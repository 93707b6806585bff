"""Using a trained model: one image from Python, a folder, or a file of rows with metrics.

In: a checkpoint and images, questions or rows. Out: ``Answer``, ``Region``, images, result files
and scores. Others use ``OFA`` (``predictor``), ``evaluate`` and ``EvaluationOptions``,
``read_requests``. Imports everything but the tools of the top layer.
"""
