"""Scenarios with python-socketio on bad networks and at bad moments. networks.mjs has those for the JavaScript libraries.

README.md describes the config and the output.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import sys
import time
import traceback
import uuid
from urllib.parse import urlsplit

import aiohttp
import socketio

# Far longer than any wait takes, so that even on a busy machine a wait times out only for a real fault.
PATIENCE_S = 30
PAUSE_S = 0.01
TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}
NAMESPACES = ["/", "/notifications"]

config = json.loads(sys.argv[1])
scenarios = []


def scenario(name, transports=tuple(TRANSPORTS)):
    def register(run):
        scenarios.extend((name, transport, run) for transport in transports)
        return run

    return register


async def until(what, probe, describe=lambda: ""):
    end = time.monotonic() + PATIENCE_S
    while not probe():
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain: {what}. {describe()}")
        await asyncio.sleep(PAUSE_S)


def equal(what, actual, expected):
    assert actual == expected, f"{what}: expected {expected!r}, was {actual!r}"


def user(name):
    """A user that no other scenario has."""
    return f"{name}-{uuid.uuid4()}"


def token(subject, scope=None):
    def base64url(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + 3600, "scope": scope}
    header = {"alg": "HS256", "typ": "JWT"}
    signed = b".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    signature = hmac.new(config["secret"].encode(), signed, hashlib.sha256).digest()
    return b".".join([signed, base64url(signature)]).decode()


class Fixture:
    """The users, service and devices of a scenario. Everything is closed when the scenario ends, even with an error."""

    def __init__(self, transport, http, stack):
        self.transport = transport
        self.http = http
        self.stack = stack

    async def notify(self, subject, identifier):
        headers = {"authorization": "Bearer " + token("shop", "notifications:write")}
        body = {"userId": subject, "id": identifier, "title": f"About {identifier}"}
        async with self.http.post(config["url"] + "/v1/notifications", json=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()

    async def fill(self, subject, count):
        ids = [f"n{n}" for n in range(count)]
        for identifier in ids:
            await self.notify(subject, identifier)
        return ids

    async def unread(self, subject):
        headers = {"authorization": "Bearer " + token(subject)}
        async with self.http.get(config["url"] + "/v1/notifications/unread-count", headers=headers) as answer:
            return (await answer.json())["count"]

    def device(self, subject, namespaces=("/",)):
        device = Device(subject, namespaces)
        self.stack.push_async_callback(device.client.shutdown)
        return device

    async def connect(self, device, url=config["url"], auth=None):
        await device.client.connect(
            url,
            auth=auth or {"token": token(device.subject)},
            transports=TRANSPORTS[self.transport],
            namespaces=list(device.namespaces),
            wait_timeout=PATIENCE_S,
        )


class Device:
    """One client, and everything that its namespaces have received."""

    def __init__(self, subject, namespaces):
        self.subject = subject
        self.namespaces = namespaces
        self.client = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=1, handle_sigint=False)
        self.connects = dict.fromkeys(namespaces, 0)
        self.syncs = dict.fromkeys(namespaces, 0)
        self.epoch = None
        self.disconnects = []
        self.ids = {namespace: [] for namespace in namespaces}
        for namespace in namespaces:
            self.listen(namespace)

    def listen(self, namespace):
        def connected():
            self.connects[namespace] += 1

        def synced(sync):
            self.syncs[namespace] += 1
            self.epoch = sync["epoch"]

        self.client.on("connect", connected, namespace=namespace)
        self.client.on("disconnect", self.disconnects.append, namespace=namespace)
        self.client.on("notification:sync", synced, namespace=namespace)
        self.client.on("notification:new", lambda new: self.ids[namespace].append(new["id"]), namespace=namespace)
        # Other events are not needed, but without a handler the library would log them as errors.
        self.client.on("*", lambda *_: None, namespace=namespace)

    def describe(self):
        return f"connects {self.connects}, disconnects {self.disconnects}, ids {self.ids}"

    async def synced(self, times=1):
        await until("synced", lambda: all(n >= times for n in self.syncs.values()), self.describe)

    async def received(self, identifier):
        await until(
            f"received {identifier}", lambda: all(identifier in ids for ids in self.ids.values()), self.describe
        )


class RefusingProxy:
    """A proxy that forwards everything except requests for a WebSocket. Its response to those is 502."""

    def __init__(self, stack):
        self.stack = stack
        self.refused = 0

    async def start(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def serve(self, from_client, to_client):
        target = urlsplit(config["url"])
        from_server, to_server = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(
            self.pass_on(from_server, to_client),
            self.pass_on(from_client, to_server, refuse=lambda: self.refuse(to_client)),
        )

    def refuse(self, to_client):
        self.refused += 1
        to_client.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        to_client.close()

    @staticmethod
    async def pass_on(reader, writer, refuse=None):
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                # aiohttp writes the head of a request in one piece, so that one chunk has the whole head.
                if refuse and chunk.startswith(b"GET ") and b"upgrade: websocket" in chunk.lower():
                    refuse()
                    break
                writer.write(chunk)
                await writer.drain()
        writer.close()


@scenario("a client that disconnects and connects again at once is connected each time")
async def leaves_and_comes_back(fixture):
    ada = user("ada")
    device = fixture.device(ada, NAMESPACES)
    for n in range(1, 21):
        await fixture.connect(device)
        await device.synced(n)
        await fixture.notify(ada, f"n{n}")
        await device.received(f"n{n}")
        await device.client.disconnect()
    for namespace in NAMESPACES:
        equal(f"received in {namespace}", device.ids[namespace], [f"n{n}" for n in range(1, 21)])


@scenario("a client that cancels its connect can connect later")
async def leaves_while_it_connects(fixture):
    ada = user("ada")
    for _ in range(10):
        device = fixture.device(ada)
        connecting = asyncio.create_task(fixture.connect(device))
        await asyncio.sleep(0)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError, socketio.exceptions.ConnectionError):
            await connecting
    device = fixture.device(ada)
    await fixture.connect(device)
    await device.synced()
    await fixture.notify(ada, "n1")
    await device.received("n1")


@scenario("45 messages sent right after the connect are all processed")
async def sends_at_once(fixture):
    ada = user("ada")
    ids = await fixture.fill(ada, 45)
    device = fixture.device(ada)
    await fixture.connect(device)
    calls = [device.client.call("notification:mark_read", {"id": it}, timeout=PATIENCE_S) for it in ids]
    answers = await asyncio.gather(*calls)
    equal("messages that were rejected", [answer for answer in answers if answer["status"] != "ok"], [])
    equal("unread", await fixture.unread(ada), 0)
    equal("disconnects", device.disconnects, [])


@scenario("a client that missed 40 notifications receives each once and in order")
async def catches_up(fixture):
    ada = user("ada")
    before, device = fixture.device(ada), fixture.device(ada)
    await fixture.connect(before)
    await before.synced()
    await before.client.disconnect()
    ids = await fixture.fill(ada, 40)
    await fixture.connect(device, auth={"token": token(ada), "since": 0, "epoch": before.epoch})
    await device.received(ids[-1])
    equal("received", device.ids["/"], ids)
    equal("disconnects", device.disconnects, [])


@scenario("a client receives 40 notifications that are created at once")
async def receives_a_burst(fixture):
    ada = user("ada")
    device = fixture.device(ada)
    await fixture.connect(device)
    await device.synced()
    ids = [f"n{n}" for n in range(40)]
    await asyncio.gather(*(fixture.notify(ada, identifier) for identifier in ids))
    await until("received all", lambda: len(device.ids["/"]) >= len(ids), device.describe)
    equal("received", sorted(device.ids["/"]), sorted(ids))
    equal("disconnects", device.disconnects, [])


@scenario("a client whose token takes six seconds to fetch connects")
async def fetches_its_token_slowly(fixture):
    ada = user("ada")
    fetches = []

    async def auth():
        fetches.append(True)
        await asyncio.sleep(6)
        return {"token": token(ada)}

    device = fixture.device(ada, NAMESPACES[:1])
    await fixture.connect(device, auth=auth)
    await device.synced()
    equal("number of token fetches", len(fetches), 1)
    equal("disconnects", device.disconnects, [])


@scenario("a client that sends too large a message reconnects")
async def sends_too_much(fixture):
    ada = user("ada")
    device = fixture.device(ada)
    await fixture.connect(device)
    await device.synced()
    await device.client.emit("notification:mark_read", {"ids": ["x" * 300_000]})
    await until("disconnected", lambda: device.disconnects, device.describe)
    await device.synced(2)
    await fixture.notify(ada, "n1")
    await device.received("n1")


@scenario("a client whose upgrade is refused with 502 stays on polling", ["upgrade"])
async def falls_back(fixture):
    ada = user("ada")
    proxy = RefusingProxy(fixture.stack)
    device = fixture.device(ada)
    await fixture.connect(device, url=await proxy.start())
    await device.synced()
    await until("the upgrade is refused", lambda: proxy.refused)
    ids = await fixture.fill(ada, 6)
    await device.received(ids[-1])
    equal("received", device.ids["/"], ids)
    equal("transport", device.client.transport(), "polling")
    equal("disconnects", device.disconnects, [])


async def run(name, transport, work, http):
    start = time.monotonic()
    error = None
    async with contextlib.AsyncExitStack() as stack:
        try:
            await asyncio.wait_for(work(Fixture(transport, http, stack)), 4 * PATIENCE_S)
        except Exception:  # the harness must see every error
            error = traceback.format_exc()
    took = round((time.monotonic() - start) * 1000)
    line = {"name": name, "client": "python", "transport": transport, "ok": error is None, "error": error, "took": took}
    print(json.dumps(line), flush=True)


async def main():
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(run(name, transport, work, http) for name, transport, work in scenarios))


if __name__ == "__main__":
    asyncio.run(main())
