"""A JSON parser whose depth is bounded by memory, for the files that the standard one gives up on."""

import json
import re
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = json.JSONDecoder()


def parse_json(text: str) -> object:
    """Parse one JSON document of any depth.

    Raises:
        ValueError: the text is not JSON (`json.JSONDecodeError`).
    """
    try:
        return json.loads(text)
    except RecursionError:
        return _Parser(text).document()


class _Parser:
    """Reads containers with a stack of its own and leaves strings and numbers to the standard parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.open: list[tuple[Any, str | None]] = []  # containers around the place, each with its pending key

    def document(self) -> object:
        """Return the value of the whole text."""
        value, done = self._value()
        while self.open or not done:
            value, done = self._value() if not done else self._after(value)
        if self._peek():
            raise json.JSONDecodeError("Extra data", self.text, self.at)
        return value

    def _peek(self) -> str:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def _value(self) -> tuple[object, bool]:
        """Read a scalar or an empty container (True: complete), or enter a container (False)."""
        first = self._peek()
        if first not in ("{", "["):
            value, self.at = _SCALAR.raw_decode(self.text, self.at)
            return value, True
        self.at += 1
        container: Any = {} if first == "{" else []
        if self._peek() == ("}" if first == "{" else "]"):
            self.at += 1
            return container, True
        self.open.append((container, self._key() if first == "{" else None))
        return None, False

    def _key(self) -> str:
        if self._peek() != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", self.text, self.at)
        key, self.at = _SCALAR.raw_decode(self.text, self.at)
        if self._peek() != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", self.text, self.at)
        self.at += 1
        return str(key)

    def _after(self, value: object) -> tuple[object, bool]:
        """Put a complete value into its container; then read on in it (False), or close it (True)."""
        container, key = self.open.pop()
        if key is None:
            container.append(value)
        else:
            container[key] = value
        following = self._peek()
        if following == ("]" if key is None else "}"):
            self.at += 1
            return container, True
        if following != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, self.at)
        self.at += 1
        self.open.append((container, None if key is None else self._key()))
        return None, False
