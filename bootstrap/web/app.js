// Belfry's demo page: a client of the public wire and nothing else. What a real application needs is in
// `Inbox` (the rules that keep a device right) and `Session` (token, REST, socket); the rest is this page.

/* ---- Inbox: what this device knows, and what may replace it ---- */

class Inbox {
  constructor() {
    this.epoch = null;
    this.stale = true;
    this.nextCursor = null;
    this.forget();
  }

  /** Revisions of another epoch mean nothing here: everything seen so far is dropped. */
  forget() {
    this.items = new Map();
    this.deleted = new Set();
    this.since = null;
    /** Up to here a replay may leave revisions out: what came and went while this device was away. */
    this.replayedTo = 0;
    /** A revision was skipped: an event was lost on its way, and `since` stays before it. */
    this.gap = false;
    this.unread = 0;
    this.countRevision = -1;
    this.listNeeds = 0;
  }

  adoptEpoch(epoch) {
    if (this.epoch !== null && this.epoch !== epoch) this.forget();
    this.epoch = epoch;
  }

  /** `auth.since` and `auth.epoch` of the next handshake; left out while nothing is known. */
  get seen() {
    return this.since === null ? {} : { since: this.since, epoch: this.epoch };
  }

  /** Every change takes the next revision, so a skipped one shows that an event was lost. `true` once for
   *  each gap: then the device asks for what it missed. */
  noticeGap(revision) {
    if (this.gap || this.since === null || !Number.isInteger(revision)) return false;
    this.gap = revision > Math.max(this.since, this.replayedTo) + 1;
    return this.gap;
  }

  advance(revision) {
    if (this.gap) return;
    if (Number.isInteger(revision) && (this.since === null || revision > this.since)) this.since = revision;
  }

  /** Counts may overtake each other on their way; an older one never replaces a newer one. */
  takeCount(count, revision) {
    if (revision < this.countRevision) return;
    this.unread = count;
    this.countRevision = revision;
  }

  takeSync({ epoch, revision, unreadCount, recovered }) {
    this.adoptEpoch(epoch);
    this.replayedTo = revision;
    this.gap = false;
    this.takeCount(unreadCount, revision);
    if (!recovered) {
      this.stale = true;
      this.listNeeds = revision;
      this.since = revision;
      // A page from before this revision is loaded again, so none brings a deleted one back. After the user
      // was erased, an id may be used again.
      this.deleted.clear();
    }
    // Else what was missed follows, and its own revisions count: taking this one now would lose it if
    // the connection broke in between.
  }

  takeCountEvent({ count, revision }) {
    this.takeCount(count, revision);
    this.advance(revision);
  }

  /** Answers whether it was news: the same notification may come live, as a replay and by REST. */
  takeNotification(notification) {
    this.advance(notification.revision);
    return this.keep(notification);
  }

  keep(notification) {
    const { id, revision } = notification;
    if (this.deleted.has(id)) return false;
    const known = this.items.get(id);
    if (!known || known.revision < revision) this.items.set(id, notification);
    return !known;
  }

  takeMarkedRead({ ids, all, readAt, revision }) {
    this.advance(revision);
    const meant = all
      ? [...this.items.values()].filter((item) => item.revision < revision)
      : (ids ?? []).map((id) => this.items.get(id)).filter(Boolean);
    for (const item of meant) this.setRead(item.id, readAt, revision);
  }

  setRead(id, readAt, revision) {
    const item = this.items.get(id);
    if (!item || item.isRead) return;
    this.items.set(id, { ...item, isRead: true, readAt, revision: Math.max(item.revision, revision ?? 0) });
  }

  takeDeleted({ ids, revision }) {
    this.advance(revision);
    for (const id of ids ?? []) this.drop(id);
  }

  /** Kept in mind, so that a page of the list that was on its way does not bring it back. */
  drop(id) {
    this.deleted.add(id);
    this.items.delete(id);
  }

  takeFirstPage(page) {
    this.adoptEpoch(page.epoch);
    // What came after the page was read stays; all else is what the page says.
    for (const item of [...this.items.values()]) {
      if (item.revision <= page.revision) this.items.delete(item.id);
    }
    this.takeNextPage(page);
    this.takeCount(page.unreadCount, page.revision);
    this.gap = false;
    this.advance(page.revision);
    // A page that was read before the sync which asked for it does not have what the sync skipped.
    this.stale = page.revision < this.listNeeds;
  }

  takeNextPage(page) {
    page.items.forEach((item) => this.keep(item));
    this.nextCursor = page.nextCursor;
  }

