import { type DynamicModule, Module } from '@nestjs/common';
import { ClientsModule, Transport } from '@nestjs/microservices';
import { TypeOrmModule } from '@nestjs/typeorm';
import { amqpUrl, queue } from '../settings.js';
import { Notification } from './notification.entity.js';
import { EVENTS, NotificationsService } from './notifications.service.js';
import { NotificationsController } from './notifications.controller.js';

@Module({})
export class NotificationsModule {
  static register(databaseUrl: string): DynamicModule {
    return {
      module: NotificationsModule,
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url: databaseUrl,
          entities: [Notification],
          synchronize: true,
        }),
        TypeOrmModule.forFeature([Notification]),
        ClientsModule.register([
          {
            name: EVENTS,
            transport: Transport.RMQ,
            options: { urls: [amqpUrl], queue, queueOptions: { durable: true } },
          },
        ]),
      ],
      controllers: [NotificationsController],
      providers: [NotificationsService],
    };
  }
}
