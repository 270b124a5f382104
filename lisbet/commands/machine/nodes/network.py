"""Interfaces of this machine: which one gloo and NCCL take, and what keeps them from working."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lisbet.core.json_types import JsonDict

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
INFINIBAND = Path("/sys/class/infiniband")
_USED = re.compile(r"NCCL INFO NET/(\w+) *: Using (.*)")


@dataclass(frozen=True)
class Host:
    """What the other processes must know of the machine of one of them.

    Parameters
    ----------
    rank : int
        Number of the process.
    name : str
        Name of its machine.
    device : str
        Where it computes: "CPU", or the GPU's name.
    interfaces : dict of str to list of str
        IP addresses by the name of the interface; only interfaces that are up.
    own_address : str
        Address to which the machine's own name resolves; empty if to none.
    infiniband : tuple of str
        InfiniBand and RoCE adapters.
    variables : dict of str to str
        Variables of gloo and NCCL that are set.
    """

    rank: int
    name: str
    device: str
    interfaces: dict[str, list[str]]
    own_address: str
    infiniband: tuple[str, ...] = ()
    variables: dict[str, str] | None = None

    def as_dict(self) -> JsonDict:
        """Return the fields, for JSON."""
        return asdict(self)

    @property
    def real_interfaces(self) -> list[str]:
        """Interfaces with an address that another machine could reach."""
        return [
            name
            for name, addresses in self.interfaces.items()
            if any(not _is_loopback(address) for address in addresses)
        ]

    def interface_of(self, address: str) -> str:
        """Return the interface that has an address, or the address itself."""
        found = (name for name, own in self.interfaces.items() if address in own)
        return next(found, address)

    def problems(self, backend: str, *, alone: bool) -> list[str]:
        """Return why others will not reach this machine.

        Parameters
        ----------
        backend : str
            "gloo" or "nccl".
        alone : bool
            Whether all processes are on this machine.
        """
        named = self.variables or {}
        choice = ", ".join(self.real_interfaces) or "none that is up"
        export = f"export {{}}={(self.real_interfaces or ['INTERFACE'])[0]}"
        found = []
        if backend == "gloo" and (name := named.get(GLOO)):
            if absent := [part for part in name.split(",") if part not in self.interfaces]:
                found.append(
                    f"{self.name} has no interface {absent[0]}, which {GLOO}={name} names; it has "
                    f"{choice}: {export.format(GLOO)}"
                )
            elif not alone and not set(name.split(",")) & set(self.real_interfaces):
                found.append(
                    f"{GLOO}={name} names an interface of {self.name} that other machines do not "
                    f"reach; it has {choice}: {export.format(GLOO)}"
                )
        elif backend == "gloo" and not alone and _is_loopback(self.own_address):
            found.append(
                f"the name {self.name} resolves to {self.own_address or 'nothing'} on its own "
                "machine, and gloo would hand this address to the others; its interfaces are "
                f"{choice}: {export.format(GLOO)}"
            )
        if backend == "nccl" and (name := named.get(NCCL)) and not nccl_choice(name, self):
            found.append(
                f"{self.name} has no interface that {NCCL}={name} names; it has {choice}: "
                f"{export.format(NCCL)}"
            )
        return found


def here(rank: int, device: str, environ: Mapping[str, str]) -> Host:
    """Describe the machine of this process."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = {
        name: [entry.address.partition("%")[0] for entry in entries if entry.family in families]
        for name, entries in psutil.net_if_addrs().items()
        if name in up
    }
    try:
        own = str(socket.getaddrinfo(socket.gethostname(), None)[0][4][0])
    except OSError:
        own = ""
    adapters = tuple(sorted(os.listdir(INFINIBAND))) if INFINIBAND.is_dir() else ()
    variables = {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(("GLOO_", "NCCL_", "TORCH_NCCL_", "TP_SOCKET"))
    }
    return Host(rank, socket.gethostname(), device, {name: found for name, found in
                interfaces.items() if found}, own, adapters, variables)  # fmt: skip


def nccl_choice(text: str, host: Host) -> list[str]:
    """Return the interfaces of a machine that NCCL_SOCKET_IFNAME allows.

    By NCCL's documentation of its variables: prefixes, separated by commas; ``=`` in front asks for
    whole names, ``^`` for all others.
    """
    exact, other = text.lstrip("^").startswith("="), text.startswith("^")
    words = [word for word in text.lstrip("^=").split(",") if word]

    def named(name: str) -> bool:
        return any(name == word if exact else name.startswith(word) for word in words)

    return [name for name in host.interfaces if named(name) != other]


def addresses_in_use(remote: set[str], store_port: int) -> set[str]:
    """Return the local addresses of this process's connections to other machines.

    Parameters
    ----------
    remote : set of str
        Addresses of the other machines.
    store_port : int
        Port of the rendezvous, whose connection carries no results.
    """
    process = psutil.Process()
    # Named otherwise before psutil 6.
    listed = getattr(process, "net_connections", None) or process.connections
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in listed("tcp")
        if connection.raddr
        and connection.raddr.ip.removeprefix("::ffff:") in remote
        and store_port not in (connection.raddr.port, connection.laddr.port)
    }


def nccl_transport(log: str) -> str:
    """Return the network that NCCL says it uses, from its messages of NCCL_DEBUG=INFO.

    Examples
    --------
    >>> nccl_transport("n1:9:9 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>")
    'Socket [0]eth0:10.0.0.1<0>'
    """
    found = _USED.findall(log)
    return " ".join(found[-1]) if found else ""


def advice(hosts: list[Host], backend: str, transport: str) -> list[str]:
    """Return what to set, once communication works.

    Parameters
    ----------
    hosts : list of Host
        One for each process.
    backend : str
        "gloo" or "nccl".
    transport : str
        What `nccl_transport` has found, or "".
    """
    found = []
    machines = {host.name: host for host in hosts}
    adapters = sorted({name for host in machines.values() for name in host.infiniband})
    if backend == "nccl" and transport.startswith("Socket") and adapters:
        found.append(
            f"NCCL uses sockets, though there is InfiniBand ({', '.join(adapters)}): unset "
            f"NCCL_IB_DISABLE, or name the adapter, NCCL_IB_HCA={adapters[0]}; a container needs "
            "libibverbs and /dev/infiniband"
        )
    shared = set.intersection(*(set(host.real_interfaces) for host in machines.values()))
    variable = NCCL if backend == "nccl" else GLOO
    several = len(shared) > 1
    if len(machines) > 1 and several:
        names = ", ".join(sorted(shared))
        found.append(
            f"nothing must be set. All machines have {names}; to keep to one of them: "
            f"export {variable}=NAME"
        )
    elif len(machines) > 1 and not shared:
        names = "; ".join(f"{name}: {','.join(host.real_interfaces)}" for name, host in
                          machines.items())  # fmt: skip
        found.append(
            f"nothing must be set. The interfaces have other names on each machine ({names}): "
            f"where {variable} is set, each needs its own"
        )
    else:
        found.append("nothing must be set")
    return found


def _is_loopback(address: str) -> bool:
    return not address or address.startswith("127.") or address == "::1"
