// Connect the official client as an app; prints one JSON object of what came back.
// argv: base URL, client id, client secret.
const { v1, v2 } = require('pipedrive');

const [host, clientId, clientSecret] = process.argv.slice(2);
const redirectUri = 'http://ours.test/auth/callback';

function configured(Configuration) {
  return new Configuration({ clientId, clientSecret, redirectUri, host });
}

async function codeFor(configuration) {
  const answer = await fetch(`${configuration.authorizationUrl}&decision=allow`, { redirect: 'manual' });
  return new URL(answer.headers.get('location')).searchParams.get('code');
}

async function main() {
  const app = configured(v1.OAuth2Configuration);
  const first = await app.authorize(await codeFor(app));
  const api = () => new v1.Configuration({ accessToken: app.getAccessToken, basePath: app.basePath });
  const me = (await new v1.UsersApi(api()).getCurrentUser()).data;
  const hook = (await new v1.WebhooksApi(api()).addWebhook({
    AddWebhookRequest: { subscription_url: 'http://127.0.0.1:9/hook', event_action: '*', event_object: 'person', name: 'node', version: '2.0' },
  })).data;

  // The client refreshes by itself once `expires_in` has passed by its own clock.
  app.expiresAt = Date.now() - 1;
  await new v1.UsersApi(api()).getCurrentUser();
  const second = app.accessToken;

  await app.revokeToken('access_token');
  const revoked = await new v1.UsersApi(api()).getCurrentUser().catch((error) => error);

  const modern = configured(v2.OAuth2Configuration);
  const tokens = await modern.authorize(await codeFor(modern));
  const listed = (await new v2.PersonsApi(new v2.Configuration({ accessToken: modern.getAccessToken, basePath: modern.basePath }))
    .getPersons({ limit: 5 })).data;
  await modern.revokeToken('refresh_token');
  const lost = await modern.tokenRefresh().catch((error) => error);

  console.log(JSON.stringify({ first, second, me, hook, revoked, apiDomain: tokens.api_domain, listed: listed.length, lost }));
}

main().catch((error) => { console.error(error); process.exit(1); });
