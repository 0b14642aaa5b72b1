// Several namespaces on one connection: they do not affect each other.

import { ensure, equal, NAMESPACES, pause, until } from "./fixture.mjs";

/** `kept` is connected; `other` shares its connection and is not yet. */
async function pair(fixture, kept, { options, auth } = {}) {
  const manager = fixture.manager(options);
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const place = {
    ada,
    ben,
    manager,
    kept: fixture.device(manager, kept, ada),
    other: fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben, auth),
  };
  await fixture.connect(place.kept);
  return place;
}

async function keepsReceiving(fixture, { ada, kept, manager }, ...expected) {
  await fixture.notify(ada, "afterwards");
  await kept.received("afterwards");
  equal("reasons for a closed transport", manager.closes, []);
  equal("disconnects of the kept namespace", kept.disconnects, []);
  equal("connects of the kept namespace", kept.connects, 1);
  equal("received by the kept namespace", kept.ids, [...expected, "afterwards"]);
}

/** As an effect that is run twice does it. */
async function leftAtOnce(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ben, other } = place;
  other.socket.connect();
  other.socket.disconnect();
  await pause(500);
  other.socket.connect();
  await other.connected(1);
  await fixture.flush(ben, other);
  equal("notifications of the other namespace", other.ids.length, 1);
  await keepsReceiving(fixture, place);
}

async function leftAndEnteredInOneTurn(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ben, other } = place;
  other.socket.connect();
  await other.connected(1);
  other.socket.disconnect();
  other.socket.connect();
  await other.connected(2);
  await fixture.flush(ben, other);
  equal("notifications of the other namespace", other.ids.length, 1);
  await keepsReceiving(fixture, place);
}

/** Begins before the upgrade, where there is one, and goes on after it. */
async function leftAndEnteredAgainAndAgain(fixture, kept) {
  const TIMES = 60;
  const manager = fixture.manager();
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const place = { ada, ben, manager, kept: fixture.device(manager, kept, ada) };
  const other = fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben);
  place.kept.socket.connect();
  await place.kept.until("received notification:sync", () => place.kept.named("notification:sync").length > 0);
  const sent = [];
  other.socket.connect();
  for (let n = 0; n < TIMES; n += 1) {
    await other.until("connected", () => other.socket.connected);
    if (n % 10 === 0) await fixture.served(ben, other);
    sent.push(`n${n}`);
    const notified = fixture.notify(ada, `n${n}`);
    other.socket.disconnect();
    // Every other time the first CONNECT is not awaited either.
    if (n % 2 === 0) other.socket.connect().disconnect();
    other.socket.connect();
    await notified;
  }
  await fixture.served(ben, other);
  equal("notifications that the other namespace received twice", repeated(other.ids), []);
  await place.kept.received(sent.at(-1));
  await keepsReceiving(fixture, place, ...sent);
}

/** It is left while the server prepares what follows the connect. */
async function leftRightBehindTheConnect(fixture, kept) {
  const TIMES = 40;
  const place = await pair(fixture, kept);
  const { ada, other } = place;
  other.socket.on("connect", () => other.socket.disconnect());
  const sent = [];
  for (let n = 1; n <= TIMES; n += 1) {
    other.socket.connect();
    sent.push(`n${n}`);
    const notified = fixture.notify(ada, `n${n}`);
    await other.until(`connected and left ${n} times`, () => other.connects >= n && !other.socket.connected);
    await notified;
  }
  await keepsReceiving(fixture, place, ...sent);
}

const repeated = (ids) => ids.filter((id, n) => ids.indexOf(id) !== n);

/** Two CONNECT packets for one namespace, the second as another user: the page has signed in with another account. */
const takenOver = (again) => async (fixture, kept) => {
  const place = await pair(fixture, kept);
  const [bob, cy] = [place.ben, fixture.user("cy")];
  const { other } = place;
  other.socket.connect();
  again(other.socket, { token: fixture.token(cy) });
  await other.connected(1);
  await fixture.served(cy, other);
  const before = other.ids.length;
  await fixture.fill(bob, 3, (n) => `for-bob-${n}`);
  await fixture.fill(cy, 3, (n) => `for-cy-${n}`);
  await other.received("for-cy-2");
  await fixture.notify(bob, "late-for-bob");
  await fixture.notify(cy, "late-for-cy");
  await other.received("late-for-cy");
  equal("received by cy's page", other.ids.slice(before), ["for-cy-0", "for-cy-1", "for-cy-2", "late-for-cy"]);
  await keepsReceiving(fixture, place);
};

/** The first CONNECT may be answered before the second is received: then the client is connected and
 *  sends while the server authenticates it anew. */
