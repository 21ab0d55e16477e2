// As its best successor did: two workers, the id from INCR, the usage in a hash. The answer waits
// for both; whether Redis has it on disk by then is a matter of its appendfsync.
const cluster = require("node:cluster");
const express = require("express");
const { createClient } = require("redis");

const [port, redisPort] = process.argv.slice(2).map(Number);
const WORKERS = 2;

async function work() {
  const client = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  await client.connect();
  const app = express();
  app.use(express.json());
  app.post("/api/usages", async (request, response) => {
    const id = await client.incr("usages");
    await client.hSet(`usage:${id}`, request.body);
    response.status(201).json({ id });
  });
  app.listen(port, "127.0.0.1");
}

if (cluster.isPrimary) {
  for (let worker = 0; worker < WORKERS; worker += 1) cluster.fork();
  process.on("SIGTERM", () => process.exit(0));
} else {
  work();
}
