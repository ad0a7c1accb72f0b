"""Where the web pages listen, and under which names browsers may ask for them."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from vae_core.errors import UserError

LOOPBACK = "127.0.0.1"
_LOCAL_NAMES = ("localhost", LOOPBACK, "[::1]")
_ELSEWHERE = ("192.0.2.1", 9)  # a documentation address: nothing is sent to it, but the kernel picks a way


@dataclass(frozen=True)
class Place:
    """An address to listen on.

    Attributes:
        host: as given, a name or an address.
        family: AF_INET or AF_INET6.
        address: what the host resolves to.
        names: what browsers may call this machine; anything else is refused (DNS rebinding).
    """

    host: str
    family: socket.AddressFamily
    address: str
    names: tuple[str, ...]

    @property
    def is_loopback(self) -> bool:
        """Return whether no other machine can get there."""
        return ipaddress.ip_address(self.address).is_loopback

    def url(self, port: int) -> str:
        """Return the address that people are told."""
        return f"http://{self.names[0]}:{port}"

    def own_url(self, port: int) -> str:
        """Return an address by which this machine itself reaches the page."""
        everywhere = ipaddress.ip_address(self.address).is_unspecified
        local = LOOPBACK if self.family == socket.AF_INET else "[::1]"
        return f"http://{local}:{port}" if everywhere else self.url(port)


def place(host: str, extra_names: Sequence[str] = ()) -> Place:
    """Return where to listen for `host`; `extra_names`: others that browsers may use, such as a proxy's.

    Raises:
        UserError: the host does not resolve, or is no address of this machine.
    """
    try:
        family, _, _, _, found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind((found[0], 0))
    except OSError as error:
        raise UserError(
            f"--host {host}: cannot be listened on ({error.strerror}); give an address or a name of this machine, "
            f"{LOOPBACK} for this machine alone, or 0.0.0.0 for all its addresses"
        ) from error
    address = str(found[0])
    own = [f"[{host}]" if ":" in host else host]
    if ipaddress.ip_address(address).is_unspecified:
        own = [*_own_names(), *_LOCAL_NAMES]
    elif ipaddress.ip_address(address).is_loopback:
        own += _LOCAL_NAMES
    return Place(host, family, address, tuple(dict.fromkeys([*own, *extra_names])))


def _own_names() -> list[str]:
    """Return what other machines may call this one, its way out to the network first."""
    names = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            names.append(str(probe.getsockname()[0]))
        except OSError:  # no network: the names will do
            names.append(socket.gethostname())
    return [*names, socket.gethostname(), socket.getfqdn()]
