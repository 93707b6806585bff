"""The one exception that a user's input can cause on purpose."""


class UserError(ValueError):
    """Something a user can mend. The message names place, expectation, finding and remedy.

    The commands print it as one line without a traceback and exit with status 2.
    """
