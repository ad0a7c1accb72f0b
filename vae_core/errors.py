"""The one exception that a user's mistake raises, and the helper that names the nearest valid words."""

import difflib
from collections.abc import Iterable, Sequence

_LISTABLE = 20  # more names than this are not read in an error message


class UserError(Exception):
    """A mistake of the user's, gathered as one or more complete messages.

    Every message says the rule, the value found, what would be valid and the place (file and dotted path).
    The command line prints the messages without a traceback and exits with code 2.
    """

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages: tuple[str, ...] = (messages,) if isinstance(messages, str) else tuple(messages)
        super().__init__("\n".join(self.messages))


def nearest(word: str, valid: Iterable[str], limit: int = 3) -> list[str]:
    """Return up to `limit` of the `valid` words that look most like `word`, best first."""
    return difflib.get_close_matches(word, list(valid), n=limit, cutoff=0.5)


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest valid words, or all of them where none is near."""
    words = sorted(valid)
    close = nearest(word, words)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    if len(words) > _LISTABLE:
        return "valid names start with " + ", ".join(sorted({name.partition(".")[0] for name in words}))
    return "valid: " + ", ".join(words)
