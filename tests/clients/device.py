"""A device on python-socketio (asyncio). It has the same config, commands and reports as device.mjs: see README.md.

These differences between the libraries remain, because this script cannot or should not hide them:

- `engine_close` and `upgrade` are not reported. python-engineio has no public hook for the first. It upgrades before
  `connect` fires, so that `connect` already reports `websocket`.
- After a `connect_error` from the server during a reconnect, Python keeps trying; JavaScript gives up
  (`active: false`) until the command `connect`. At the first connect both give up.
- After an Engine.IO close packet from the server, Python reports a "server disconnect" and does not reconnect.
  JavaScript reports a closed transport and reconnects.
- `disconnect` has fewer reasons: "io server disconnect", "io client disconnect" (both renamed here to
  JavaScript's words) and "transport error" for everything else, a missed ping included.
- A reconnect in Python waits one second for the answer to CONNECT, then starts anew; JavaScript has no such limit.
- Python sends the configured headers with the opening request only, not with every polling request.
"""

import asyncio
import contextlib
import json
import socket
import sys
import time
from urllib.parse import urlencode

import aiohttp
import socketio

ACK_TIMEOUT_S = 5
FIRST_CONNECT_TIMEOUT_S = 20
REASONS = {
    "client disconnect": "io client disconnect",
    "server disconnect": "io server disconnect",
}

started = time.monotonic()


def report(kind, **fields):
    at = round((time.monotonic() - started) * 1000)
    print(json.dumps({"at": at, "kind": kind, **fields}, default=str), flush=True)


class ResumePoint:
    """The newest revision that this device has received, and its epoch. The next handshake resumes there."""

    def __init__(self):
        self.since = None
        self.epoch = None

    def update(self, name, payload):
        if not isinstance(payload, dict):
            return
        if name == "notification:sync":
            self._sync(payload)
        elif isinstance(payload.get("revision"), int):
            self._advance(payload["revision"])

    def _sync(self, sync):
        # After a recovered sync the missed events follow, and each of them advances the resume point. With the
        # revision of the sync, they would be lost if the connection broke before they arrive.
        if sync["epoch"] != self.epoch:
            self.since = None
        self.epoch = sync["epoch"]
        if not sync["recovered"]:
            self.since = sync["revision"]

    def _advance(self, revision):
        self.since = revision if self.since is None else max(self.since, revision)

    def auth_fields(self):
        return {} if self.since is None else {"since": self.since, "epoch": self.epoch}


