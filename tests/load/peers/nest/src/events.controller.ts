import { Controller } from '@nestjs/common';
import { Ctx, EventPattern, Payload, RmqContext } from '@nestjs/microservices';
import { NotificationsGateway } from './notifications.gateway.js';
import { ackEach } from './settings.js';

export interface NotificationCreated {
  userId: string;
  notification: unknown;
  unreadCount: number;
}

@Controller()
export class EventsController {
  constructor(private readonly gateway: NotificationsGateway) {}

  @EventPattern('notification.created')
  created(@Payload() event: NotificationCreated, @Ctx() context: RmqContext) {
    this.gateway.push(event);
    // If the consumer does not use acks, RabbitMQ would close the channel because of an ack.
    if (ackEach) context.getChannelRef().ack(context.getMessage());
  }
}
