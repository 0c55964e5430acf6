"""The one exception for what a user can write wrong."""


class UserError(ValueError):
    """A request that cannot be met; the text names the knobs, the numbers and a way out.

    Entry points print the text alone (no traceback) and exit with code 2.
    """
