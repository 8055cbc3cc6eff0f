"""The one exception that means "your input, not our fault"."""


class InputError(ValueError):
    """Report something the user can put right: a bad file, name, number or a full disk.

    The message says what was expected, what came and what to do. The command line prints it
    without a traceback and exits with status 2; every other exception is a defect of physai.
    """
