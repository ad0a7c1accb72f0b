"""Swept values compared as values of an axis."""

from typing import Any


def exactly(value: Any) -> tuple[bool, Any]:
    """Return what tells a value from all others: True equals 1, but is another value of an axis."""
    return isinstance(value, bool), value
