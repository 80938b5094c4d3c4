"""`persona serve`: the HTTP doors, until SIGTERM or Ctrl-C."""

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from persona_mcp.config.server_settings import ServerSettings
from persona_mcp.config.settings import Settings
from persona_mcp.server.app import PATHS, REQUIRED, SOCKETS, create_app
from persona_mcp.server.cli.run import FAILED, llm, run
from persona_mcp.server.cli.tokens import has_usable
from persona_mcp.server.event_loop import settle
from persona_mcp.server.http_protocol import limited_http
from persona_mcp.server.service import Service, open_service
from persona_mcp.server.socket_protocol import Socket
from persona_mcp.server.stopping import begin_stop
from persona_mcp.server.terminal import Terminal
from persona_mcp.state.errors import InternalError, InvalidParams, NotConfigured

log = structlog.get_logger(__name__)

BACKLOG = 2048
LOOK_S = 0.02
READ_SHARE = 2
"""A WebSocket message that is longer than allowed is read up to this many times its limit, so that
it can be answered; beyond, it ends the connection."""
MARGIN_S = 2.0
"""Beyond `server.stop_s`, for connections that are told how their reply ended."""


class Server(uvicorn.Server):
    """Uvicorn, with a stop in which running replies may come to their end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, limits: ServerSettings) -> None:
        """Serve an app; on a signal its replies and connections have the time of these limits."""
        super().__init__(config)
        self._app = app
        self._limits = limits

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal; at the second the process ends as it is."""
        if self.should_exit:
            end_now("a second signal came")
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new work, let replies end or stop them, then close what is still open."""
        limits = self._limits
        end_after(limits.stop_s + limits.close_s)
        for server in self.servers:
            server.close()
        service: Service = self._app.state.service
        begin_stop(service)
        await service.runs.stop(limits.stop_s, MARGIN_S)
        await self._app.state.websockets.stop()
        AppStatus.should_exit = True  # streams that never end by themselves, as MCP's
        await super().shutdown(sockets)


def end_after(limit_s: float) -> None:
    """End the process when it is still there after so many seconds, whatever it waits for."""
    told = (
        f"not everything was closed within {limit_s:g} s (PERSONA_SERVER__STOP_S and "
        "PERSONA_SERVER__CLOSE_S)"
    )
    timer = threading.Timer(limit_s, end_now, [told])
    timer.daemon = True
    timer.start()


def end_now(why: str) -> None:
    """End the process as it is; what was acknowledged is stored, what runs is found interrupted."""
    log.error("ended as it is", reason=why)
    sys.stderr.flush()
    os._exit(FAILED)


def end_at_second_ctrl_c() -> None:
    """Stop at the first Ctrl-C as is usual; at the second the process ends as it is.

    Before and after uvicorn has the signals, that is: raised there, the second one would close the
    event loop under threads that still answer to it.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual):  # a shell may have it ignored
        return

    def stop(sig: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda *_: end_now("a second signal came"))
        usual(sig, frame)

    signal.signal(signal.SIGINT, stop)


def serve(host: str | None, port: int | None, model: str | None, insecure: bool) -> None:
    """Serve until stopped.

    Raises:
        typer.Exit: With 1, if it cannot be served there (which is found first: no token helps
            then), or nobody could call it.
    """

    async def work(settings: Settings, terminal: Terminal) -> None:
        end_at_second_ctrl_c()
        alone = is_loopback(settings.server.host)
        guarded = needs_tokens(settings, insecure=insecure)
        everybody = insecure and not alone
        with listen(settings.server.host, settings.server.port) as listening:
            if guarded:
                await check_tokens(settings)
            await serve_until_stopped(
                settings, terminal, listening, everybody=everybody, guarded=guarded
            )

    given: dict[str, Any] = {"host": host, "port": port}
    chosen = {key: value for key, value in given.items() if value is not None}
    run(work, busy=True, server=chosen or None, llm=llm(model))


def needs_tokens(settings: Settings, *, insecure: bool) -> bool:
    """Tell whether callers need a token: where others reach the server, or by setting."""
    if settings.access.tokens == REQUIRED:
        return True
    return not insecure and not is_loopback(settings.server.host)


