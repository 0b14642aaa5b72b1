// Messages that devices send and receive at difficult moments.

import { ensure, equal, until } from "./fixture.mjs";
import { HttpProxy, UPGRADES } from "./proxies.mjs";

const markRead = (device) => (id) => device.call("notification:mark_read", { id });

/** Ensures that all messages succeed, that no notification is unread, and that the device stays connected. */
async function allAreMarkedRead(fixture, user, device, ids, answers) {
  const refused = (await Promise.all(answers)).filter(({ status }) => status !== "ok");
  equal("messages that were rejected", refused, []);
  const { count } = await fixture.rest("GET", "/v1/notifications/unread-count", fixture.token(user));
  equal("unread", count, 0);
  equal("disconnects", device.disconnects, []);
}

/** The library buffers messages that are emitted before the connect, and then sends them all at once. */
const buffered = (namespace) => async (fixture) => {
  const ada = fixture.user("ada");
  const ids = await fixture.fill(ada, 45);
  const device = fixture.device(fixture.manager(), namespace, ada);
  const answers = ids.map(markRead(device));
  device.socket.connect();
  await allAreMarkedRead(fixture, ada, device, ids, answers);
};

/** All messages are emitted in one turn of the event loop. */
const inOneTurn = (namespace) => async (fixture) => {
  const ada = fixture.user("ada");
  const ids = await fixture.fill(ada, 100);
  const device = await fixture.signedIn(ada, { namespace });
  await allAreMarkedRead(fixture, ada, device, ids, ids.map(markRead(device)));
};

/** The notification is created before the device receives `notification:sync`. */
const rightAfterConnect = (namespace) => async (fixture) => {
  const missing = [];
  for (let n = 0; n < 100; n += 1) {
    const ada = fixture.user("ada");
    const device = fixture.device(fixture.manager(), namespace, ada);
    let created;
    device.socket.on("connect", () => (created = fixture.notify(ada, "first")));
    device.socket.connect();
    await device.connected(1);
    await created;
    // Notifications arrive in order: if "first" has not arrived before this one, it is lost.
    await fixture.flush(ada, device);
    if (device.ids.filter((id) => id === "first").length !== 1) missing.push({ n, events: device.events });
    device.socket.disconnect();
  }
  ensure(`${missing.length} of 100 not received once: ${JSON.stringify(missing[0])}`, missing.length === 0);
};

/** One message with the maximum number of ids, each of the maximum length. */
async function manyLongIds(fixture) {
  const ada = fixture.user("ada");
  const ids = Array.from({ length: 1_000 }, (_, n) => `${n}-`.padEnd(128, "x"));
  await fixture.notify(ada, ids[0]);
  const device = await fixture.signedIn(ada);
  const answer = await device.call("notification:mark_read", { ids });
  equal("ack", answer.status, "ok");
  await allAreMarkedRead(fixture, ada, device, ids, []);
  equal("reasons for a closed transport", device.manager.closes, []);
}

const TOO_LARGE = { ids: ["x".repeat(300_000)] };

/** The message ends the connection. The device reconnects and does not send it again. */
async function tooLarge(fixture) {
  const ada = fixture.user("ada");
  const device = await fixture.signedIn(ada);
  device.socket.emit("notification:mark_read", TOO_LARGE);
  await device.until("disconnected", () => device.disconnects.length > 0);
  await device.connected(2);
  await fixture.flush(ada, device);
  equal("disconnects", device.disconnects.length, 1);
}

/** The library retries the message that is not acknowledged. Then it gives this message up, and sends the next one. */
async function tooLargeWithRetries(fixture) {
  const ada = fixture.user("ada");
  await fixture.notify(ada, "small");
  const manager = fixture.manager();
  const device = fixture.device(manager, "/", ada);
  // An application passes these options to Manager.socket().
  Object.assign(device.socket._opts, { retries: 3, ackTimeout: 10_000 });
  await fixture.connect(device);
  let [failed, acked] = [];
  device.socket.emit("notification:mark_read", TOO_LARGE, (error) => (failed = { error }));
  device.socket.emit("notification:mark_read", { id: "small" }, (error, answer) => (acked = { error, answer }));
  await device.until("the large message is given up", () => failed);
  ensure("the large message was acknowledged", failed.error);
  await device.until("the small message is acknowledged", () => acked);
  equal("ack", acked.answer?.status, "ok");
  await device.until("connected", () => device.socket.connected);
  await fixture.flush(ada, device);
  ensure(`connected ${device.connects} times`, device.connects <= 5);
}

