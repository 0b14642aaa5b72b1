import 'reflect-metadata';
import { ValidationPipe } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type MicroserviceOptions, Transport } from '@nestjs/microservices';
import { AppModule } from './app.module.js';
import { ackEach, amqpUrl, listen, queue } from './settings.js';

const PREFETCH = 500;

const app = await NestFactory.create(AppModule);
app.enableShutdownHooks();
app.useGlobalPipes(new ValidationPipe());

app.connectMicroservice<MicroserviceOptions>({
  transport: Transport.RMQ,
  options: {
    urls: [amqpUrl],
    queue,
    queueOptions: { durable: true },
    noAck: !ackEach,
    prefetchCount: ackEach ? PREFETCH : 0,
  },
});

await app.startAllMicroservices();
await app.listen(listen.port, listen.host);
console.log(`listening on ${listen.host}:${app.getHttpServer().address().port}`);
