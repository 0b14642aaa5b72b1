// Belfry's development page. It uses only the public REST and Socket.IO interfaces. A real application needs
// `Inbox` (the rules that keep the list and the count correct) and `Session` (token, REST, socket). Everything
// else belongs to this page only.

/* ---- Inbox: the state of this device, and the rules for replacing it ---- */

class Inbox {
  constructor() {
    this.epoch = null;
    /** Whether the list has to be loaded by REST. */
    this.stale = true;
    this.nextCursor = null;
    this.forget();
  }

  /** Drops everything. Called when the epoch changes, because revisions of another epoch cannot be compared. */
  forget() {
    /** Notifications by id. */
    this.items = new Map();
    /** Ids of deleted notifications. */
    this.deleted = new Set();
    /** Everything up to this revision has been received. `null` before the first revision. */
    this.since = null;
    /** A replay may skip revisions up to this one, such as those of notifications that were deleted meanwhile. */
    this.replayedTo = 0;
    /** Whether an event was lost. `since` then stays at the revision before it. */
    this.gap = false;
    this.unread = 0;
    /** The revision of `unread`. */
    this.countRevision = -1;
    /** A first page with an older revision than this one is out of date. */
    this.minListRevision = 0;
  }

  adoptEpoch(epoch) {
    if (this.epoch !== null && this.epoch !== epoch) this.forget();
    this.epoch = epoch;
  }

  /** `since` and `epoch`, from which the server replays. Empty before the first revision. */
  get resumePoint() {
    return this.since === null ? {} : { since: this.since, epoch: this.epoch };
  }

  /** Detects a lost event: every change takes the next revision, so none may be skipped. Returns `true` once for
   *  each gap; the caller then requests the missed events. */
  noticeGap(revision) {
    if (this.gap || this.since === null || !Number.isInteger(revision)) return false;
    this.gap = revision > Math.max(this.since, this.replayedTo) + 1;
    return this.gap;
  }

  advance(revision) {
    if (this.gap) return;
    if (Number.isInteger(revision) && (this.since === null || revision > this.since)) this.since = revision;
  }

  /** Counts may arrive in another order than they were sent. An older one never replaces a newer one. */
  applyCount(count, revision) {
    if (revision < this.countRevision) return;
    this.unread = count;
    this.countRevision = revision;
  }

  applySync({ epoch, revision, unreadCount, recovered }) {
    this.adoptEpoch(epoch);
    this.replayedTo = revision;
    this.gap = false;
    this.applyCount(unreadCount, revision);
    if (!recovered) {
      this.stale = true;
      this.minListRevision = revision;
      this.since = revision;
      // The ids are no longer needed: a page with an older revision is loaded again. And after an erasure of
      // the user, an id may be used again.
      this.deleted.clear();
    }
    // Otherwise the missed events follow, and each advances `since`. If `since` advanced now, a broken connection
    // would lose them.
  }

  applyCountEvent({ count, revision }) {
    this.applyCount(count, revision);
    this.advance(revision);
  }

  /** Returns whether the notification is new: it may arrive live, in a replay and by REST. */
  applyNotification(notification) {
    this.advance(notification.revision);
    return this.addOrUpdate(notification);
  }

  addOrUpdate(notification) {
    const { id, revision } = notification;
    if (this.deleted.has(id)) return false;
    const known = this.items.get(id);
    if (!known || known.revision < revision) this.items.set(id, notification);
    return !known;
  }

  applyMarkedRead({ ids, all, readAt, revision }) {
    this.advance(revision);
    const affected = all
      ? [...this.items.values()].filter((item) => item.revision < revision)
      : (ids ?? []).map((id) => this.items.get(id)).filter(Boolean);
    for (const item of affected) this.setRead(item.id, readAt, revision);
  }

  setRead(id, readAt, revision) {
    const item = this.items.get(id);
    if (!item || item.isRead) return;
    this.items.set(id, { ...item, isRead: true, readAt, revision: Math.max(item.revision, revision ?? 0) });
  }

