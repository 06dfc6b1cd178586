"""Hosts that users type, and IP addresses of the public internet."""

import pytest

from cig.errors import UsageError
from cig.io.addresses import is_public, named_hosts

PRIVATE = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "224.0.0.1", "0.0.0.0"]
PRIVATE += ["64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "fec0::1", "2001:0:7f00:1::", "240.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert not is_public(address)
    assert is_public("93.184.215.14")


def test_hosts_that_were_typed():
    typed = ["http://LocalHost:8000/x", "http://[::1]:8000", "https://a.org/{asin}.jpg"]
    assert named_hosts(typed) == {"localhost:8000", "::1:8000", "a.org:443"}
    with pytest.raises(UsageError, match="no address"):
        named_hosts(["http://[::1"])
