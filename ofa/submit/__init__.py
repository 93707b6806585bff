"""Result files -> the files that leaderboards take.

In: ``*_predict.json`` of the whole split. Out: a zip or JSON with exactly the expected ids, or an
error that names the missing ones. Used by ``ofa.cli`` alone.
"""
