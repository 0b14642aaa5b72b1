import { JwtService } from '@nestjs/jwt';
import { type OnGatewayConnection, WebSocketGateway, WebSocketServer } from '@nestjs/websockets';
import type { Server, Socket } from 'socket.io';
import type { NotificationCreated } from './events.controller.js';

@WebSocketGateway()
export class NotificationsGateway implements OnGatewayConnection {
  @WebSocketServer()
  private readonly server: Server;

  constructor(private readonly jwtService: JwtService) {}

  async handleConnection(client: Socket) {
    try {
      const { sub } = await this.jwtService.verifyAsync(client.handshake.auth.token);
      await client.join(`user:${sub}`);
    } catch {
      client.disconnect(true);
    }
  }

  push({ userId, notification, unreadCount }: NotificationCreated) {
    const room = `user:${userId}`;
    this.server.to(room).emit('notification:new', notification);
    this.server.to(room).emit('notification:unread_count', { count: unreadCount });
  }
}