  newestFirst() {
    return [...this.items.values()].sort(
      (a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt) || (a.id < b.id ? 1 : -1),
    );
  }
}

/* ---- Session: one user signed in, over REST and Socket.IO ---- */

const ACK_TIMEOUT_MS = 5_000;
const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 30_000;
const PAGE_SIZE = 20;
const TOKEN_TROUBLE = ["token_missing", "token_invalid", "token_expired"];

/** What a person is told: a problem document's `detail`, or the message of a refused ack. */
class Refusal extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }

  static async of(response) {
    const problem = await response.json().catch(() => ({}));
    return new Refusal(problem.detail ?? problem.title ?? `The server answered ${response.status}.`, response.status);
  }
}

class Session {
  /** `on` has: change(), arrived(notification), state(word), wire(way, name, args), trouble(error or null). */
  constructor(user, on) {
    this.user = user;
    this.on = on;
    this.inbox = new Inbox();
    this.unreadOnly = false;
    this.loading = 0;
    this.failures = 0;
    this.connectedAt = Infinity;
    this.over = false;
  }

  async start() {
    this.on.state("connecting");
    try {
      await this.renewToken();
      await this.reload();
    } catch (error) {
      // The socket tries again by itself, and its first event says whether the list has to be loaded.
      this.on.trouble(error);
    }
    if (!this.over) this.connect();
  }

  stop() {
    this.over = true;
    clearTimeout(this.retry);
    this.socket?.disconnect();
  }

  connect() {
    const socket = io({
      // Relative to the page, as all its URLs: the server may be under a base path.
      path: new URL("socket.io/", document.baseURI).pathname,
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      autoConnect: false,
      forceNew: true,
      // A function: every reconnect sends the newest token and what has been seen by then.
      auth: (answer) => answer({ token: this.token, ...this.inbox.seen }),
    });
    this.socket = socket;
    this.listen(socket);
    socket.connect();
  }

  listen(socket) {
    const { inbox, on } = this;
    const handle = (name, take) =>
      socket.on(name, (payload) => {
        if (name !== "notification:sync" && inbox.noticeGap(payload?.revision)) this.askForMissed();
        take(payload);
        on.change();
      });

    handle("notification:sync", (sync) => {
      inbox.takeSync(sync);
      if (inbox.stale) this.catchUp();
    });
    handle("notification:new", (notification) => {
      if (inbox.takeNotification(notification) && !notification.isRead) on.arrived(notification);
    });
    handle("notification:unread_count", (count) => inbox.takeCountEvent(count));
    handle("notification:marked_read", (event) => inbox.takeMarkedRead(event));
    handle("notification:deleted", (event) => inbox.takeDeleted(event));

    socket.on("auth:expiring", () => this.goOn().catch(on.trouble));
    socket.on("exception", ({ code, message }) => {
      // An expired token is followed by a disconnect, and that by a new sign-in.
      if (code !== "token_expired") on.trouble(new Refusal(message, code));
    });

    socket.on("connect", () => {
      this.connectedAt = performance.now();
      on.state("connected");
    });
    socket.io.on("reconnect_attempt", () => on.state("connecting"));
    socket.on("disconnect", () => this.onLost(socket.active));
    socket.on("connect_error", ({ message }) => this.onLost(socket.active, message));
    socket.onAny((name, ...args) => on.wire("in", name, args));
    socket.onAnyOutgoing((name, ...args) => on.wire("out", name, args));
  }

  async askForMissed() {
    try {
      await this.ask("notification:sync", this.inbox.seen);
    } catch (error) {
      // The next event shows the gap again.
      this.inbox.gap = false;
      this.on.trouble(error);
    }
  }

  /** `active`: the library tries again by itself. It does not once the server has turned it away. */
  onLost(active, code) {
    if (this.over) return;
    this.on.state("disconnected");
    // A session that held for a while was sound; one that is ended at once must not be retried in a loop.
    if (performance.now() - this.connectedAt > PAUSE_MAX_MS) this.failures = 0;
    this.connectedAt = Infinity;
    if (active) return;
    // Turned away at the handshake for another reason than the token: the token may still be good.
    const needsToken = code === undefined || TOKEN_TROUBLE.includes(code);
    if (!needsToken) this.on.trouble(new Refusal(`The server refused the connection: ${code}`, code));
    this.connectAfterPause(needsToken);
  }

