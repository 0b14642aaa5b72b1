import { Body, Controller, Post, UseGuards } from '@nestjs/common';
import { AuthGuard } from './auth.guard.js';
import { CreateNotificationDto } from './create-notification.dto.js';
import { NotificationsService } from './notifications.service.js';

@Controller('notifications')
@UseGuards(AuthGuard)
export class NotificationsController {
  constructor(private readonly notifications: NotificationsService) {}

  @Post()
  create(@Body() notification: CreateNotificationDto) {
    return this.notifications.create(notification);
  }
}
