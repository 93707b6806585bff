"""Files and outside data: what every folder needs to read input safely and to write output whole.

In: paths and bytes that come from a user or from a file. Out: names below a folder, parsed plain
data, complete files. Used by all folders: ``UserError`` readers such as ``load_json``,
``load_checkpoint``, ``open_image``, and ``replacing``. Imports nothing of the project but the
files of ``ofa/`` itself.
"""
