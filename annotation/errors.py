"""The ways in which this app says no."""


class Refused(Exception):
    """What was asked cannot be done; the message says why and what to do, and nothing was changed.

    `code` tells the caller which kind it is: `invalid` (correct the answers), `stale` (the turn is
    over: take the next one), `foreign` (it is somebody else's), `closed` (the campaign does not
    take judgments now).
    """

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class DatasetError(Exception):
    """One readable sentence: what is wrong with a dataset's directory, and the remedy."""