async def check_tokens(settings: Settings) -> None:
    """Make sure that somebody could call a server whose callers need a token.

    Raises:
        NotConfigured: Nobody could.
    """
    if settings.oauth.issuer or await has_usable(settings):
        return
    if settings.access.tokens == REQUIRED:
        why = f"PERSONA_ACCESS__TOKENS is {REQUIRED}, so callers need a token"
        without = "set it to auto and serve this machine alone (--host 127.0.0.1)"
    else:
        why = f"callers of a server at {settings.server.host} need a token"
        without = (
            "serve this machine alone (--host 127.0.0.1); --insecure lets anybody do everything"
        )
    raise NotConfigured(
        f"{why}, and there is none that is in use. Make one first: "
        f"persona token create --name NAME --scopes read,chat. Or {without}"
    )


async def serve_until_stopped(
    settings: Settings,
    terminal: Terminal,
    listening: socket.socket,
    *,
    everybody: bool,
    guarded: bool,
) -> None:
    """Open everything, say where it listens, and serve.

    Raises:
        InternalError: A door broke down; the log has the cause.
        StorageUnavailable: The data folder or the database cannot be used.
    """
    address = shown(listening, settings.server.host)
    # Opened here and not by the app, so that what keeps it from opening is told as any error is.
    async with open_service(settings) as service:
        app = create_app(
            settings, opening=lambda: nullcontext(service), everybody=everybody, guarded=guarded
        )
        settle()
        await serve_app(app, settings, listening, terminal, address)
    if any(door.broken.is_set() for door in app.state.doors.values()):
        raise InternalError("the MCP door broke down; the log has the cause; start it again")
    terminal.err.print("stopped", style="dim")


async def serve_app(
    app: FastAPI, settings: Settings, listening: socket.socket, terminal: Terminal, address: str
) -> None:
    """Serve an app until a signal comes or a door breaks."""
    AppStatus.enable_automatic_graceful_drain = False  # our stop gives streams their time
    server = Server(transport(app, settings), app, settings.server)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has stopped
    tasks = [
        asyncio.create_task(door.broken.wait(), name="MCP watch")
        for door in app.state.doors.values()
    ]
    watch = asyncio.create_task(stop_when_broken(tasks, server))
    announce = asyncio.create_task(say_where(server, terminal, address))
    try:
        await server.serve([listening])
    finally:
        for task in (*tasks, watch, announce):
            task.cancel()


def transport(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How an app is served: one log for everything, connections by the settings."""
    sockets = settings.websocket
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=settings.server.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(MARGIN_S)),
        http=limited_http(settings.server),
        ws=Socket,
        ws_max_size=READ_SHARE * sockets.frame_bytes,
        ws_ping_interval=sockets.ping_s,
        ws_ping_timeout=sockets.ping_s,
        ws_per_message_deflate=False,  # its buffers cost each connection more than they save
    )


async def stop_when_broken(doors: list[asyncio.Task[Any]], server: uvicorn.Server) -> None:
    """End the process when a door cannot be opened again; whoever keeps it running restarts it."""
    await asyncio.wait(doors, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True


async def say_where(server: uvicorn.Server, terminal: Terminal, address: str) -> None:
    """Print the addresses once they answer."""
    while not server.started:
        await asyncio.sleep(LOOK_S)
    core, everything = PATHS
    terminal.err.print(f"Persona MCP serves on {address}", style="bold")
    terminal.err.print(f"  MCP     {address}{core} (all operations: {address}{everything})")
    terminal.err.print(f"  REST    {address}/api/v1 (described in {address}/openapi.json)")
    terminal.err.print(f"  socket  {address.replace('http', 'ws', 1)}{SOCKETS[0]} (JSON-RPC)")
    terminal.err.print(f"  health  {address}/health/ready")
    terminal.err.print("Ctrl-C stops it.", style="dim")


def listen(host: str, port: int) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        InvalidParams: The address is taken, or is not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        allowed = f"a free address of this machine ({error.strerror or error})"
        raise InvalidParams.one("--host, --port", allowed, f"{host}:{port}") from error


def shown(listening: socket.socket, host: str) -> str:
    """Write the address for people."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
