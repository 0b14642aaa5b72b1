import { Module } from '@nestjs/common';
import { JwtModule } from '@nestjs/jwt';
import { EventsController } from './events.controller.js';
import { NotificationsGateway } from './notifications.gateway.js';
import { NotificationsModule } from './notifications/notifications.module.js';
import { databaseUrl, secret } from './settings.js';

@Module({
  imports: [
    JwtModule.register({ global: true, secret, verifyOptions: { algorithms: ['HS256'] } }),
    // Without a database, this process is only a gateway and has no `POST /notifications`.
    ...(databaseUrl ? [NotificationsModule.register(databaseUrl)] : []),
  ],
  controllers: [EventsController],
  providers: [NotificationsGateway],
})
export class AppModule {}
