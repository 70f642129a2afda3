// One round of kafkajs: produce every record, read them back through a group, commit.
'use strict';
const fs = require('fs');
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require('kafkajs');
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');

const { BOOTSTRAP, TOPIC, GROUP, CODEC, WORDS, COUNT, OUT } = process.env;
const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }[CODEC];

// What a listener over TLS asks for; nothing where there is none.
function login() {
  const { SECURITY, MECHANISM, LOGIN_USER, LOGIN_PASSWORD, TOKEN, CA, CERTIFICATE, KEY } = process.env;
  if (!SECURITY) return {};
  const ca = [fs.readFileSync(CA, 'utf8')];
  if (SECURITY === 'SSL') {
    return { ssl: { ca, cert: fs.readFileSync(CERTIFICATE, 'utf8'), key: fs.readFileSync(KEY, 'utf8') } };
  }
  const sasl = { mechanism: MECHANISM.toLowerCase(), username: LOGIN_USER, password: LOGIN_PASSWORD };
  if (MECHANISM === 'OAUTHBEARER') sasl.oauthBearerProvider = async () => ({ value: TOKEN });
  return { ssl: { ca }, sasl };
}

const kafka = new Kafka({ clientId: 'round', brokers: BOOTSTRAP.split(','), logLevel: logLevel.ERROR, ...login() });

async function produce() {
  const producer = kafka.producer();
  await producer.connect();
  const messages = fs.readFileSync(WORDS, 'utf8').trimEnd().split('\n').map((line) => {
    const [key, value] = line.split('\t');
    return { key, value };
  });
  for (let at = 0; at < messages.length; at += 5000) {
    await producer.send({ topic: TOPIC, compression, acks: -1, messages: messages.slice(at, at + 5000) });
  }
  await producer.disconnect();
}

async function consume() {
  const consumer = kafka.consumer({ groupId: GROUP });
  await consumer.connect();
  await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
  const out = fs.createWriteStream(OUT);
  let left = Number(COUNT);
  await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`${left} records did not come`)), 60000);
    consumer.run({
      eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary }) => {
        for (const message of batch.messages) {
          out.write(`${message.key}\t${message.value}\n`);
          resolveOffset(message.offset);
          left -= 1;
        }
        await commitOffsetsIfNecessary({
          topics: [{
            topic: batch.topic,
            partitions: [{ partition: batch.partition, offset: String(BigInt(batch.lastOffset()) + 1n) }],
          }],
        });
        if (left <= 0) {
          clearTimeout(late);
          resolve();
        }
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  await new Promise((resolve) => out.end(resolve));
}

produce().then(consume).catch((problem) => {
  console.error(problem);
  process.exit(1);
});