/** The device retries a message that the server has already processed. */
async function lostAck(fixture) {
  let isLosing = false;
  const lost = [];
  const proxy = await HttpProxy.to(fixture, {
    upgrade: (request, socket, head, proxy) =>
      proxy.tunnel(request, socket, head, { toClient: () => !isLosing || !lost.push("frame") }),
  });
  proxy.loses = ({ response }) => isLosing && response !== "ok" && lost.push("response") > 0;
  const ada = fixture.user("ada");
  await fixture.notify(ada, "n1");
  const observer = await fixture.signedIn(ada, { transport: "websocket" });
  const manager = fixture.manager({ url: proxy.url });
  const device = fixture.device(manager, "/", ada);
  Object.assign(device.socket._opts, { retries: 3, ackTimeout: 10_000 });
  await fixture.connect(device);
  let acked;
  isLosing = true;
  device.socket.emit("notification:mark_read", { id: "n1" }, (error, answer) => (acked = { error, answer }));
  await observer.until("marked", () => observer.named("notification:marked_read").length > 0);
  await device.until("the ack is lost", () => lost.length > 0);
  isLosing = false;
  proxy.cut();
  await device.until("acknowledged", () => acked);
  equal("error", acked.error, null);
  equal("ack", acked.answer.status, "ok");
  await fixture.flush(ada, observer, device);
  equal("marked", observer.named("notification:marked_read").length, 1);
}

/** Outside a browser nothing repeats the poll. The device reconnects and catches up from its resume point. */
async function lostPollResponse(fixture) {
  const proxy = await HttpProxy.to(fixture, { upgrade: UPGRADES.refuse });
  const ada = fixture.user("ada");
  const manager = fixture.manager({ url: proxy.url });
  const auth = (answer) => answer({ token: fixture.token(ada), ...device.resumePoint });
  const device = fixture.device(manager, "/", ada, auth);
  await fixture.connect(device, "polling");
  await fixture.notify(ada, "one");
  await device.received("one");
  let lost = 0;
  proxy.loses = ({ response }) => response.includes('"two"') && lost++ === 0;
  await fixture.notify(ada, "two");
  await until("a response is lost", () => lost > 0);
  await fixture.notify(ada, "three");
  await device.received("three");
  await fixture.flush(ada, device);
  equal("received", device.ids.slice(0, 3), ["one", "two", "three"]);
  equal("notifications", device.ids.length, 4);
}

/** The server selects the first WebSocket subprotocol that the client offers. */
const choosesProtocol = (protocols) => async (fixture) => {
  const ada = fixture.user("ada");
  const device = await fixture.signedIn(ada, { protocols });
  equal("the WebSocket's subprotocol", device.manager.engine.transport.ws.protocol, protocols[0]);
  await fixture.flush(ada, device);
};

const v4 = { clients: ["4"] };
const webSockets = { transports: ["websocket", "upgrade"] };

export const messages = {
  "45 messages buffered before the connect are all processed": { run: buffered("/") },
  "45 messages buffered before the connect to /notifications are all processed": { run: buffered("/notifications") },
  "100 messages of one turn of the event loop are all processed": { run: inOneTurn("/") },
  "100 messages of one turn of the event loop in /notifications are all processed": {
    run: inOneTurn("/notifications"),
  },
  "a notification created right after the connect is received": { run: rightAfterConnect("/") },
  "a notification created right after the connect to /notifications is received": {
    run: rightAfterConnect("/notifications"),
  },
  "1,000 ids of 128 characters in one message are acknowledged": { run: manyLongIds },
  "a device that sends too large a message reconnects": { run: tooLarge },
  "too large a message is given up after its retries": { ...v4, run: tooLargeWithRetries },
  "a message whose ack is lost is retried and processed once": { ...v4, run: lostAck },
  "a device that loses a poll response catches up": { transports: ["polling"], run: lostPollResponse },
  "a WebSocket with a subprotocol connects": { ...webSockets, run: choosesProtocol(["notify.v1"]) },
  "a WebSocket with several subprotocols connects with the first": {
    ...webSockets,
    run: choosesProtocol(["notify.v2", "notify.v1"]),
  },
};
