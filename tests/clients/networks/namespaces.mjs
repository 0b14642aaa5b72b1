// Several namespaces on one connection: they do not affect each other.

import { ensure, equal, NAMESPACES, pause, until } from "./fixture.mjs";

/** Two devices on one connection, each in its own namespace and with its own user. `kept` is connected, `other` is not
 *  connected yet. */
async function setUp(fixture, kept, { options, auth } = {}) {
  const manager = fixture.manager(options);
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const setup = {
    ada,
    ben,
    manager,
    kept: fixture.device(manager, kept, ada),
    other: fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben, auth),
  };
  await fixture.connect(setup.kept);
  return setup;
}

/** Ensures that `kept` was not affected: it has received `expected`, and it still receives notifications. */
async function ensureKeptReceives(fixture, { ada, kept, manager }, ...expected) {
  await fixture.notify(ada, "afterwards");
  await kept.received("afterwards");
  equal("reasons for a closed transport", manager.closes, []);
  equal("disconnects of the kept namespace", kept.disconnects, []);
  equal("connects of the kept namespace", kept.connects, 1);
  equal("received by the kept namespace", kept.ids, [...expected, "afterwards"]);
}

/** As in React's strict mode, which runs an effect twice. */
async function leftAtOnce(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const { ben, other } = setup;
  other.socket.connect();
  other.socket.disconnect();
  await pause(500);
  other.socket.connect();
  await other.connected(1);
  await fixture.flush(ben, other);
  equal("notifications of the other namespace", other.ids.length, 1);
  await ensureKeptReceives(fixture, setup);
}

async function leftAndEnteredInOneTurn(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const { ben, other } = setup;
  other.socket.connect();
  await other.connected(1);
  other.socket.disconnect();
  other.socket.connect();
  await other.connected(2);
  await fixture.flush(ben, other);
  equal("notifications of the other namespace", other.ids.length, 1);
  await ensureKeptReceives(fixture, setup);
}

/** With the transport "upgrade", this begins before the upgrade and continues after it. */
async function leftAndEnteredAgainAndAgain(fixture, kept) {
  const TIMES = 60;
  const manager = fixture.manager();
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const setup = { ada, ben, manager, kept: fixture.device(manager, kept, ada) };
  const other = fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben);
  setup.kept.socket.connect();
  await setup.kept.until("received notification:sync", () => setup.kept.named("notification:sync").length > 0);
  const sent = [];
  other.socket.connect();
  for (let n = 0; n < TIMES; n += 1) {
    await other.until("connected", () => other.socket.connected);
    if (n % 10 === 0) await fixture.untilServed(ben, other);
    sent.push(`n${n}`);
    const notified = fixture.notify(ada, `n${n}`);
    other.socket.disconnect();
    // In every other round there is one more connect and disconnect, without a wait.
    if (n % 2 === 0) other.socket.connect().disconnect();
    other.socket.connect();
    await notified;
  }
  await fixture.untilServed(ben, other);
  equal("notifications that the other namespace received twice", repeated(other.ids), []);
  await setup.kept.received(sent.at(-1));
  await ensureKeptReceives(fixture, setup, ...sent);
}

/** The other namespace is left while the server prepares the events that follow its connect. */
async function leftRightAfterTheConnect(fixture, kept) {
  const TIMES = 40;
  const setup = await setUp(fixture, kept);
  const { ada, other } = setup;
  other.socket.on("connect", () => other.socket.disconnect());
  const sent = [];
  for (let n = 1; n <= TIMES; n += 1) {
    other.socket.connect();
    sent.push(`n${n}`);
    const notified = fixture.notify(ada, `n${n}`);
    await other.until(`connected and left ${n} times`, () => other.connects >= n && !other.socket.connected);
    await notified;
  }
  await ensureKeptReceives(fixture, setup, ...sent);
}

const repeated = (ids) => ids.filter((id, n) => ids.indexOf(id) !== n);

/** Two CONNECT packets for one namespace, the second as another user: the page has signed in with another account. */
const takenOver = (again) => async (fixture, kept) => {
  const setup = await setUp(fixture, kept);
  const [bob, cy] = [setup.ben, fixture.user("cy")];
  const { other } = setup;
  other.socket.connect();
  again(other.socket, { token: fixture.token(cy) });
  await other.connected(1);
  await fixture.untilServed(cy, other);
  const before = other.ids.length;
  await fixture.fill(bob, 3, (n) => `for-bob-${n}`);
  await fixture.fill(cy, 3, (n) => `for-cy-${n}`);
  await other.received("for-cy-2");
  await fixture.notify(bob, "late-for-bob");
  await fixture.notify(cy, "late-for-cy");
  await other.received("late-for-cy");
  equal("received by cy's page", other.ids.slice(before), ["for-cy-0", "for-cy-1", "for-cy-2", "late-for-cy"]);
  await ensureKeptReceives(fixture, setup);
};

/** The server may answer the first CONNECT before it receives the second. Then the client is connected, and sends an
 *  event while the server authenticates it again. */
