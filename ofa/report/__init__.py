"""Pages and images that show results: one HTML file with everything in it.

In: predictions, references, curves, images. Out: an HTML page and the same as JSON, annotated
images. Others use ``write_report`` and its parts (``page``), ``evaluation_report``
(``evaluation_page``) and ``draw_boxes`` (``annotate``). Imports ``ofa.inference`` and below.
"""
