"""The commands of ``ofa``: functions marked ``@action`` with a dataclass of options, whose
docstring is their help; ``main`` lists them, also those that live in the folder of their tool.

In: the command line. Out: an exit status: 0 done, 2 what the user can correct, 130 interrupted.
Heavy libraries are imported when a command runs, not when its flags are declared. Imported by
nobody.
"""
