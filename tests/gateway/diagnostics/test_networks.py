"""A scan reaches the gateway's own private networks and nothing else; names are no addresses."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from gateway.diagnostics.networks import MOST_HOSTS, hosts, own_networks
from gateway.objections import NotAllowed, Unfit

OWN = [IPv4Network("192.168.1.0/24"), IPv4Network("10.0.0.0/8")]


def test_a_part_of_ones_own_network_is_scanned() -> None:
    assert hosts("192.168.1.8/30", OWN) == ["192.168.1.9", "192.168.1.10"]
    assert hosts("192.168.1.5", OWN) == ["192.168.1.5"]
    assert len(hosts("10.1.0.0/22", OWN)) == MOST_HOSTS - 2


@pytest.mark.parametrize("network", ["127.0.0.1", "169.254.169.254", "192.168.2.0/24", "192.168.0.0/22", "8.8.8.8", "0.0.0.0", "224.0.0.1"])
def test_everything_else_is_refused(network: str) -> None:
    with pytest.raises(NotAllowed, match="no part of a private network"):
        hosts(network, OWN)


@pytest.mark.parametrize(
    "network",
    [
        "",
        "localhost",
        "-oProxyCommand=x",
        "192.168.1.1;reboot",
        "$(reboot)",
        "192.168.1.1\n10.0.0.1",
        "::1",
        "0x7f.1",
        "10.0.0.0/8",
        "192.168.1.1/33",
    ],
)
def test_what_is_no_range_of_numbers_or_too_large_is_refused(network: str) -> None:
    with pytest.raises(Unfit):
        hosts(network, OWN)


def test_the_networks_of_this_machine_are_private_and_not_itself() -> None:
    assert all(each.is_private and not each.is_loopback and not each.is_link_local for each in own_networks())
