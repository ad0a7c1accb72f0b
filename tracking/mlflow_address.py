"""Addresses of MLflow stores: which are none, what others may read of them, and when two name one store."""

import hashlib
import re
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from tracking.errors import first_line

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks")
_CREDENTIALS = re.compile(r"\b(?P<scheme>[A-Za-z][\w+.-]*)://(?P<user>[^\s'\"/@:]*)(?P<colon>:?)[^\s'\"]*@")
_SHORTEST_SECRET = 4  # characters; shorter parts of a password would be found in many words


def address_mistake(uri: str) -> str | None:
    """Return what is wrong with a tracking URI, with what is valid; None: it may name a store."""
    valid = "valid: http://HOST:PORT, https://HOST, postgresql://USER@HOST/DATABASE, sqlite:////ABSOLUTE/FILE.db"
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return None if uri == "databricks" else f"is no address of a tracking server; {valid}"
    if not uri.isprintable() or " " in uri:
        return f"holds a character that no address has; {valid}"
    if scheme.partition("+")[0] not in (*_SERVERS, *DATABASES, *_plugins()):
        return f"MLflow knows no tracking server of the kind {scheme!r}; {valid}"
    if scheme.startswith("sqlite"):
        file = rest.removeprefix("/").partition("?")[0]
        return None if file and file != ":memory:" else f"names no file; {valid}"
    try:
        host, port = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError as error:
        return f"cannot be read ({error}); {valid}"
    return f"names no host or no port; {valid}" if port == 0 or (scheme.startswith("http") and not host) else None


def _plugins() -> set[str]:
    return {found.name for found in entry_points(group="mlflow.tracking_store")}


def shown_uri(uri: str) -> str:
    """Return a tracking URI, or a text with one, as others may read it: without passwords and tokens.

    What stands before the last @ of an address is taken for them, so that a password with a slash is hidden as well.
    """
    return _CREDENTIALS.sub(_without_secret, uri)


def _without_secret(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    if scheme.startswith("sqlite"):
        return found[0]  # a path
    if found["colon"]:
        return f"{scheme}://{user}:***@"
    return f"{scheme}://***@" if scheme.startswith("http") else found[0]  # a token in the place of a user


def shown_reason(error: Exception, uri: str) -> str:
    """Return the first line of what was refused, without the secrets of the address that it may repeat."""
    reason = shown_uri(first_line(error))
    address, at, _ = uri.partition("://")[2].rpartition("@")
    secret = address.partition(":")[2] or (address if uri.startswith("http") else "")
    for part in re.split(r"[/@:?#]", secret) if at else ():
        if len(part) >= _SHORTEST_SECRET:
            reason = reason.replace(part, "***")
    return reason


def store_identity(uri: str) -> str:
    """Return a name of the store at a tracking URI that is the same however the address is written, and no secret."""
    scheme, colon, rest = uri.rstrip("/").partition("://")
    place = rest if scheme.startswith("sqlite") else rest.rpartition("@")[2]  # SQLite knows no users
    host, slash, path = place.partition("/")
    host = host.lower().replace("localhost", "127.0.0.1")
    plain = f"{scheme.partition('+')[0].lower()}{colon}{host}{slash}{path}"
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
