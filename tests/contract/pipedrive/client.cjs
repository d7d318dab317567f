// Drive the official client against the sandbox; prints one JSON object of what came back.
// argv: base URL, API token. Errors arrive as the parsed body, which is all the client gives.
const { v1, v2 } = require('pipedrive');

const [base, apiKey] = process.argv.slice(2);
const modern = new v2.Configuration({ apiKey, basePath: `${base}/api/v2` });
const older = new v1.Configuration({ apiKey, basePath: `${base}/api/v1` });

async function walk(call) {
  const ids = [];
  let cursor;
  do {
    const page = await call({ limit: 40, cursor });
    ids.push(...page.data.map((record) => record.id));
    cursor = page.additional_data.next_cursor;
  } while (cursor);
  return ids;
}

async function records(api, names, body, change) {
  const listed = await walk((asked) => api[names.list](asked));
  const created = (await api[names.add](body)).data;
  const read = (await api[names.get]({ id: created.id })).data;
  const updated = (await api[names.update]({ id: created.id, ...change })).data;
  const found = (await api[names.search]({ term: created.name, exact_match: true })).data.items;
  const deleted = (await api[names.remove]({ id: created.id })).data;
  const gone = await api[names.get]({ id: created.id }).catch((error) => error);
  return { listed, created, read, updated, found: found.map((item) => item.item.id), deleted, gone };
}

async function main() {
  const persons = await records(
    new v2.PersonsApi(modern),
    { list: 'getPersons', add: 'addPerson', get: 'getPerson', update: 'updatePerson', search: 'searchPersons', remove: 'deletePerson' },
    { AddPersonRequest: { name: 'Node Client', emails: [{ value: 'node@client.test', primary: true, label: 'work' }] } },
    { UpdatePersonRequest: { name: 'Node Caller' } },
  );
  const organizations = await records(
    new v2.OrganizationsApi(modern),
    { list: 'getOrganizations', add: 'addOrganization', get: 'getOrganization', update: 'updateOrganization', search: 'searchOrganization', remove: 'deleteOrganization' },
    { AddOrganizationRequest: { name: 'Node Works', website: 'https://node.test' } },
    { UpdateOrganizationRequest: { address: { value: 'Tallinn' } } },
  );
  const personFields = (await new v2.PersonFieldsApi(modern).getPersonFields({ limit: 500 })).data;
  const organizationFields = (await new v2.OrganizationFieldsApi(modern).getOrganizationFields({ limit: 500 })).data;
  const olderFields = (await new v1.PersonFieldsApi(older).getPersonFields({ limit: 500 })).data;

  const hooks = new v1.WebhooksApi(older);
  const hook = (await hooks.addWebhook({
    AddWebhookRequest: { subscription_url: 'http://127.0.0.1:9/hook', event_action: '*', event_object: 'person', name: 'node', version: '2.0' },
  })).data;
  const listedHooks = (await hooks.getWebhooks()).data;
  await hooks.deleteWebhook({ id: hook.id });
  const leftHooks = (await hooks.getWebhooks()).data;
  const refused = await hooks.addWebhook({ AddWebhookRequest: { subscription_url: 'no', event_action: '*', event_object: 'person', name: 'n' } })
    .catch((error) => error);

  const people = new v2.PersonsApi(modern);
  const [loser, survivor] = await Promise.all(['Node Once', 'Node Twice'].map(async (name) =>
    (await people.addPerson({ AddPersonRequest: { name } })).data.id));
  const merged = (await new v1.PersonsApi(older).mergePersons({ id: loser, MergePersonsRequest: { merge_with_id: survivor } })).data;

  const me = (await new v1.UsersApi(older).getCurrentUser()).data;
  const stranger = await new v2.PersonsApi(new v2.Configuration({ apiKey: 'wrong', basePath: `${base}/api/v2` }))
    .getPersons().catch((error) => error);

  console.log(JSON.stringify({
    persons, organizations, personFields, organizationFields, olderFields, hook, listedHooks, leftHooks, refused, merged, loser, survivor,
    me, stranger,
  }));
}

main().catch((error) => { console.error(error); process.exit(1); });
