// As the original did: usages in an array, the id is its length. Lost with the process.
const express = require("express");

const usages = [];
const app = express();
app.use(express.json());
app.post("/api/usages", (request, response) => {
  const id = usages.push(request.body);
  response.status(201).json({ id });
});
app.listen(Number(process.argv[2]), "127.0.0.1");
