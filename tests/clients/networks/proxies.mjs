// A proxy that behaves like a bad network or a badly configured proxy.

import { once } from "node:events";
import { Agent, createServer, request as httpRequest } from "node:http";
import { connect } from "node:net";

/** The ways to treat a request for a WebSocket. */
export const UPGRADES = {
  /** The server receives an ordinary request, as behind a proxy that does not support WebSockets. */
  strip: null,
  refuse: (_, socket) => socket.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
  cut: (_, socket) => socket.destroy(),
  /** The handshake succeeds, then frames of the client are lost. */
  swallowFromClient: (request, socket, head, proxy) => proxy.tunnel(request, socket, head, { toServer: () => false }),
  /** The handshake succeeds, then frames of the server are lost. */
  swallowFromServer: (request, socket, head, proxy) => proxy.tunnel(request, socket, head, { toClient: () => false }),
  pass: (request, socket, head, proxy) => proxy.tunnel(request, socket, head, {}),
};

export class HttpProxy {
  /** One entry for each request: its method, URL, body and time, and whether its connection has carried a request before.
   *  The response is added when the proxy has received it. */
  exchanges = [];
  /** How many WebSockets the server has opened, and how many of them have been closed since. */
  webSocketsOpened = 0;
  webSocketsClosed = 0;
  /** Whether the response of an exchange is lost. The connection is then closed without a byte of it. */
  loses = () => false;
  /** The content that the proxy itself serves for a request; `undefined` to forward the request to the server. */
  serves = () => undefined;

  /** Connections of the client that were used before and carry no request now. */
  idle = new Set();

  #used = new WeakSet();
  #agent = new Agent({ keepAlive: true });
  #sockets = new Set();

  static async to(fixture, { upgrade = UPGRADES.pass } = {}) {
    const proxy = new HttpProxy();
    proxy.target = new URL(fixture.url);
    proxy.server = createServer((request, response) => proxy.#forward(request, response));
    // Long enough that a browser uses its connections again.
    proxy.server.keepAliveTimeout = 60_000;
    if (upgrade) proxy.server.on("upgrade", (request, socket, head) => upgrade(request, socket, head, proxy));
    proxy.server.on("connection", (socket) => proxy.#track(socket));
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    fixture.cleanup(() => proxy.close());
    return proxy;
  }

  close() {
    this.server.close();
    this.#agent.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Cuts all connections. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** The exchanges of polling GET requests. */
  polls() {
    return this.exchanges.filter(({ method, url }) => method === "GET" && url.includes("transport=polling"));
  }

  #track(socket) {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.idle.delete(socket);
    });
    return socket;
  }

  #forward(request, response) {
    const isReused = this.#used.has(request.socket);
    this.#used.add(request.socket);
    this.idle.delete(request.socket);
    response.on("finish", () => request.socket.destroyed || this.idle.add(request.socket));
    const content = this.serves(request);
    if (content) return response.writeHead(200, { "content-type": content.type }).end(content.body);
    const exchange = { method: request.method, url: request.url, at: performance.now(), isReused, body: "" };
    this.exchanges.push(exchange);
    const { connection, upgrade, ...headers } = request.headers;
    const { hostname, port } = this.target;
    const options = { hostname, port, method: request.method, path: request.url, headers, agent: this.#agent };
    const toServer = httpRequest(options, async (answer) => {
      const chunks = [];
      try {
        for await (const chunk of answer) chunks.push(chunk);
      } catch {
        return response.destroy();
      }
      const body = Buffer.concat(chunks);
      exchange.response = body.toString();
      if (this.loses(exchange)) return request.socket.destroy();
      response.writeHead(answer.statusCode, answer.headers).end(body);
    });
    toServer.on("error", () => response.destroy());
    response.on("close", () => response.writableFinished || toServer.destroy());
    request.on("data", (chunk) => (exchange.body += chunk));
    request.pipe(toServer);
  }

  /** Forwards the connection of a WebSocket. `toServer` and `toClient` decide for each chunk after the handshake whether
   *  it is forwarded or lost. */
  tunnel(request, client, head, { toServer = () => true, toClient = () => true }) {
    const { hostname, port } = this.target;
    const server = this.#track(connect(Number(port), hostname));
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
    }
    server.write(`${lines.join("\r\n")}\r\n\r\n`);
    const pass = (chunk) => toServer(chunk) && server.write(chunk);
    if (head.length > 0) pass(head);
    client.on("data", pass);

    let handshake = Buffer.alloc(0);
    server.on("data", (chunk) => {
      if (handshake === null) return toClient(chunk) && client.write(chunk);
      handshake = Buffer.concat([handshake, chunk]);
      const end = handshake.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [response, frames] = [handshake.subarray(0, end + 4), handshake.subarray(end + 4)];
      handshake = null;
      if (response.toString().startsWith("HTTP/1.1 101")) this.webSocketsOpened += 1;
      client.write(response);
      if (frames.length > 0 && toClient(frames)) client.write(frames);
    });
    server.on("close", () => {
      if (handshake === null) this.webSocketsClosed += 1;
      client.destroy();
    });
    client.on("close", () => server.destroy());
    client.on("error", () => {});
  }
}
