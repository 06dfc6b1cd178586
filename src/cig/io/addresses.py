"""Web addresses: their hosts and ports, and whether an IP address belongs to the public internet."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from cig.errors import UsageError, reason

PORTS = {"http": 80, "https": 443}
TUNNELS = [  # IPv6 networks whose addresses lead to an IPv4 address, or into a site
    *map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10"))
]


class PrivateAddressError(Exception):
    """An address that strangers should not lead us to."""


def split_address(address: str) -> tuple[SplitResult, str, int]:
    """Split an address into (parts, host, port); raises ValueError."""
    parts = urlsplit(address)
    return parts, (parts.hostname or "").encode("idna").decode(), parts.port or PORTS.get(parts.scheme, 0)


def named_hosts(addresses: Iterable[str]) -> frozenset[str]:
    """Return the `host:port` of addresses that the user typed, for Rules.trusted; raises UsageError."""
    hosts = set()
    for address in addresses:
        try:
            _, host, port = split_address(address)
        except ValueError as error:
            raise UsageError(f"{address} is no address: {reason(error)}") from error
        hosts.add(f"{host}:{port}")
    return frozenset(hosts)


def proxy_of(scheme: str, host: str) -> str:
    """Return the environment's proxy for a host, an address; "" for none."""
    proxies = getproxies()
    proxy = "" if proxy_bypass(host) else proxies.get(scheme) or proxies.get("all", "")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def certificate_problem(error: BaseException | None) -> str:
    """Say that a server's certificate is not trusted, and what to do, if that caused an error; else ""."""
    while error:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the server's certificate is not trusted ({error.verify_message}): if your network puts a certificate "
                f"of its own in between, give its file by SSL_CERT_FILE; if this machine's clock is wrong, set it"
            )
        error = error.__cause__ or error.__context__
    return ""


def resolve_host(host: str, port: int) -> list[str]:
    """Look up the IP addresses of a host; raises OSError or UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and any(ip in network for network in TUNNELS):
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def public_address(addresses: Sequence[str], trusted: bool = False) -> str:
    """Return the address of a host to connect to: the guard against names that point into a private network.

    A name may be looked up once for a check and again for the connection, with another answer in between (DNS
    rebinding); so whoever connects uses the address that was checked, not the name.

    Raises:
        PrivateAddressError: one of the addresses is not on the public internet, or there is none.
    """
    private = [address for address in addresses if not trusted and not is_public(address)]
    if private or not addresses:
        raise PrivateAddressError(private[0] if private else "nowhere")
    return addresses[0]
