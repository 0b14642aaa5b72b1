// A notification service and its Socket.IO gateway, written like public NestJS code. The service keeps inboxes in
// memory, consumes the messages of other services from one queue, and publishes to the gateway's queue. The gateway
// forwards the messages of clients as requests to the service. With `devicesExchange` only the service runs, for
// another gateway. README.md of tests/clients describes the configuration.

import "reflect-metadata";
import { Controller, Inject, Injectable, Logger, Module } from "@nestjs/common";
import { NestFactory } from "@nestjs/core";
import { JwtModule, JwtService } from "@nestjs/jwt";
import {
  ClientProxy,
  ClientsModule,
  EventPattern,
  MessagePattern,
  Payload,
  RpcException,
  Transport,
} from "@nestjs/microservices";
import {
  ConnectedSocket,
  MessageBody,
  type OnGatewayConnection,
  SubscribeMessage,
  WebSocketGateway,
  WebSocketServer,
  WsException,
} from "@nestjs/websockets";
import { catchError, firstValueFrom, throwError } from "rxjs";
import type { Server, Socket } from "socket.io";

const { url, queue, pushQueue, devicesExchange, secret, names } = JSON.parse(process.argv[2]);
const rmq = (name: string) => ({ urls: [url], queue: name, queueOptions: { durable: true } });

// -------------------------------------------------------------------------------------------- the service

interface Notification {
  id: string;
  userId: string;
  type: string;
  title: string;
  message: string;
  data: Record<string, unknown>;
  isRead: boolean;
  readAt: Date | null;
  createdAt: Date;
}

@Injectable()
class NotificationsService {
  private readonly all: Notification[] = [];

  list(userId: string): Notification[] {
    return this.all.filter((it) => it.userId === userId).reverse();
  }

  unread(userId: string): Notification[] {
    return this.list(userId).filter((it) => !it.isRead);
  }

  create(draft: Pick<Notification, "id" | "userId" | "type" | "title" | "message" | "data">): Notification {
    const notification = { data: {}, ...draft, isRead: false, readAt: null, createdAt: new Date() };
    this.all.push(notification);
    return notification;
  }

  markRead(notifications: Notification[]): Date {
    const readAt = new Date();
    notifications.forEach((it) => Object.assign(it, { isRead: true, readAt }));
    return readAt;
  }
}

@Controller()
class NotificationsController {
  constructor(
    @Inject(NotificationsService) private readonly notifications: NotificationsService,
    @Inject("GATEWAY") private readonly gateway: ClientProxy,
  ) {}

  @EventPattern("notification.created")
  created(@Payload() draft: Notification) {
    const notification = this.notifications.create(draft);
    this.emit("created", notification.userId, { notification });
  }

  @EventPattern("notification.marked_read")
  markedRead(@Payload() { userId, notificationId }: { userId: string; notificationId: string }) {
    this.markRead({ userId, notificationId });
  }

  @EventPattern("device.mark_read")
  deviceMarkedRead(@Payload() { userId, ids }: { userId: string; ids: string[] }) {
    ids.forEach((notificationId) => this.markRead({ userId, notificationId }));
  }

  @EventPattern("device.mark_all_read")
  deviceMarkedAllRead(@Payload() { userId }: { userId: string }) {
    this.markAllRead({ userId });
  }

  @MessagePattern("mark_read")
  markRead(@Payload() { userId, notificationId }: { userId: string; notificationId: string }) {
    const notification = this.notifications.list(userId).find((it) => it.id === notificationId);
    if (!notification) throw new RpcException("Notification not found");
    const readAt = this.notifications.markRead([notification]);
    this.emit("read", userId, { notificationId, readAt });
    return { success: true };
  }

  @MessagePattern("mark_all_read")
  markAllRead(@Payload() { userId }: { userId: string }) {
    const readAt = this.notifications.markRead(this.notifications.unread(userId));
    this.emit("read", userId, { notificationId: null, readAt });
    return { success: true };
  }

  @MessagePattern("unread_count")
  unreadCount(@Payload() { userId }: { userId: string }) {
    return this.notifications.unread(userId).length;
  }

  @MessagePattern("list")
  list(@Payload() { userId, limit }: { userId: string; limit: number }) {
    return this.notifications.list(userId).slice(0, limit);
  }

