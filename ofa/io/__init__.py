"""Files and outside data: what every folder needs to read input safely and to write output whole.

In: paths and bytes that come from a user or from a file. Out: names below a folder, parsed plain
data, complete files. Used by all folders; imports nothing of the project but ``ofa.errors``.
"""