class CuttableNetwork:
    """Remembers its open connections, so that `drop` can cut them like a lost network: without a close frame,
    without an Engine.IO close packet, and without access to the library's internals."""

    def __init__(self):
        self.connections = []

    def make(self, address):
        family, kind, protocol, _, _ = address
        connection = socket.socket(family, kind, protocol)
        # A closed socket has the file descriptor -1.
        self.connections = [it for it in self.connections if it.fileno() != -1]
        self.connections.append(connection)
        return connection

    def cut(self):
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Device:
    def __init__(self, config, http, network):
        self.config = config
        self.http = http
        self.network = network
        self.namespace = config.get("namespace", "/")
        self.auth = config.get("auth") or {}
        self.resume_point = ResumePoint()
        self.client = None
        self.connecting = None
        self.refused = False
        self.connected = asyncio.Event()
        # The futures of outstanding acks, by the number of the command.
        self.waiting = {}

    def handshake_auth(self):
        return {**self.auth, **(self.resume_point.auth_fields() if self.config.get("track") else {})}

    def new_client(self):
        # Each `connect` creates a new client: one that was stopped during a reconnect never reconnects again.
        delay = self.config.get("reconnectionDelay", 1000) / 1000
        client = socketio.AsyncClient(
            reconnection=self.config.get("reconnection", True),
            reconnection_delay=delay,
            reconnection_delay_max=5 * delay,
            # This library takes seconds here, and not a fraction of the delay as in JavaScript.
            randomization_factor=delay / 2,
            handle_sigint=False,
            http_session=self.http,
        )

        def on_connect():
            report("connect", sid=client.get_sid(self.namespace), transport=client.transport())
            self.connected.set()

        def on_connect_error(problem=None):
            self.refused = True
            error = problem if isinstance(problem, dict) else {"message": str(problem)}
            report("connect_error", message=error.get("message"), data=error.get("data"))

        def on_disconnect(reason):
            self.connected.clear()
            for answer in self.waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("socket has been disconnected"))
            report("disconnect", reason=REASONS.get(reason, reason))

        def on_event(name, *args):
            self.resume_point.update(name, args[0] if args else None)
            report("event", name=name, args=args)

        client.on("connect", on_connect, namespace=self.namespace)
        client.on("connect_error", on_connect_error, namespace=self.namespace)
        client.on("disconnect", on_disconnect, namespace=self.namespace)
        client.on("*", on_event, namespace=self.namespace)
        return client

    async def connect(self):
        if self.connecting and not self.connecting.done():
            if not self.refused:
                return
            # The rejection was reported, and the library is about to give up.
            await asyncio.wait([self.connecting])
        self.refused = False
        if self.client and self.client.connected:
            return
        self.client = self.new_client()
        self.connecting = asyncio.create_task(self.open(self.client))

    async def open(self, client):
        query = self.config.get("query")
        url = self.config["url"].rstrip("/") + ("?" + urlencode(query) if query else "")
        # `connect_error` has reported the failure.
        with contextlib.suppress(socketio.exceptions.ConnectionError):
            await client.connect(
                url,
                # A new copy for every attempt, because the library removes cookies from it.
                headers=lambda: dict(self.config.get("headers") or {}),
                auth=self.handshake_auth,
                transports=self.config.get("transports", ["websocket"]),
                namespaces=[self.namespace],
                socketio_path=self.config.get("path", "socket.io"),
                wait_timeout=FIRST_CONNECT_TIMEOUT_S,
                retry=self.config.get("reconnection", True),
            )

    async def disconnect(self):
        if self.client:
            await self.client.shutdown()

    async def emit(self, name, args, ack, ref):
        """Waits until the device is connected, as the JavaScript library does."""
        answer = asyncio.get_running_loop().create_future()

        def answered(*values):
            if not answer.done():
                answer.set_result(values)

        async def send():
            await self.connected.wait()
            if ack:
                self.waiting[ref] = answer
            await self.client.emit(name, tuple(args), self.namespace, answered if ack else None)
            return await answer if ack else ()

        try:
            values = await asyncio.wait_for(send(), ACK_TIMEOUT_S if ack else None)
        except (TimeoutError, ConnectionError) as error:
            report("ack_timeout", ref=ref, message=str(error) or "operation has timed out")
        else:
            if ack:
                report("ack", ref=ref, args=values)
        finally:
            self.waiting.pop(ref, None)

    async def execute(self, command):
        match command.get("do"):
            case "connect":
                await self.connect()
            case "disconnect":
                await self.disconnect()
            case "drop":
                self.network.cut()
            case "auth":
                self.auth = command.get("auth") or {}
            case "emit":
                ack, ref = command.get("ack", False), command.get("ref")
                await self.emit(command["name"], command.get("args", []), ack, ref)
            case _:
                raise ValueError(f"no such command: {json.dumps(command)}")


async def execute_or_report(device, line):
    try:
        await device.execute(json.loads(line))
    except Exception as error:  # the harness must see every error
        report("error", message=f"{type(error).__name__}: {error}")


async def commands_from_stdin():
    stdin = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async for line in stdin:
        if line.strip():
            yield line


async def main():
    network = CuttableNetwork()
    connector = aiohttp.TCPConnector(limit=0, socket_factory=network.make)
    async with aiohttp.ClientSession(connector=connector) as http:
        device = Device(json.loads(sys.argv[1]), http, network)
        await device.connect()
        running = set()
        async for line in commands_from_stdin():
            with contextlib.suppress(ValueError, AttributeError):
                if json.loads(line).get("do") == "exit":
                    break
            # One task for each command: an emit that waits for its ack must not delay later commands.
            task = asyncio.create_task(execute_or_report(device, line))
            running.add(task)
            task.add_done_callback(running.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(device.disconnect(), 2)


if __name__ == "__main__":
    asyncio.run(main())
