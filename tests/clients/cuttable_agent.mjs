import { Agent } from "node:http";

/** Keeps the connections it made, so that a test can cut them like a dead network: no close frame, no
 *  Engine.IO close packet, and no access to the library's internals. */
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
