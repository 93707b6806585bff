"""Pages and images that show results: one HTML file with everything in it.

In: predictions, references, curves, images. Out: an HTML page, annotated images. Others use
``write_report`` and its parts (``page``), ``write_page`` (``evaluation_page``) and
``draw_boxes``. Imports ``ofa.inference`` and below.
"""
