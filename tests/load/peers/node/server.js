// A hand-written bridge from RabbitMQ to Socket.IO in plain Node. All libraries have their default settings. The
// environment variables are described in ../README.md.

import { createServer } from "node:http";
import amqp from "amqplib";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const { PEER_LISTEN, PEER_AMQP_URL, PEER_QUEUE, PEER_SECRET, PEER_ACK } = process.env;
const PREFETCH = 500;

const httpServer = createServer();
const io = new Server(httpServer, { serveClient: false });

io.use((socket, next) => {
  try {
    socket.data.userId = jwt.verify(socket.handshake.auth.token, PEER_SECRET, { algorithms: ["HS256"] }).sub;
    next();
  } catch {
    next(new Error("token_invalid"));
    // Closes the connection after the connect error is sent. Otherwise the client could stay until the connect
    // timeout of 45 s.
    setImmediate(() => socket.conn.close());
  }
});

io.on("connection", (socket) => socket.join(`user:${socket.data.userId}`));

function push({ pattern, data }) {
  if (pattern !== "notification.created") return;
  const room = io.to(`user:${data.userId}`);
  room.emit("notification:new", data.notification);
  room.emit("notification:unread_count", { count: data.unreadCount });
}

const connection = await amqp.connect(PEER_AMQP_URL);
const channel = await connection.createChannel();
await channel.assertQueue(PEER_QUEUE, { durable: true });
const noAck = PEER_ACK === "none";
if (!noAck) await channel.prefetch(PREFETCH);

await channel.consume(
  PEER_QUEUE,
  (message) => {
    // amqplib calls this with null when the broker cancels the consumer, because the queue was deleted.
    if (message === null) throw new Error("the consumer was cancelled");
    try {
      push(JSON.parse(message.content.toString()));
    } catch (error) {
      console.error("ignoring an invalid message:", error);
    }
    if (!noAck) channel.ack(message);
  },
  { noAck },
);

const [host, port] = PEER_LISTEN.split(":");
httpServer.listen(Number(port), host, () => {
  console.log(`listening on ${host}:${httpServer.address().port}`);
});

process.once("SIGTERM", async () => {
  // The broker's connection is closed first, so that no message is consumed for sockets that are already closed.
  await connection.close();
  await io.close();
});
