"""Reads shoal.yaml into a checked Topology, or says all that is wrong with it, line by line.

First form; see the tests for what it promises.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from shoal.errors import ConfigError
from shoal.topology import Topology, problems


def parse(data: Mapping[str, Any], where: str = "topology") -> Topology:
    """Check a topology that is already data."""
    try:
        topology = Topology.model_validate(data)
    except ValidationError as error:
        raise ConfigError.together(
            [
                ConfigError(item["msg"], where=f"{where} {'.'.join(map(str, item['loc']))}")
                for item in error.errors(include_url=False)
            ]
        ) from None
    found = problems(topology)
    if found:
        raise ConfigError.together(
            [ConfigError(p.what, where=f"{where} {'.'.join(map(str, p.path))}", hint=p.hint) for p in found]
        )
    return topology


def load(path: Path) -> Topology:
    """Read and check a topology file."""
    try:
        data = YAML(typ="safe").load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the topology: {error.strerror}", where=str(path)) from None
    except YAMLError as error:
        raise ConfigError(f"not YAML: {error}", where=str(path)) from None
    topology = parse(data, str(path))
    if topology.auth.password_file is None:
        return topology
    secret = (path.parent / topology.auth.password_file).read_text("utf-8").rstrip("\n")
    auth = topology.auth.model_copy(update={"password": SecretStr(secret)})
    return topology.model_copy(update={"auth": auth})