  applyDeleted({ ids, revision }) {
    this.advance(revision);
    for (const id of ids ?? []) this.markDeleted(id);
  }

  /** Remembers the deletion, because a page that was requested earlier may still contain the notification. */
  markDeleted(id) {
    this.deleted.add(id);
    this.items.delete(id);
  }

  applyFirstPage(page) {
    this.adoptEpoch(page.epoch);
    // Items that changed after the page was read stay. The page replaces all others.
    for (const item of [...this.items.values()]) {
      if (item.revision <= page.revision) this.items.delete(item.id);
    }
    this.applyNextPage(page);
    this.applyCount(page.unreadCount, page.revision);
    this.gap = false;
    this.advance(page.revision);
    // A page that is older than the last sync without a replay may lack notifications.
    this.stale = page.revision < this.minListRevision;
  }

  applyNextPage(page) {
    page.items.forEach((item) => this.addOrUpdate(item));
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
const TOKEN_ERRORS = ["token_missing", "token_invalid", "token_expired"];

/** An error to show to the user: the `detail` of a problem document, or the message of an acknowledgement. */
class RequestError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }

  static async of(response) {
    const problem = await response.json().catch(() => ({}));
    return new RequestError(problem.detail ?? problem.title ?? `The server answered ${response.status}.`, response.status);
  }
}

class Session {
  /** `on` has the callbacks change(), arrived(notification), state(word), wire(way, name, args), where `way` is
   *  "in" or "out", and problem(error), where `null` means that the problem is over. */
  constructor(user, on) {
    this.user = user;
    this.on = on;
    this.inbox = new Inbox();
    this.unreadOnly = false;
    /** The number of page requests in flight. */
    this.loading = 0;
    /** The number of connects in a row that failed or ended soon, for the backoff. */
    this.failures = 0;
    this.connectedAt = Infinity;
    this.stopped = false;
  }

