// oidc-provider (panva, certified OpenID provider) over https, for tests: one client with a secret, users of the test's choosing.
// Started with one argument, JSON: {cert, key, client_id, client_secret, redirect_uri, users: {name: claims}}. Says "ready PORT".
// A login page is not what is tested: whoever is named in login_hint is signed in.
import fs from "node:fs";
import https from "node:https";
import readline from "node:readline";
import Provider, { interactionPolicy } from "oidc-provider";

const wish = JSON.parse(process.argv[2]);
const server = https.createServer({ cert: fs.readFileSync(wish.cert), key: fs.readFileSync(wish.key) });

server.listen(0, "127.0.0.1", () => {
  const port = server.address().port;
  const provider = new Provider(`https://localhost:${port}`, {
    clients: [{ client_id: wish.client_id, client_secret: wish.client_secret, redirect_uris: [wish.redirect_uri] }],
    pkce: { required: () => true },
    scopes: ["openid", "profile", "groups"],
    claims: { openid: ["sub"], profile: ["preferred_username"], groups: ["groups"] },
    conformIdTokenClaims: false,
    cookies: { keys: ["a key of this run alone"] },
    features: { devInteractions: { enabled: false } },
    interactions: { policy: interactionPolicy.base(), url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_ctx, sub) => (sub in wish.users ? { accountId: sub, claims: () => ({ sub, ...wish.users[sub] }) } : undefined),
  });
  const answer = provider.callback();
  server.on("request", async (request, response) => {
    if (!request.url.startsWith("/interaction/")) return answer(request, response);
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    if (prompt.name === "login") return provider.interactionFinished(request, response, { login: { accountId: params.login_hint } });
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
  });
  console.log(`ready ${port}`);
});
readline.createInterface({ input: process.stdin }).on("close", () => process.exit(0));