  connectAfterPause(needsToken) {
    const pause = Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** this.failures++);
    clearTimeout(this.retry);
    this.retry = setTimeout(async () => {
      this.on.state("connecting");
      try {
        if (needsToken) await this.renewToken();
        if (!this.over) this.socket.connect();
      } catch {
        if (this.over) return;
        this.on.state("disconnected");
        this.connectAfterPause(needsToken);
      }
    }, pause);
  }

  /** Hands over a new token before the old one ends: the session goes on without a reconnect. */
  async goOn() {
    await this.renewToken();
    await this.ask("auth:refresh", { token: this.token });
  }

  async renewToken() {
    const { token } = await this.fetchJson("dev/token", { method: "POST", body: { user: this.user } });
    this.token = token;
  }

  /** Tries until it has the list: events alone do not say what there was before them. */
  async catchUp() {
    if (this.catchingUp) return;
    this.catchingUp = true;
    for (let pause = PAUSE_MIN_MS; this.inbox.stale && !this.over; pause = Math.min(PAUSE_MAX_MS, 2 * pause)) {
      try {
        await this.reload();
        this.on.trouble(null);
      } catch (error) {
        this.on.trouble(error);
      }
      if (this.inbox.stale) await new Promise((resume) => setTimeout(resume, pause));
    }
    this.catchingUp = false;
  }

  async reload() {
    this.generation = (this.generation ?? 0) + 1;
    await this.load(null, (page) => this.inbox.takeFirstPage(page));
  }

  async loadMore() {
    await this.load(this.inbox.nextCursor, (page) => this.inbox.takeNextPage(page));
  }

  async load(cursor, take) {
    const { generation } = this;
    const query = new URLSearchParams({ limit: PAGE_SIZE });
    if (cursor) query.set("cursor", cursor);
    if (this.unreadOnly) query.set("unread", "true");
    this.loading += 1;
    this.on.change();
    try {
      const page = await this.call("GET", `v1/notifications?${query}`);
      // A reload started meanwhile: this answer belongs to the list it replaces.
      if (generation === this.generation) take(page);
    } finally {
      this.loading -= 1;
      this.on.change();
    }
  }

  async showUnreadOnly(unreadOnly) {
    this.unreadOnly = unreadOnly;
    this.inbox.nextCursor = null;
    await this.reload();
  }

  async markRead(id) {
    await this.ask("notification:mark_read", { id });
    this.inbox.setRead(id, new Date().toISOString());
    this.on.change();
  }

  async markAllRead() {
    await this.ask("notification:mark_all_read");
  }

  async remove(id) {
    await this.ask("notification:delete", { id });
    this.inbox.drop(id);
    this.on.change();
  }

  async send(notification, idempotencyKey) {
    await this.call("POST", "v1/notifications", notification, { "Idempotency-Key": idempotencyKey });
  }

  async ask(name, ...args) {
    // The library would keep it and send it whenever it is back: too late for a click.
    if (!this.socket?.connected) throw new Refusal("Not connected. Try again in a moment.");
    const answer = await this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck(name, ...args).catch(() => {
      throw new Refusal("The server did not answer. Nothing was changed as far as this page knows.");
    });
    if (answer?.status === "error") throw new Refusal(answer.message ?? answer.code, answer.code);
    return answer?.data;
  }

  async call(method, path, body, headers) {
    const authorised = () => ({ ...headers, Authorization: `Bearer ${this.token}` });
    try {
      return await this.fetchJson(path, { method, body, headers: authorised() });
    } catch (error) {
      if (error.code !== 401) throw error;
      await this.renewToken();
      return this.fetchJson(path, { method, body, headers: authorised() });
    }
  }

  async fetchJson(path, { method, body, headers }) {
    const json = body === undefined ? {} : { "Content-Type": "application/json" };
    const response = await fetch(path, {
      method,
      headers: { Accept: "application/json", ...json, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    }).catch(() => {
      throw new Refusal("The server cannot be reached.");
    });
    if (!response.ok) throw await Refusal.of(response);
    return response.status === 204 ? undefined : response.json();
  }
}

/* ---- The page ---- */

const USERS = ["alice", "bob"];
const TOASTS_AT_ONCE = 3;
const TOAST_MS = 6_000;
const WIRE_LINES = 40;

const byId = (id) => document.getElementById(id);
const clone = (template) => byId(template).content.firstElementChild.cloneNode(true);

let session;

function signIn(user) {
  session?.stop();
  byId("items").replaceChildren();
  byId("wire").replaceChildren();
  byId("toasts").replaceChildren();
  byId("unread-only").checked = false;
  showOutcome("none", "");
  showProblem(null);
  showUser(user);

  // A session that was replaced may still have an answer on its way: it must not draw any more.
  const ifCurrent = (draw) => (...args) => current === session && draw(...args);
  const current = new Session(user, {
    change: ifCurrent(draw),
    arrived: ifCurrent(showToast),
    state: ifCurrent(showState),
    wire: ifCurrent(showWire),
    trouble: ifCurrent(showProblem),
  });
  session = current;
  current.start();
}

