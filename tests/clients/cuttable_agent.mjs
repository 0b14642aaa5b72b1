import { Agent } from "node:http";

/** An agent that remembers its open connections, so that a test can cut them like a lost network: without a close
 *  frame, without an Engine.IO close packet, and without access to the library's internals. */
export class CuttableAgent extends Agent {
  connections = new Set();

  createConnection(...args) {
    const connection = super.createConnection(...args);
    this.connections.add(connection);
    connection.once("close", () => this.connections.delete(connection));
    return connection;
  }

  cut() {
    for (const connection of this.connections) connection.destroy();
  }
}