async function eventBehindTwoConnects(fixture, kept) {
  const TIMES = 20;
  const place = await pair(fixture, kept);
  const { other } = place;
  for (let n = 0; n < TIMES; n += 1) {
    other.socket.connect();
    other.socket.disconnect();
    other.socket.connect();
    await other.until("connected", () => other.socket.connected);
    equal(`ack ${n}`, (await other.call("notification:unread_count")).status, "ok");
    other.socket.disconnect();
  }
  await keepsReceiving(fixture, place);
}

function connectsAgain(socket, auth) {
  socket.auth = auth;
  socket.connect();
}

function leavesAndConnectsAgain(socket, auth) {
  socket.disconnect();
  socket.auth = auth;
  socket.connect();
}

/** After a session of bob's that was connected. */
async function userChanged(fixture, kept) {
  const place = await pair(fixture, kept);
  const [bob, cy] = [place.ben, fixture.user("cy")];
  const { other } = place;
  other.socket.connect();
  await other.connected(1);
  await fixture.notify(bob, "for-bob");
  await other.received("for-bob");
  leavesAndConnectsAgain(other.socket, { token: fixture.token(cy) });
  await other.connected(2);
  await fixture.notify(bob, "late-for-bob");
  await fixture.notify(cy, "for-cy");
  await other.received("for-cy");
  equal("received", other.ids, ["for-bob", "for-cy"]);
  await keepsReceiving(fixture, place);
}

async function refused(fixture, kept) {
  const place = await pair(fixture, kept, { auth: { token: "not a token" } });
  const { other } = place;
  other.socket.connect();
  await other.until("refused", () => other.refusals.length > 0);
  equal("refusals", other.refusals, ["token_invalid"]);
  await keepsReceiving(fixture, place);
  // And by the same transport it can connect after all.
  other.socket.auth = { token: fixture.token(place.ben) };
  other.socket.connect();
  await other.connected(1);
  await fixture.flush(place.ben, other);
  equal("reasons for a closed transport", place.manager.closes, []);
}

/** The namespace that is refused is the first on the connection. */
async function refusedFirst(fixture, kept) {
  const manager = fixture.manager();
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const other = fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben, { token: "not a token" });
  const place = { ada, manager, kept: fixture.device(manager, kept, ada) };
  other.socket.connect();
  place.kept.socket.connect();
  await place.kept.connected(1);
  await other.until("refused", () => other.refusals.length > 0);
  await place.kept.until("received notification:sync", () => place.kept.named("notification:sync").length > 0);
  await keepsReceiving(fixture, place);
}

async function expired(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ben, other } = place;
  // A second of validity may be over as soon as it begins.
  other.socket.auth = { token: fixture.token(ben, { expiresIn: 3 }) };
  other.socket.connect();
  await other.connected(1);
  await other.until("disconnected", () => other.disconnects.length > 0);
  equal("disconnects", other.disconnects, ["io server disconnect"]);
  equal("exceptions", other.named("exception").map(({ code }) => code), ["token_expired"]);
  // At once, by the same transport, with a token that is good.
  other.socket.auth = { token: fixture.token(ben) };
  other.socket.connect();
  await other.connected(2);
  await fixture.flush(ben, other);
  await keepsReceiving(fixture, place);
}

async function revoked(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ben, other } = place;
  other.socket.connect();
  await other.connected(1);
  await fixture.revoke(ben);
  await other.until("disconnected", () => other.disconnects.length > 0);
  equal("disconnects", other.disconnects, ["io server disconnect"]);
  await keepsReceiving(fixture, place);
  // Tokens that were issued before the revocation, to the second, stay out.
  other.socket.connect();
  await other.until("refused", () => other.refusals.length > 0);
  equal("refusals", other.refusals, ["token_revoked"]);
  equal("reasons for a closed transport", place.manager.closes, []);
}

/** A CONNECT right behind the server's DISCONNECT, sent from the handler of the event. */
async function backAtOnce(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ben, other } = place;
  const TIMES = 3;
  other.socket.auth = (answer) => answer({ token: fixture.token(ben, { expiresIn: 2 }) });
  other.socket.on("disconnect", () => {
    if (other.disconnects.length === TIMES) other.socket.auth = { token: fixture.token(ben) };
    other.socket.connect();
  });
  other.socket.connect();
  await other.until("back each time", () => other.connects > TIMES && other.socket.connected);
  equal("disconnects", other.disconnects, Array(TIMES).fill("io server disconnect"));
  await fixture.flush(ben, other);
  await keepsReceiving(fixture, place);
}