function showUser(user) {
  for (const button of document.querySelectorAll("[data-user]")) {
    button.setAttribute("aria-pressed", String(button.dataset.user === user));
  }
  const recipient = byId("send-form").elements.userId;
  for (const option of recipient.options) {
    option.textContent = option.value === user ? `${option.value} (you)` : option.value;
  }
  recipient.value = user;
  const url = new URL(location.href);
  url.searchParams.set("user", user);
  history.replaceState(null, "", url);
}

function showState(word) {
  byId("state").textContent = word;
  byId("state-pill").dataset.state = word;
  if (word === "connected") showProblem(null);
}

function draw() {
  drawCount(session.inbox.unread);
  drawItems();
}

function drawCount(unread) {
  const badge = byId("badge");
  badge.hidden = unread === 0;
  badge.textContent = unread > 99 ? "99+" : String(unread);
  const words = unread === 0 ? "No unread notifications" : `${unread} unread notification${unread === 1 ? "" : "s"}`;
  byId("bell").setAttribute("aria-label", words);
  setOff(byId("mark-all-read"), unread === 0);
  document.title = unread === 0 ? "Belfry" : `(${unread}) Belfry`;
}

/** Keeps the elements of items that stay, so that focus and scroll position survive every event. */
function drawItems() {
  const list = byId("items");
  const items = session.inbox.newestFirst().filter((item) => !(session.unreadOnly && item.isRead));
  const wanted = new Set(items.map((item) => item.id));
  for (const element of [...list.children]) {
    if (!wanted.has(element.dataset.id)) removeItem(element);
  }
  const drawn = new Map([...list.children].map((element) => [element.dataset.id, element]));
  items.forEach((item, index) => {
    const element = drawn.get(item.id) ?? clone("item-template");
    fillItem(element, item);
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });

  const loading = session.loading > 0;
  list.setAttribute("aria-busy", String(loading));
  byId("load-more").hidden = session.inbox.nextCursor === null;
  setOff(byId("load-more"), loading);
  byId("empty").hidden = items.length > 0 || loading || session.inbox.stale;
  byId("empty-title").textContent = session.unreadOnly ? "All read" : "All quiet";
}

function removeItem(element) {
  // Focus would fall back to the page's start and lose a keyboard user's place.
  if (element.contains(document.activeElement)) {
    const neighbour = element.nextElementSibling ?? element.previousElementSibling;
    (neighbour?.querySelector("[data-action=delete]") ?? byId("inbox-heading")).focus();
  }
  element.remove();
}

function fillItem(element, item) {
  if (element.dataset.id === item.id && element.dataset.revision === `${item.revision}/${item.isRead}`) return;
  const part = (name) => element.querySelector(name);
  element.dataset.id = item.id;
  element.dataset.revision = `${item.revision}/${item.isRead}`;
  element.dataset.read = String(item.isRead);
  part(".item-unread").hidden = item.isRead;
  part(".item-title-text").textContent = item.title;
  part(".item-message").textContent = item.message ?? "";
  part(".item-message").hidden = !item.message;
  part(".item-type").textContent = item.type;
  part(".item-priority").textContent = item.priority ?? "";
  part(".item-priority").dataset.priority = item.priority ?? "normal";
  part(".item-priority").hidden = !["high", "urgent"].includes(item.priority);
  // A service that keeps its own notifications may send any date, or none.
  const isDated = Number.isFinite(Date.parse(item.createdAt));
  part("time").hidden = !isDated;
  if (isDated) {
    part("time").dateTime = item.createdAt;
    part("time").title = new Date(item.createdAt).toLocaleString("en");
    part("time").textContent = ago(item.createdAt);
  }

  const link = part(".item-link");
  link.hidden = !isSafeLink(item.link);
  if (link.hidden) link.removeAttribute("href");
  else link.href = item.link;

  const markRead = part("[data-action=read]");
  if (item.isRead && markRead === document.activeElement) part("[data-action=delete]").focus();
  markRead.hidden = item.isRead;
  markRead.setAttribute("aria-label", `Mark “${item.title}” as read`);
  part("[data-action=delete]").setAttribute("aria-label", `Delete “${item.title}”`);
}

