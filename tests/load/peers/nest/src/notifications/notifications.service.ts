import { Inject, Injectable } from '@nestjs/common';
import { ClientProxy } from '@nestjs/microservices';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import type { NotificationCreated } from '../events.controller.js';
import type { CreateNotificationDto } from './create-notification.dto.js';
import { Notification } from './notification.entity.js';

export const EVENTS = 'EVENTS';

@Injectable()
export class NotificationsService {
  constructor(
    @InjectRepository(Notification)
    private readonly notifications: Repository<Notification>,
    @Inject(EVENTS)
    private readonly events: ClientProxy,
  ) {}

  async create({ userId, type, title, message, data }: CreateNotificationDto): Promise<Notification> {
    const draft = this.notifications.create({ userId, type, title, message, data });
    const notification = await this.notifications.save(draft);
    const unreadCount = await this.notifications.count({ where: { userId, isRead: false } });
    // As documented, this does not wait for the broker. An event that the broker does not accept is lost silently.
    this.events.emit<void, NotificationCreated>('notification.created', { userId, notification, unreadCount });
    return notification;
  }
}