  async start() {
    this.on.state("connecting");
    try {
      await this.renewToken();
      await this.reload();
    } catch (error) {
      // The socket retries by itself, and its first event shows whether the list has to be loaded.
      this.on.problem(error);
    }
    if (!this.stopped) this.connect();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.retry);
    this.socket?.disconnect();
  }

  connect() {
    const socket = io({
      // Relative to the page, like all its URLs, because the server may have a base path.
      path: new URL("socket.io/", document.baseURI).pathname,
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      autoConnect: false,
      forceNew: true,
      // A function, so that every reconnect sends the current token and position.
      auth: (answer) => answer({ token: this.token, ...this.inbox.resumePoint }),
    });
    this.socket = socket;
    this.listen(socket);
    socket.connect();
  }

  listen(socket) {
    const { inbox, on } = this;
    const handle = (name, apply) =>
      socket.on(name, (payload) => {
        if (name !== "notification:sync" && inbox.noticeGap(payload?.revision)) this.requestMissed();
        apply(payload);
        on.change();
      });

    handle("notification:sync", (sync) => {
      inbox.applySync(sync);
      if (inbox.stale) this.catchUp();
    });
    handle("notification:new", (notification) => {
      if (inbox.applyNotification(notification) && !notification.isRead) on.arrived(notification);
    });
    handle("notification:unread_count", (count) => inbox.applyCountEvent(count));
    handle("notification:marked_read", (event) => inbox.applyMarkedRead(event));
    handle("notification:deleted", (event) => inbox.applyDeleted(event));

    socket.on("auth:expiring", () => this.refreshToken().catch(on.problem));
    socket.on("exception", ({ code, message }) => {
      // When the token expires, the server disconnects the socket, and the page signs in again.
      if (code !== "token_expired") on.problem(new RequestError(message, code));
    });

    socket.on("connect", () => {
      this.connectedAt = performance.now();
      on.state("connected");
    });
    socket.io.on("reconnect_attempt", () => on.state("connecting"));
    socket.on("disconnect", () => this.onDisconnected(socket.active));
    socket.on("connect_error", ({ message }) => this.onDisconnected(socket.active, message));
    socket.onAny((name, ...args) => on.wire("in", name, args));
    socket.onAnyOutgoing((name, ...args) => on.wire("out", name, args));
  }

  async requestMissed() {
    try {
      await this.request("notification:sync", this.inbox.resumePoint);
    } catch (error) {
      // The next event detects the gap again.
      this.inbox.gap = false;
      this.on.problem(error);
    }
  }

  /** `active` means that the library reconnects by itself. It does not after the server has rejected or
   *  disconnected it. `code` is the code of a rejection. */
  onDisconnected(active, code) {
    if (this.stopped) return;
    this.on.state("disconnected");
    // Only a session that lasted for a while resets the backoff. Otherwise a session that ends at once would be
    // retried in a tight loop.
    if (performance.now() - this.connectedAt > PAUSE_MAX_MS) this.failures = 0;
    this.connectedAt = Infinity;
    if (active) return;
    // After a rejection for another reason than the token, the token may still be valid.
    const needsToken = code === undefined || TOKEN_ERRORS.includes(code);
    if (!needsToken) this.on.problem(new RequestError(`The server refused the connection: ${code}`, code));
    this.connectAfterPause(needsToken);
  }

  connectAfterPause(needsToken) {
    const pause = Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** this.failures++);
    clearTimeout(this.retry);
    this.retry = setTimeout(async () => {
      this.on.state("connecting");
      try {
        if (needsToken) await this.renewToken();
        if (!this.stopped) this.socket.connect();
      } catch {
        if (this.stopped) return;
        this.on.state("disconnected");
        this.connectAfterPause(needsToken);
      }
    }, pause);
  }

  /** Sends a new token before the old one expires, so that the session continues without a reconnect. */
  async refreshToken() {
    await this.renewToken();
    await this.request("auth:refresh", { token: this.token });
  }

  async renewToken() {
    const { token } = await this.fetchJson("dev/token", { method: "POST", body: { user: this.user } });
    this.token = token;
  }

  /** Retries until the list is loaded, because events do not contain older notifications. */
  async catchUp() {
    if (this.catchingUp) return;
    this.catchingUp = true;
    for (let pause = PAUSE_MIN_MS; this.inbox.stale && !this.stopped; pause = Math.min(PAUSE_MAX_MS, 2 * pause)) {
      try {
        await this.reload();
        this.on.problem(null);
      } catch (error) {
        this.on.problem(error);
      }
      if (this.inbox.stale) await new Promise((resume) => setTimeout(resume, pause));
    }
    this.catchingUp = false;
  }

  async reload() {
    this.generation = (this.generation ?? 0) + 1;
    await this.load(null, (page) => this.inbox.applyFirstPage(page));
  }

  async loadMore() {
    await this.load(this.inbox.nextCursor, (page) => this.inbox.applyNextPage(page));
  }

  async load(cursor, apply) {
    const { generation } = this;
    const query = new URLSearchParams({ limit: PAGE_SIZE });
    if (cursor) query.set("cursor", cursor);
    if (this.unreadOnly) query.set("unread", "true");
    this.loading += 1;
    this.on.change();
    try {
      const page = await this.callRest("GET", `v1/notifications?${query}`);
      // If a reload has started meanwhile, this page belongs to the list that the reload replaces.
      if (generation === this.generation) apply(page);
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
    await this.request("notification:mark_read", { id });
    this.inbox.setRead(id, new Date().toISOString());
    this.on.change();
  }

  async markAllRead() {
    await this.request("notification:mark_all_read");
  }

  async remove(id) {
    await this.request("notification:delete", { id });
    this.inbox.markDeleted(id);
    this.on.change();
  }

  async send(notification, idempotencyKey) {
    await this.callRest("POST", "v1/notifications", notification, { "Idempotency-Key": idempotencyKey });
  }

  async request(name, ...args) {
    // The library would queue the message and send it after a reconnect, which is too late for a click.
    if (!this.socket?.connected) throw new RequestError("Not connected. Try again in a moment.");
    const answer = await this.socket.timeout(ACK_TIMEOUT_MS).emitWithAck(name, ...args).catch(() => {
      throw new RequestError("The server did not answer. Nothing was changed as far as this page knows.");
    });
    if (answer?.status === "error") throw new RequestError(answer.message ?? answer.code, answer.code);
    return answer?.data;
  }

  async callRest(method, path, body, headers) {
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
      throw new RequestError("The server cannot be reached.");
    });
    if (!response.ok) throw await RequestError.of(response);
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

  // Responses to a replaced session may still arrive. They must not change the page.
  const ifCurrent = (draw) => (...args) => current === session && draw(...args);
  const current = new Session(user, {
    change: ifCurrent(draw),
    arrived: ifCurrent(showToast),
    state: ifCurrent(showState),
    wire: ifCurrent(showWire),
    problem: ifCurrent(showProblem),
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
  const label = unread === 0 ? "No unread notifications" : `${unread} unread notification${unread === 1 ? "" : "s"}`;
  byId("bell").setAttribute("aria-label", label);
  setAriaDisabled(byId("mark-all-read"), unread === 0);
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
  setAriaDisabled(byId("load-more"), loading);
  byId("empty").hidden = items.length > 0 || loading || session.inbox.stale;
  byId("empty-title").textContent = session.unreadOnly ? "All read" : "All quiet";
}

function removeItem(element) {
  // Otherwise the focus would move to the start of the page, and a keyboard user would lose the position.
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
  // In forward mode, a service may send any date, or none.
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

/** Accepts http(s) URLs and paths of this origin. `//host` and `/\host` look like paths but lead to another host. */
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
  // Hides tokens, because the screen may be shared.
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

/** Uses `aria-disabled`, because `disabled` would take the focus away from a button that was pressed by keyboard. */
function setAriaDisabled(button, isDisabled) {
  button.setAttribute("aria-disabled", String(isDisabled));
}

/** Runs the action of a button, which is off meanwhile. Passes an error to `fail`. */
async function runAction(button, work, fail = showProblem) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const startedIn = session;
  setAriaDisabled(button, true);
  try {
    await work();
  } catch (error) {
    if (startedIn === session) fail(error);
  } finally {
    setAriaDisabled(button, false);
    if (startedIn === session) draw();
  }
}

// The key changes with the contents of the form. Pressing "Send" again after a lost response uses the same key and
// so creates no second notification.
let idempotencyKey = null;

async function sendForm(form) {
  const { link, ...notification } = Object.fromEntries(new FormData(form));
  if (link.trim()) notification.link = link.trim();
  idempotencyKey ??= crypto.randomUUID();
  await session.send(notification, idempotencyKey);
  idempotencyKey = null;
  // Clears the form, unless the user is already writing the next notification.
  if (form.elements.title.value === notification.title) {
    form.elements.title.value = "";
    form.elements.message.value = "";
    form.elements.title.focus();
  }
  showOutcome("done", `Sent to ${notification.userId}.`);
}

function showOutcome(kind, text) {
  byId("send-outcome").dataset.kind = kind;
  byId("send-outcome").textContent = text;
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
  runAction(button, () => (button.dataset.action === "read" ? session.markRead(id) : session.remove(id)));
});

byId("mark-all-read").addEventListener("click", (event) => runAction(event.currentTarget, () => session.markAllRead()));
byId("load-more").addEventListener("click", (event) => runAction(event.currentTarget, () => session.loadMore()));
byId("unread-only").addEventListener("change", (event) => {
  session.showUnreadOnly(event.currentTarget.checked).catch(showProblem);
});

byId("send-form").addEventListener("input", () => (idempotencyKey = null));
byId("send-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  runAction(byId("send"), () => sendForm(form), (error) => showOutcome("failed", error.message));
});

setInterval(() => {
  for (const time of document.querySelectorAll(".item time")) time.textContent = ago(time.dateTime);
}, 30_000);

const requestedUser = new URLSearchParams(location.search).get("user");
signIn(USERS.includes(requestedUser) ? requestedUser : USERS[0]);