/** An http(s) address or a path of this origin. `//host` and `/\host` look like paths and lead away. */
function isSafeLink(link) {
  return typeof link === "string" && (/^https?:\/\//i.test(link) || /^\/(?![/\\])/.test(link));
}

const inWords = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1_000);
  if (Number.isNaN(seconds)) return "";
  if (seconds < 45) return "just now";
  if (seconds < 3_600) return inWords.format(-Math.round(seconds / 60), "minute");
  if (seconds < 86_400) return inWords.format(-Math.round(seconds / 3_600), "hour");
  return inWords.format(-Math.round(seconds / 86_400), "day");
}

function showToast({ title, message, priority }) {
  const toasts = byId("toasts");
  const toast = clone("toast-template");
  toast.dataset.priority = priority ?? "normal";
  toast.querySelector(".toast-title").textContent = title;
  toast.querySelector(".toast-message").textContent = message ?? "";
  toast.querySelector(".toast-message").hidden = !message;
  toast.querySelector("button").addEventListener("click", () => toast.remove());

  let timer;
  const leaveSoon = () => (timer = setTimeout(() => toast.remove(), TOAST_MS));
  toast.addEventListener("pointerenter", () => clearTimeout(timer));
  toast.addEventListener("pointerleave", leaveSoon);
  leaveSoon();

  toasts.append(toast);
  while (toasts.children.length > TOASTS_AT_ONCE) toasts.firstElementChild.remove();
}

function showWire(way, name, args) {
  const wire = byId("wire");
  const line = clone("wire-template");
  line.dataset.way = way;
  line.querySelector(".wire-way").textContent = way === "in" ? "←" : "→";
  line.querySelector(".wire-name").textContent = name;
  // A token is a password for as long as it lasts: it has no place on a screen that may be shared.
  line.querySelector(".wire-args").textContent = args
    .filter((arg) => typeof arg !== "function")
    .map((arg) => JSON.stringify(arg, (key, value) => (key === "token" ? "…" : value)))
    .join(", ");
  wire.prepend(line);
  while (wire.children.length > WIRE_LINES) wire.lastElementChild.remove();
}

function showProblem(error) {
  byId("problem-text").textContent = error?.message ?? "";
  byId("problem").hidden = error === null;
}

/** Not `disabled`: that would take the focus away from whoever has just pressed the button by keyboard. */
function setOff(button, off) {
  button.setAttribute("aria-disabled", String(off));
}

/** Runs what a person asked for, with the button off meanwhile, and tells how it failed. */
async function doFor(button, work, fail = showProblem) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const acting = session;
  setOff(button, true);
  try {
    await work();
  } catch (error) {
    if (acting === session) fail(error);
  } finally {
    setOff(button, false);
    if (acting === session) draw();
  }
}

// Pressing "Send" again after a lost answer must not make a second notification: the key belongs to
// what the form says, and changes with it.
let idempotencyKey = null;

async function sendForm(form) {
  const { link, ...notification } = Object.fromEntries(new FormData(form));
  if (link.trim()) notification.link = link.trim();
  idempotencyKey ??= crypto.randomUUID();
  await session.send(notification, idempotencyKey);
  idempotencyKey = null;
  // Unless the next one is being written already.
  if (form.elements.title.value === notification.title) {
    form.elements.title.value = "";
    form.elements.message.value = "";
    form.elements.title.focus();
  }
  showOutcome("done", `Sent to ${notification.userId}.`);
}

function showOutcome(kind, words) {
  byId("send-outcome").dataset.kind = kind;
  byId("send-outcome").textContent = words;
}

for (const button of document.querySelectorAll("[data-user]")) {
  button.addEventListener("click", () => {
    if (button.dataset.user !== session.user) signIn(button.dataset.user);
  });
}

byId("bell").addEventListener("click", () => byId("inbox-heading").focus());
byId("problem-close").addEventListener("click", () => showProblem(null));

byId("items").addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  const { id } = button.closest("[data-id]").dataset;
  doFor(button, () => (button.dataset.action === "read" ? session.markRead(id) : session.remove(id)));
});

byId("mark-all-read").addEventListener("click", (event) => doFor(event.currentTarget, () => session.markAllRead()));
byId("load-more").addEventListener("click", (event) => doFor(event.currentTarget, () => session.loadMore()));
byId("unread-only").addEventListener("change", (event) => {
  session.showUnreadOnly(event.currentTarget.checked).catch(showProblem);
});

byId("send-form").addEventListener("input", () => (idempotencyKey = null));
byId("send-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  doFor(byId("send"), () => sendForm(form), (error) => showOutcome("failed", error.message));
});

setInterval(() => {
  for (const time of document.querySelectorAll(".item time")) time.textContent = ago(time.dateTime);
}, 30_000);

const asked = new URLSearchParams(location.search).get("user");
signIn(USERS.includes(asked) ? asked : USERS[0]);
