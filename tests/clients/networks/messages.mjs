// What devices send, and receive, at difficult moments.

import { ensure, equal, until } from "./fixture.mjs";
import { HttpProxy, UPGRADES } from "./proxies.mjs";

const markRead = (device) => (id) => device.call("notification:mark_read", { id });

async function allAreMarkedRead(fixture, user, device, ids, answers) {
  const refused = (await Promise.all(answers)).filter(({ status }) => status !== "ok");
  equal("messages that were refused", refused, []);
  const { count } = await fixture.rest("GET", "/v1/notifications/unread-count", fixture.token(user));
  equal("unread", count, 0);
  equal("disconnects", device.disconnects, []);
}

/** The library sends what was emitted before it was connected all at once. */
const buffered = (namespace) => async (fixture) => {
  const ada = fixture.user("ada");
  const ids = await fixture.fill(ada, 45);
  const device = fixture.device(fixture.manager(), namespace, ada);
  const answers = ids.map(markRead(device));
  device.socket.connect();
  await allAreMarkedRead(fixture, ada, device, ids, answers);
};

const inOneTurn = (namespace) => async (fixture) => {
  const ada = fixture.user("ada");
  const ids = await fixture.fill(ada, 100);
  const device = await fixture.signedIn(ada, { namespace });
  await allAreMarkedRead(fixture, ada, device, ids, ids.map(markRead(device)));
};

/** A device that does not wait for notification:sync, or does not know of it. */
const rightBehindConnect = (namespace) => async (fixture) => {
  const missing = [];
  for (let n = 0; n < 100; n += 1) {
    const ada = fixture.user("ada");
    const device = fixture.device(fixture.manager(), namespace, ada);
    let created;
    device.socket.on("connect", () => (created = fixture.notify(ada, "first")));
    device.socket.connect();
    await device.connected(1);
    await created;
    // What is created behind it is received behind it: then it does not come any more.
    await fixture.flush(ada, device);
    if (device.ids.filter((id) => id === "first").length !== 1) missing.push({ n, events: device.events });
    device.socket.disconnect();
  }
  ensure(`${missing.length} of 100 not received once: ${JSON.stringify(missing[0])}`, missing.length === 0);
};

/** The longest ids, and as many of them as one message may have. */
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

/** The message ends the connection; the device is back without it. */
async function tooLarge(fixture) {
  const ada = fixture.user("ada");
  const device = await fixture.signedIn(ada);
  device.socket.emit("notification:mark_read", TOO_LARGE);
  await device.until("disconnected", () => device.disconnects.length > 0);
  await device.connected(2);
  await fixture.flush(ada, device);
  equal("disconnects", device.disconnects.length, 1);
}

/** The library repeats what is not acknowledged; then it gives up, and the rest is sent. */
async function tooLargeWithRetries(fixture) {
  const ada = fixture.user("ada");
  await fixture.notify(ada, "small");
  const manager = fixture.manager();
  const device = fixture.device(manager, "/", ada);
  // Options of a socket, which Manager.socket() takes.
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

/** The device repeats what the server has done already. */
async function lostAck(fixture) {
  let loses = false;
  const lost = [];
  const proxy = await HttpProxy.to(fixture, {
    upgrade: (request, socket, head, proxy) =>
      proxy.tunnel(request, socket, head, { toClient: () => !loses || !lost.push("frame") }),
  });
  proxy.loses = ({ response }) => loses && response !== "ok" && lost.push("response") > 0;
  const ada = fixture.user("ada");
  await fixture.notify(ada, "n1");
  const observer = await fixture.signedIn(ada, { transport: "websocket" });
  const manager = fixture.manager({ url: proxy.url });
  const device = fixture.device(manager, "/", ada);
  Object.assign(device.socket._opts, { retries: 3, ackTimeout: 10_000 });
  await fixture.connect(device);
  let acked;
  loses = true;
  device.socket.emit("notification:mark_read", { id: "n1" }, (error, answer) => (acked = { error, answer }));
  await observer.until("marked", () => observer.named("notification:marked_read").length > 0);
  await device.until("the ack is lost", () => lost.length > 0);
  loses = false;
  proxy.cut();
  await device.until("acknowledged", () => acked);
  equal("error", acked.error, null);
  equal("ack", acked.answer.status, "ok");
  await fixture.flush(ada, observer, device);
  equal("marked", observer.named("notification:marked_read").length, 1);
}

/** Without a browser nothing repeats the poll: the device connects anew and asks from where it was. */
async function lostPollResponse(fixture) {
  const proxy = await HttpProxy.to(fixture, { upgrade: UPGRADES.refuse });
  const ada = fixture.user("ada");
  const manager = fixture.manager({ url: proxy.url });
  const auth = (answer) => answer({ token: fixture.token(ada), ...device.position });
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

const choosesProtocol = (protocols) => async (fixture) => {
  const ada = fixture.user("ada");
  const device = await fixture.signedIn(ada, { protocols });
  equal("the WebSocket's protocol", device.manager.engine.transport.ws.protocol, [protocols].flat()[0]);
  await fixture.flush(ada, device);
};

const v4 = { clients: ["4"] };
const webSockets = { transports: ["websocket", "upgrade"] };

export const messages = {
  "45 messages buffered before the connect are all done": { run: buffered("/") },
  "45 messages buffered before the connect to /notifications are all done": { run: buffered("/notifications") },
  "100 messages of one turn are all done": { run: inOneTurn("/") },
  "100 messages of one turn in /notifications are all done": { run: inOneTurn("/notifications") },
  "what is created right behind the connect is received": { run: rightBehindConnect("/") },
  "what is created right behind the connect to /notifications is received": {
    run: rightBehindConnect("/notifications"),
  },
  "1,000 ids of 128 characters in one message are acknowledged": { run: manyLongIds },
  "a device that sends too large a message is back": { run: tooLarge },
  "too large a message is given up after its retries": { ...v4, run: tooLargeWithRetries },
  "a message whose ack is lost is retried and done once": { ...v4, run: lostAck },
  "a device that loses a poll response catches up": { transports: ["polling"], run: lostPollResponse },
  "a WebSocket with a protocol connects": { ...webSockets, run: choosesProtocol(["notify.v1"]) },
  "a WebSocket with several protocols connects with the first": {
    ...webSockets,
    run: choosesProtocol(["notify.v2", "notify.v1"]),
  },
};
