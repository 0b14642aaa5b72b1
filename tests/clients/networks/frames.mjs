// Frames that no client library sends, and the close codes of RFC 6455 for them: 1002 (protocol error), 1007 (invalid
// text) and 1009 (too large).

import { randomBytes } from "node:crypto";
import { WebSocket } from "ws";
import { equal, until } from "./fixture.mjs";

// FIN, RSV1 and the opcode are in the first byte of a frame, the mask bit is in the second.
const [FIN, RESERVED_1, MASKED] = [0x80, 0x40, 0x80];
const [CONTINUATION, TEXT] = [0x0, 0x1];

/** A masked frame, as from a client. The payload must be shorter than 126 bytes. */
function frame(firstByte, payload = "") {
  const mask = randomBytes(4);
  const masked = Buffer.from(payload).map((byte, n) => byte ^ mask[n % 4]);
  return Buffer.concat([Buffer.from([firstByte, MASKED | masked.length]), mask, masked]);
}

const EVENT = '42["notification:unread_count"]';

const tooLarge = (socket) => socket.send(`42["notification:mark_read",{"ids":["${"x".repeat(300_000)}"]}]`);
const notUtf8 = (socket) => socket.send(Buffer.from([0x34, 0x32, 0xff, 0xfe]), { binary: false });
// The package `ws` does not send such frames, so their bytes are written to its TCP connection.
const reservedBit = (socket) => socket._socket.write(frame(FIN | RESERVED_1 | TEXT, EVENT));
const strayContinuation = (socket) => socket._socket.write(frame(FIN | CONTINUATION, EVENT));

/** Opens a WebSocket, and collects its texts, its close code and its error. */
async function opened(fixture, url) {
  url.protocol = "ws:";
  const socket = new WebSocket(url, { perMessageDeflate: false });
  fixture.cleanup(() => socket.terminate());
  socket.texts = [];
  socket.on("message", (data) => socket.texts.push(String(data)));
  socket.on("close", (code) => (socket.closed = code));
  socket.on("error", (error) => (socket.failed = error));
  await until("a WebSocket", () => socket.readyState === WebSocket.OPEN, () => String(socket.failed));
  return socket;
}

const received = (socket, start) =>
  until(`received ${start}`, () => socket.texts.some((text) => text.startsWith(start)), () => socket.texts.join(" "));

const connectPacket = (fixture) => `40{"token":"${fixture.token(fixture.user("ada"))}"}`;

/** A session that is opened as a WebSocket. With `signsIn`, it is connected to the default namespace. */
async function direct(fixture, { signsIn }) {
  const socket = await opened(fixture, new URL("/socket.io/?EIO=4&transport=websocket", fixture.url));
  if (!signsIn) return socket;
  socket.send(connectPacket(fixture));
  await received(socket, "42[\"notification:sync\"");
  return socket;
}

/** A session that is opened by polling, connects to the default namespace and is upgraded. */
async function upgraded(fixture) {
  const url = new URL("/socket.io/?EIO=4&transport=polling", fixture.url);
  // The digit before the JSON is the packet type, OPEN.
  const { sid } = JSON.parse((await (await fetch(url)).text()).slice(1));
  url.searchParams.set("sid", sid);
  await (await fetch(url, { method: "POST", body: connectPacket(fixture) })).text();
  await (await fetch(url)).text();
  const address = new URL(`/socket.io/?EIO=4&transport=websocket&sid=${sid}`, fixture.url);
  const socket = await opened(fixture, address);
  socket.send("2probe");
  await received(socket, "3probe");
  // Engine.IO UPGRADE, and an event with the ack id 1.
  socket.send("5");
  socket.send('421["notification:unread_count"]');
  await received(socket, "431[");
  return socket;
}

const closedWith = (code, send) => async (fixture) => {
  const sockets = [
    await direct(fixture, { signsIn: true }),
    await direct(fixture, { signsIn: false }),
    await upgraded(fixture),
  ];
  for (const socket of sockets) {
    send(socket);
    await until("closed", () => socket.closed !== undefined);
  }
  equal("close codes: signed in, not signed in, upgraded", sockets.map(({ closed }) => closed), [code, code, code]);
};

// These scenarios use no client library, so they run only once.
const raw = { clients: ["4"], transports: ["websocket"] };

export const frames = {
  "a message that is too large closes the WebSocket with 1009": { ...raw, run: closedWith(1009, tooLarge) },
  "a text that is not UTF-8 closes the WebSocket with 1007": { ...raw, run: closedWith(1007, notUtf8) },
  "a reserved bit closes the WebSocket with 1002": { ...raw, run: closedWith(1002, reservedBit) },
  "a stray continuation closes the WebSocket with 1002": { ...raw, run: closedWith(1002, strayContinuation) },
};