  private emit(pattern: string, userId: string, event: object) {
    const unreadCount = this.notifications.unread(userId).length;
    this.gateway.emit(pattern, { userId, unreadCount, ...event });
  }
}

@Module({
  imports: [ClientsModule.register([{ name: "GATEWAY", transport: Transport.RMQ, options: rmq(pushQueue) }])],
  controllers: [NotificationsController],
  providers: [NotificationsService],
})
class ServiceModule {}

// -------------------------------------------------------------------------------------------- the gateway

const wrapped = (notification: unknown) => (names.wrapper ? { [names.wrapper]: notification } : notification);
const count = (value: number) => (names.countField ? { [names.countField]: value } : value);

@WebSocketGateway({ cors: { origin: "*" } })
class NotificationsGateway implements OnGatewayConnection {
  @WebSocketServer()
  private readonly server: Server;

  constructor(
    @Inject(JwtService) private readonly jwt: JwtService,
    @Inject("SERVICE") private readonly service: ClientProxy,
  ) {}

  async handleConnection(client: Socket) {
    try {
      const token = client.handshake.auth.token ?? client.handshake.headers.authorization?.split(" ")[1];
      const { sub } = await this.jwt.verifyAsync(token);
      client.data.userId = sub;
      await client.join(`user:${sub}`);
      client.emit(names.count, await this.unreadCount(client));
    } catch {
      client.disconnect();
    }
  }

  @SubscribeMessage(names.markRead)
  markRead(@ConnectedSocket() client: Socket, @MessageBody() notificationId: string) {
    return this.request("mark_read", client, { notificationId });
  }

  @SubscribeMessage(names.markAllRead)
  markAllRead(@ConnectedSocket() client: Socket) {
    return this.request("mark_all_read", client);
  }

  @SubscribeMessage(names.getCount)
  async unreadCount(@ConnectedSocket() client: Socket) {
    return count(await this.request("unread_count", client));
  }

  @SubscribeMessage(names.list)
  list(@ConnectedSocket() client: Socket, @MessageBody() { limit }: { limit: number }) {
    return this.request("list", client, { limit });
  }

  push(userId: string, event: string, payload: unknown, unreadCount: number) {
    this.server.to(`user:${userId}`).emit(event, payload);
    this.server.to(`user:${userId}`).emit(names.count, count(unreadCount));
  }

  private request(pattern: string, client: Socket, data: object = {}) {
    const answer = this.service.send(pattern, { ...data, userId: client.data.userId });
    return firstValueFrom(answer.pipe(catchError((error) => throwError(() => new WsException(error.message)))));
  }
}

@Controller()
class GatewayController {
  constructor(@Inject(NotificationsGateway) private readonly gateway: NotificationsGateway) {}

  @EventPattern("created")
  created(@Payload() { userId, notification, unreadCount }: any) {
    this.gateway.push(userId, names.new, wrapped(notification), unreadCount);
  }

  @EventPattern("read")
  read(@Payload() { userId, notificationId, readAt, unreadCount }: any) {
    this.gateway.push(userId, names.read, { notificationId, readAt }, unreadCount);
  }
}

@Module({
  imports: [
    JwtModule.register({ secret }),
    ClientsModule.register([{ name: "SERVICE", transport: Transport.RMQ, options: rmq(queue) }]),
  ],
  controllers: [GatewayController],
  providers: [NotificationsGateway],
})
class GatewayModule {}

async function startService() {
  const service = await NestFactory.create(ServiceModule);
  service.connectMicroservice({ transport: Transport.RMQ, options: rmq(queue) });
  if (devicesExchange) {
    const options = { ...rmq(`${queue}.devices`), wildcards: true, exchange: devicesExchange };
    service.connectMicroservice({ transport: Transport.RMQ, options });
  }
  await service.startAllMicroservices();
}

async function startGateway() {
  const gateway = await NestFactory.create(GatewayModule);
  gateway.connectMicroservice({ transport: Transport.RMQ, options: rmq(pushQueue) });
  await gateway.startAllMicroservices();
  await gateway.listen(0, "127.0.0.1");
  const { port } = gateway.getHttpServer().address();
  return `http://127.0.0.1:${port}`;
}

async function main() {
  Logger.overrideLogger(false);
  await startService();
  const gatewayUrl = devicesExchange ? null : await startGateway();
  process.stdout.write(`${JSON.stringify({ kind: "listening", url: gatewayUrl })}\n`);
}

void main();
