// Serves oauth2-mock-server with TLS: PORT HOST FOLDER. The folder has tls.crt, tls.key and the private keys in
// keys/*.json. All of them are published, and tokens are signed with each in turn.
import { readdirSync, readFileSync } from "node:fs";
import { OAuth2Server } from "oauth2-mock-server";

const LIFETIME_SECONDS = 4 * 3600;

const [port, host, folder] = process.argv.slice(2);
const server = new OAuth2Server(`${folder}/tls.key`, `${folder}/tls.crt`);
for (const name of readdirSync(`${folder}/keys`).sort()) {
  await server.issuer.keys.add(JSON.parse(readFileSync(`${folder}/keys/${name}`, "utf8")));
}
// A token names its client (RFC 9068). A real provider has the rate in the client's settings.
server.service.on("beforeTokenSigning", ({ payload }, { body }) => {
  const exp = payload.iat + LIFETIME_SECONDS;
  Object.assign(payload, { client_id: body.client_id, rate: Number(body.rate), exp });
});
server.issuer.url = `https://${host}:${port}`;
await server.start(Number(port), host);
