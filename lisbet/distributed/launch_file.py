"""Follow a launch file, in a process that betman's launcher has started."""

import json
import os

from lisbet.core.errors import ConfigError

LAUNCHED = "LISBET_LAUNCHED"
"""Set in the processes that betman's launcher has started, which must not start more: the words
for Accelerate that say how, as JSON; afterwards "1"."""
FOLLOWED = "1"
OWN = {
    "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK",
    "RANK", "WORLD_SIZE",
}  # fmt: skip
"""What the launcher itself has set."""


def follow() -> None:
    """Set the environment as ``accelerate launch`` does for the same launch file.

    The launcher leaves it to the processes, which import torch and Accelerate anyway.

    Raises
    ------
    ConfigError
        If Accelerate refuses the file.
    """
    words = os.environ.get(LAUNCHED, FOLLOWED)
    if words == FOLLOWED:
        return
    from accelerate.commands import launch

    try:
        # Port 0: the launcher has chosen one, and Accelerate would look whether it is free.
        asked = launch.launch_command_parser().parse_args(
            [*json.loads(words), "--main_process_port", "0", "-m", "lisbet"]
        )
        asked, defaults, has_precision = launch._validate_launch_command(asked)
        if asked.use_deepspeed and not asked.cpu:
            fields = [*(defaults.deepspeed_config if defaults else {})]
            fields += ["mixed_precision"] * has_precision
            asked.deepspeed_fields_from_accelerate_config = ",".join(fields)
            _, environment = launch.prepare_deepspeed_cmd_env(asked)
        elif (asked.use_fsdp or asked.multi_gpu) and not asked.cpu:
            environment = launch.prepare_multi_gpu_env(asked)
        else:
            _, environment = launch.prepare_simple_launcher_cmd_env(asked)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{json.loads(words)[1]}: {error}") from error
    os.environ |= {name: value for name, value in environment.items() if name not in OWN}
    os.environ[LAUNCHED] = FOLLOWED