async function eventAfterTwoConnects(fixture, kept) {
  const TIMES = 20;
  const setup = await setUp(fixture, kept);
  const { other } = setup;
  for (let n = 0; n < TIMES; n += 1) {
    other.socket.connect();
    other.socket.disconnect();
    other.socket.connect();
    await other.until("connected", () => other.socket.connected);
    equal(`ack ${n}`, (await other.call("notification:unread_count")).status, "ok");
    other.socket.disconnect();
  }
  await ensureKeptReceives(fixture, setup);
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

/** Bob's session ends, and cy enters the namespace. */
async function userChanged(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const [bob, cy] = [setup.ben, fixture.user("cy")];
  const { other } = setup;
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
  await ensureKeptReceives(fixture, setup);
}

async function refused(fixture, kept) {
  const setup = await setUp(fixture, kept, { auth: { token: "not a token" } });
  const { other } = setup;
  other.socket.connect();
  await other.until("refused", () => other.refusals.length > 0);
  equal("refusals", other.refusals, ["token_invalid"]);
  await ensureKeptReceives(fixture, setup);
  // On the same connection it can connect with a good token.
  other.socket.auth = { token: fixture.token(setup.ben) };
  other.socket.connect();
  await other.connected(1);
  await fixture.flush(setup.ben, other);
  equal("reasons for a closed transport", setup.manager.closes, []);
}

/** The namespace that is refused is the first on the connection. */
async function refusedFirst(fixture, kept) {
  const manager = fixture.manager();
  const [ada, ben] = [fixture.user("ada"), fixture.user("ben")];
  const other = fixture.device(manager, NAMESPACES.find((one) => one !== kept), ben, { token: "not a token" });
  const setup = { ada, manager, kept: fixture.device(manager, kept, ada) };
  other.socket.connect();
  setup.kept.socket.connect();
  await setup.kept.connected(1);
  await other.until("refused", () => other.refusals.length > 0);
  await setup.kept.until("received notification:sync", () => setup.kept.named("notification:sync").length > 0);
  await ensureKeptReceives(fixture, setup);
}

async function expired(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const { ben, other } = setup;
  // `exp` is in whole seconds: a token that is valid for one second may expire at once.
  other.socket.auth = { token: fixture.token(ben, { expiresIn: 3 }) };
  other.socket.connect();
  await other.connected(1);
  await other.until("disconnected", () => other.disconnects.length > 0);
  equal("disconnects", other.disconnects, ["io server disconnect"]);
  equal("exceptions", other.named("exception").map(({ code }) => code), ["token_expired"]);
  // It can connect at once, on the same connection, with a good token.
  other.socket.auth = { token: fixture.token(ben) };
  other.socket.connect();
  await other.connected(2);
  await fixture.flush(ben, other);
  await ensureKeptReceives(fixture, setup);
}

async function revoked(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const { ben, other } = setup;
  other.socket.connect();
  await other.connected(1);
  await fixture.revoke(ben);
  await other.until("disconnected", () => other.disconnects.length > 0);
  equal("disconnects", other.disconnects, ["io server disconnect"]);
  await ensureKeptReceives(fixture, setup);
  // The token stays revoked.
  other.socket.connect();
  await other.until("refused", () => other.refusals.length > 0);
  equal("refusals", other.refusals, ["token_revoked"]);
  equal("reasons for a closed transport", setup.manager.closes, []);
}

/** A CONNECT right after the server's DISCONNECT, sent from the handler of the event. */
async function backAtOnce(fixture, kept) {
  const setup = await setUp(fixture, kept);
  const { ben, other } = setup;
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
  await ensureKeptReceives(fixture, setup);
}

async function slowAuthentication(fixture, kept) {
  const manager = fixture.manager();
  const ada = fixture.user("ada");
  let fetches = 0;
  const device = fixture.device(manager, kept, ada, (answer) => {
    fetches += 1;
    setTimeout(() => answer({ token: fixture.token(ada) }), 6_000);
  });
  await fixture.connect(device);
  await fixture.flush(ada, device);
  equal("number of token fetches", fetches, 1);
  equal("refusals", device.refusals, []);
  equal("reasons for a closed transport", manager.closes, []);
}

/** A polling client connects to two namespaces by two requests. Here it sends the second one after the first connect was
 *  refused. */
async function postAfterARefusal(fixture) {
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
  const setup = await setUp(fixture, kept);
  const { ada, ben, other, manager } = setup;
  const devices = [setup.kept, other];
  other.socket.connect();
  await other.connected(1);
  await fixture.notify(ada, "unread");
  await setup.kept.received("unread");
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
  await ensureKeptReceives(fixture, setup, "unread");
}

/** The status of the response to a request for a WebSocket; 101 if it is accepted. */
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
  "a namespace that is left right after its connect leaves the other connected": leftRightAfterTheConnect,
  "a second connect as another user receives only that user's notifications": takenOver(connectsAgain),
  "a second connect as another user after a leave receives only that user's notifications":
    takenOver(leavesAndConnectsAgain),
  "an event after two connects is acknowledged": eventAfterTwoConnects,
  "a namespace that is entered as another user receives nothing of the first": userChanged,
  "a refused namespace leaves the other connected and can be entered with a good token": refused,
  "a namespace that is refused first leaves the other connected": refusedFirst,
  "an expired token ends one namespace and can be replaced": expired,
  "a revoked token ends one namespace": revoked,
  "a connect right after the server's disconnect succeeds": backAtOnce,
  "a client whose token takes six seconds to fetch connects": slowAuthentication,
  "socket.id is not the Engine.IO sid and gives no access": publicId,
};

// Each scenario runs twice, with either namespace as `kept`.
const withEither = Object.entries(scenarios).flatMap(([name, run]) =>
  NAMESPACES.map((kept) => [`${name} (beside ${kept})`, { run: (fixture) => run(fixture, kept) }]),
);

export const namespaces = {
  ...Object.fromEntries(withEither),
  "packets posted after a refusal get a response": {
    clients: ["4"],
    transports: ["polling"],
    run: postAfterARefusal,
  },
};
