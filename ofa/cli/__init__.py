"""The commands of ``ofa``: one file each, with the dataclass of its options, ``set_up`` and a
function that runs it; ``main`` lists them.

In: the command line. Out: an exit status: 0 done, 2 what the user can correct, 130 interrupted.
Heavy libraries are imported when a command runs, not when its flags are declared. ``torchrun``,
``devices`` and ``with_folder_lock`` are run by the scripts as ``python -m ofa.cli.NAME``.
Imported by nobody.
"""
