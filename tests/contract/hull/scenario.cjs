// Drives the hull-client package, unmodified, through what a connector does with it; prints what it was answered as one JSON object.
// argv: host:port, connector id, secret

const HullClient = require("hull-client");

const [, , organization, id, secret] = process.argv;
const config = {
  id, secret, organization, protocol: "http", firehoseUrl: `http://${organization}/api/v1/firehose`, flushAt: 50, flushAfter: 1,
};
HullClient.logger.transports.console.level = "error";

async function sequence(hull) {
  const ada = hull.asUser({ email: "Ada@Acme.com", anonymous_id: "pipedrive:1" });
  const firehose = await ada.traits({ "pipedrive/id": { operation: "set", value: 1 }, plan: "pro" });
  await ada.account({ domain: "https://www.acme.com", anonymous_id: "pipedrive:44" }).traits({ "pipedrive/id": 44 });
  await ada.account({}).traits({ tier: "gold" });
  await ada.alias({ anonymous_id: "site:1" });
  await ada.alias({ anonymous_id: "site:2" });
  await ada.unalias({ anonymous_id: "site:2" });
  await ada.track("Deal won", { value: 5 }, { event_id: "e1" });
  await hull.asAccount({ domain: "globex.com" }).traits({ name: "Globex" });
  await hull.asUser({ email: "nobody@acme.com" }, { create: false }).traits({ x: 1 });
  await hull.utils.settings.update({ one: 1 });
  await hull.utils.settings.update({ two: 2 });
  const query = { bool: { filter: [{ bool: { should: [{ term: { email: "ada@acme.com" } }, { term: { "email.exact": "ada@acme.com" } }] } }] } };
  const found = await hull.post("search/user_reports", { query, raw: true, page: 1, per_page: 1 });
  await hull.asUser(found.data[0].id).traits({ by_id: true });
  return {
    firehose,
    found,
    app: await hull.get("app"),
    status: await hull.put(`${id}/status`, { status: "ok", messages: ["allgood"] }),
    segments: await hull.get("users_segments", { shipId: id }),
    report: await ada.get("me/user_report"),
    properties: Object.keys(await hull.utils.properties.get()),
    stranger: await new HullClient({ ...config, secret: "wrong" }).get("app").catch(error => error.status),
  };
}

async function volley(hull) {
  const users = [...Array(120).keys()].map(number => hull.asUser({ anonymous_id: `volley:${number}` }));
  await Promise.all(users.map((user, number) => user.traits({ number })));
}

async function main() {
  const hull = new HullClient(config);
  const answers = await sequence(hull);
  await volley(hull);
  // hull-client's own beforeExit hook keeps the process alive for ever
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
}

main().catch(error => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
