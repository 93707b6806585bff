"""``ofa demo``: a page in the browser on which a model can be tried.

In: a loaded model, uploaded images, texts. Out: the page. ``service`` decides what is answered
and shown, ``app`` is the Gradio page, ``middleware`` what requests are let in. Used by ``ofa.cli``
alone.
"""
