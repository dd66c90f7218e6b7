"""`shoal reload`: lets running proxies read their file again, and says what that changes. No client is dropped.

One proxy after the other: the first that refuses ends it, so that a bad file reaches none of the rest. Exit 0 only when
all have done it (or, with --plan, would).
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from shoal import config, state
from shoal.cli.options import DEFAULT_FILE, FileOption, JsonOption, StateOption
from shoal.cli.printer import Printer
from shoal.errors import ConfigError, ProcessError, ShoalError
from shoal.topology import Endpoint, Layout, lay_out, ports_to_choose

PATIENCE = 30.0
"""A reload that follows new sentinels may wait some seconds for them."""

Answer = Mapping[str, Any]


def command(  # noqa: PLR0913, PLR0917  a command's options are its parameters
    file: FileOption = DEFAULT_FILE,
    node: Annotated[str | None, typer.Option("--node", help="Only this one of the topology's proxies.")] = None,
    directory: StateOption = None,
    admin: Annotated[
        str | None,
        typer.Option("--admin", metavar="HOST:PORT", help="The proxy with its admin HTTP here, whatever file."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would change.")] = False,
    allow_remap: Annotated[
        bool, typer.Option("--allow-remap", help="Also if keys would be looked for on another shard.")
    ] = False,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="With --admin outside loopback: the password of that proxy."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Let running proxies read their file again."""
    printer = Printer()
    proxies = _at(admin) if admin is not None else _of_topology(file, directory, node)
    query = urlencode({"plan": int(plan), "allow_remap": int(allow_remap)})
    headers = {"Shoal-Request": "reload", **_authorization(password_file)}
    answers = []
    for name, endpoint in proxies.items():
        answer = _reload(name, endpoint, query, headers)
        answers.append(answer)
        if not as_json:
            _show(printer, name, answer, plan=plan)
    if as_json:
        printer.json(answers)
    would_be_refused = any(change.startswith("refused") for answer in answers for change in answer.get("changes", []))
    return int(plan and would_be_refused)


def _at(admin: str) -> dict[str, Endpoint]:
    try:
        return {f"the proxy at {admin}": Endpoint.parse(admin)}
    except ValueError as error:
        raise ConfigError(f"--admin is not HOST:PORT: {error}", hint='for example "127.0.0.1:22180"') from None


def _authorization(password_file: Path | None) -> dict[str, str]:
    """The token that is made of the password: that itself is never sent."""
    if password_file is None:
        return {}
    from shoal.admin import admin_token

    try:
        password = password_file.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the password cannot be read: {error}", where=str(password_file)) from None
    return {"Authorization": f"Bearer {admin_token(password)}"}


def _of_topology(file: Path, directory: Path | None, node: str | None) -> dict[str, Endpoint]:
    topology = config.load(file)
    directory = directory or state.beside(file.absolute())
    ports = state.load_ports(directory)
    if not set(ports_to_choose(topology)) <= ports.keys():
        raise ProcessError(f"the cluster was never up: {directory} holds no ports", hint="start it with `shoal up`")
    return dict(_admins(lay_out(topology, ports), node))


def _admins(layout: Layout, node: str | None) -> Iterator[tuple[str, Endpoint]]:
    names = [proxy.name for proxy in layout.proxies]
    if node is not None and node not in names:
        raise ConfigError(f'there is no proxy "{node}"', hint=f"the topology has {', '.join(names)}")
    return ((proxy.name, proxy.admin) for proxy in layout.proxies if node in (None, proxy.name))


def _reload(name: str, endpoint: Endpoint, query: str, headers: Mapping[str, str]) -> Answer:
    """What one proxy answers; ShoalError if it cannot be asked or refuses."""
    connection = http.client.HTTPConnection(*endpoint, timeout=PATIENCE)
    try:
        connection.request("POST", f"/api/v1/reload?{query}", headers=dict(headers))
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        hint = "is it up? its log and `shoal status` say more"
        raise ProcessError(f"{name} cannot be asked: {error}", where=str(endpoint), hint=hint) from None
    finally:
        connection.close()
    try:
        said = json.loads(text)
    except ValueError:
        said = {}
    if status != http.client.OK or not isinstance(said, dict):
        raise _refusal(name, endpoint, said if isinstance(said, dict) else {}, status)
    return said


def _refusal(name: str, endpoint: Endpoint, said: Answer, status: int) -> ShoalError:
    """The proxy's own errors, under its name."""
    errors = said.get("errors") or [{"error": said.get("error", f"it answered with status {status}")}]
    each = [
        ConfigError(f"{name}: {one.get('error')}", where=one.get("where") or str(endpoint), hint=one.get("hint"))
        for one in errors
    ]
    return ConfigError.together(each, "reload")


def _show(printer: Printer, name: str, answer: Answer, *, plan: bool) -> None:
    changes = answer.get("changes", [])
    if not changes:
        printer.data(f"{name}: nothing changes" if plan else f"{name}: reloaded, nothing has changed")
        return
    printer.data(f"{name}: would change" if plan else f"{name}: reloaded")
    for change in changes:
        printer.data(f"  {change}")
