"""What ``betman doctor --nodes`` prints: its report, and who or what failed."""

import os

from lisbet.commands.machine.nodes.all_reduce import Reduction
from lisbet.commands.machine.nodes.network import GLOO, NCCL, Host, advice
from lisbet.core.errors import counted
from lisbet.distributed import environment


def missing_text(missing: list[int], came: list[str], patience: float) -> str:
    """Return the message for processes that did not come, naming their machines if it can.

    Parameters
    ----------
    missing : list of int
        Their ranks.
    came : list of str
        Machines of those that came.
    patience : float
        Seconds that were waited.
    """
    nodes = environment.hosts_of(os.environ.get("SLURM_STEP_NODELIST", ""))
    there = {name.partition(".")[0] for name in came}
    absent = [node for node in nodes if node.partition(".")[0] not in there]
    where = f" of {', '.join(absent)}" if absent else ""
    return (
        f"process {', '.join(map(str, missing))}{where} did not answer within {patience:.0f} s; "
        f"there were those of {', '.join(dict.fromkeys(came))}. Was the command started there, "
        "with the same --main_process_ip and --main_process_port, and is there a firewall? Each "
        "of them prints why it does not reach this one"
    )


def failure_text(hosts: list[Host], backend: str, stages: dict[int, str], reason: str) -> str:
    """Return the message for processes that met, but cannot add up their numbers.

    Parameters
    ----------
    hosts : list of Host
        One for each process.
    backend : str
        "gloo" or "nccl".
    stages : dict of int to str
        What the processes are doing, by rank.
    reason : str
        What the library says.
    """
    named = [host.name for host in hosts for own in host.interfaces.values()
             for address in own if f"{address}]" in reason or f"{address}:" in reason]  # fmt: skip
    where = f" (the address of {', '.join(dict.fromkeys(named))})" if named else ""
    places: dict[str, list[str]] = {}
    for rank, stage in stages.items():
        places.setdefault(stage, []).append(f"{rank} on {hosts[rank].name}")
    doing = "; ".join(f"process {', '.join(who)}: {stage}" for stage, who in places.items())
    lines = [f"the processes found each other, but {backend} does not connect them: {reason}"
             f"{where}. {doing}. Try, on all machines:"]  # fmt: skip
    shared = set.intersection(*(set(host.real_interfaces) for host in hosts))
    variable = NCCL if backend == "nccl" else GLOO
    choice = sorted(shared)[0] if shared else "INTERFACE"
    lines.append(f"  export {variable}={choice}   # the interface between the machines")
    if backend == "nccl":
        lines.append("  export NCCL_IB_DISABLE=1   # if that helps, InfiniBand is the reason")
        lines.append("  export NCCL_DEBUG=INFO     # NCCL then says what it tries")
    return "\n".join(lines)


def report(
    hosts: list[Host],
    used: list[list[str]],
    backend: str,
    met: float,
    reductions: list[Reduction],
    transport: str,
) -> list[str]:
    """Return the lines that the first process prints.

    Parameters
    ----------
    hosts : list of Host
        One for each process.
    used : list of list of str
        Interfaces and addresses of the connections of each process.
    backend : str
        "gloo" or "nccl".
    met : float
        Seconds until all had met.
    reductions : list of Reduction
        The first one is the latency.
    transport : str
        What NCCL says it uses, or "".
    """
    machines = counted(len({host.name for host in hosts}), "machine")
    wide = max(len(host.name) for host in hosts)
    lines = [f"{len(hosts)} processes on {machines} found each other within {met:.1f} s"]
    for host, own in zip(hosts, used, strict=True):
        through = ", ".join(own) or "no network: shared memory, or between the GPUs"
        lines.append(f"  process {host.rank}: {host.name:{wide}}  {host.device}, {through}")
    latency, *others = reductions
    lines.append(f"all-reduce with {backend}{f' ({transport})' if transport else ''}: the sums are "
                 f"right, latency {1e6 * latency.seconds:,.0f} µs (8 bytes)")  # fmt: skip
    lines.append(f"  {'size':>9} {'time':>12} {'algorithm bandwidth':>22} {'bus bandwidth':>17}")
    lines += [
        f"  {_bytes(one.size):>9} {1e3 * one.seconds:9,.2f} ms "
        f"{one.algorithm_bandwidth / 1e6:17,.1f} MB/s {one.bus_bandwidth / 1e6:12,.1f} MB/s"
        for one in others
    ]
    lines.append(f"  algorithm bandwidth: size / time; bus bandwidth: that × 2 (n - 1) / n, n = "
                 f"{len(hosts)} processes, as nccl-tests defines it")  # fmt: skip
    lines += [f"variables: {text}" for text in advice(hosts, backend, transport)]
    for name in {host.name: None for host in hosts}:
        own_variables = next(host.variables or {} for host in hosts if host.name == name)
        if own_variables:
            said = " ".join(f"{key}={value}" for key, value in own_variables.items())
            lines.append(f"  set on {name}: {said}")
    if machines == "1 machine":
        lines.append("note: all processes are on one machine; nothing is known of the network")
    return lines


def _bytes(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size // 2**10} KiB"
