// The settings, from environment variables. ../../README.md describes them.

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`the environment variable ${name} is required`);
  return value;
}

const [host, port] = required('PEER_LISTEN').split(':');

export const listen = { host, port: Number(port) };
export const amqpUrl = required('PEER_AMQP_URL');
export const queue = required('PEER_QUEUE');
export const secret = required('PEER_SECRET');
export const ackEach = required('PEER_ACK') === 'each';
export const databaseUrl = process.env.PEER_DATABASE_URL;