async function slowAuthentication(fixture, kept) {
  const manager = fixture.manager();
  const ada = fixture.user("ada");
  let asked = 0;
  const device = fixture.device(manager, kept, ada, (answer) => {
    asked += 1;
    setTimeout(() => answer({ token: fixture.token(ada) }), 6_000);
  });
  await fixture.connect(device);
  await fixture.flush(ada, device);
  equal("times that a token was asked for", asked, 1);
  equal("refusals", device.refusals, []);
  equal("reasons for a closed transport", manager.closes, []);
}

/** As a client that polls connects to two namespaces: by two requests, here the second one behind the refusal. */
async function postBehindARefusal(fixture) {
  const url = new URL("/socket.io/?EIO=4&transport=polling", fixture.url);
  const { sid } = JSON.parse((await (await fetch(url)).text()).slice(1));
  url.searchParams.set("sid", sid);
  const post = async (packet) => {
    const response = await fetch(url, { method: "POST", body: packet, signal: AbortSignal.timeout(30_000) });
    await response.text();
  };
  await post('40/notifications,{"token":"not a token"}');
  await post(`40{"token":"${fixture.token(fixture.user("ada"))}"}`);
}

/** Applications show and log `socket.id`. It must be of no use to an attacker. */
async function publicId(fixture, kept) {
  const place = await pair(fixture, kept);
  const { ada, ben, other, manager } = place;
  const devices = [place.kept, other];
  other.socket.connect();
  await other.connected(1);
  await fixture.notify(ada, "unread");
  await place.kept.received("unread");
  const ids = [manager.engine.id, ...devices.map(({ socket }) => socket.id)];
  ensure(`ids that are the same: ${ids.join(", ")}`, new Set(ids).size === 3);
  for (const { socket } of devices) {
    const sid = encodeURIComponent(socket.id);
    const path = `/socket.io/?EIO=4&sid=${sid}`;
    const markRead = '42["notification:mark_read",{"id":"unread"}]';
    for (const [method, body] of [["POST", markRead], ["GET", undefined]]) {
      const response = await fetch(new URL(`${path}&transport=polling`, fixture.url), { method, body });
      equal(`${method} with a socket.id`, response.status, 400);
    }
    const webSocket = new URL(`${path}&transport=websocket`, fixture.url);
    equal("a WebSocket with a socket.id", await webSocketStatus(webSocket), 400);
  }
  const { count } = await fixture.rest("GET", "/v1/notifications/unread-count", fixture.token(ada));
  equal("unread", count, 1);
  await fixture.flush(ben, other);
  await keepsReceiving(fixture, place, "unread");
}

/** The status that a request for a WebSocket is refused with; 101 if it is not. */
async function webSocketStatus(url) {
  const { WebSocket } = await import("ws");
  url.protocol = "ws:";
  const socket = new WebSocket(url);
  let status;
  socket.on("unexpected-response", (_, response) => {
    status = response.statusCode;
    response.destroy();
    socket.terminate();
  });
  socket.on("open", () => {
    status = 101;
    socket.terminate();
  });
  socket.on("error", () => {});
  return until("an answer to the request for a WebSocket", () => status);
}

const scenarios = {
  "a namespace that is left at once can be entered later": leftAtOnce,
  "a namespace that is left and entered in one turn connects again": leftAndEnteredInOneTurn,
  "a namespace that is left and entered 60 times connects each time": leftAndEnteredAgainAndAgain,
  "a namespace that is left right behind its connect leaves the other connected": leftRightBehindTheConnect,
  "a second connect as another user receives only that user's notifications": takenOver(connectsAgain),
  "a second connect as another user behind a leave receives only that user's notifications":
    takenOver(leavesAndConnectsAgain),
  "an event behind two connects is answered": eventBehindTwoConnects,
  "a namespace that is entered as another user receives nothing of the first": userChanged,
  "a refused namespace leaves the other connected and can be entered with a good token": refused,
  "a namespace that is refused first leaves the other connected": refusedFirst,
  "an expired token ends one namespace and can be replaced": expired,
  "a revoked token ends one namespace": revoked,
  "a connect right behind the server's disconnect is answered": backAtOnce,
  "a token that takes six seconds to fetch is awaited": slowAuthentication,
  "socket.id is no Engine.IO sid and opens nothing": publicId,
};

// Each with either namespace as the one that stays.
const withEither = Object.entries(scenarios).flatMap(([name, run]) =>
  NAMESPACES.map((kept) => [`${name} (beside ${kept})`, { run: (fixture) => run(fixture, kept) }]),
);

export const namespaces = {
  ...Object.fromEntries(withEither),
  "packets posted behind a refusal are answered": {
    clients: ["4"],
    transports: ["polling"],
    run: postBehindARefusal,
  },
};
