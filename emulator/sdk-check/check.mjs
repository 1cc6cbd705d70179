// Boltz's JavaScript SDK against the emulator: one line per check, as `run` counts them.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BoltzComputeAPI from 'boltz-compute-api';

const baseURL = process.env.BOLTZ_COMPUTE_API_BASE_URL;
// The client takes address and key from the environment, as a user's would.
const client = new BoltzComputeAPI();
const keys = client.admin.apiKeys;

const control = async (method, path, body) => {
  const response = await fetch(`${baseURL}/_emulator/${path}`, {
    method,
    headers: { 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.status === 204 ? undefined : response.json();
};

const withKey = (apiKey) => new BoltzComputeAPI({ apiKey });
// This SDK has no method for it.
const me = (somebody) => somebody.get('/compute/v1/auth/me');

const sevenKeys = async () => {
  for (let number = 0; number < 7; number++) {
    await keys.create({ name: `${number}`, workspace_id: `ws_${number % 2}` });
  }
};

const names = async (pages) => {
  const found = [];
  for await (const key of pages) found.push(key.name);
  return found;
};

// Writes the file as the kubelet does: into a new folder, to which it then points a link.
const mount = async (folder, version, key) => {
  await mkdir(join(folder, version));
  await writeFile(join(folder, version, 'BOLTZ_API_KEY'), key);
  await symlink(version, join(folder, '..data_tmp'));
  await rename(join(folder, '..data_tmp'), join(folder, '..data'));
};

const checks = {
  async an_admin_key_says_who_it_is() {
    const answer = await me(client);
    assert.equal(answer.key_type, 'admin');
    assert.equal(answer.principal_type, 'api_key');
  },

  async a_key_is_created_with_defaults() {
    const { key, key_details: details } = await keys.create({ name: 'plain' });
    assert.ok(key.startsWith('sk_bc_ws_live_'));
    assert.equal(details.key_prefix, key.slice(0, 12));
    assert.deepEqual([details.name, details.allowed_ips, details.expires_at], ['plain', [], null]);
    assert.deepEqual([details.is_active, details.livemode, details.last_used_at], [true, true, null]);
  },

  async a_key_is_created_with_everything() {
    const { key, key_details: details } = await keys.create({
      name: 'full',
      allowed_ips: ['192.0.2.1'],
      expires_in_days: 3,
      mode: 'test',
      workspace_id: 'ws_1',
    });
    assert.equal(Date.parse(details.expires_at) - Date.parse(details.created_at), 3 * 24 * 3600 * 1000);
    assert.deepEqual([details.livemode, details.workspace_id], [false, 'ws_1']);
    const answer = await me(withKey(key));
    assert.deepEqual([answer.key_type, answer.mode, answer.workspace_id], ['workspace', 'test', 'ws_1']);
  },

  async the_list_pages_forwards() {
    await sevenKeys();
    assert.deepEqual(await names(keys.list({ limit: 3 })), ['6', '5', '4', '3', '2', '1', '0']);
  },

  async the_list_is_filtered_by_workspace() {
    await sevenKeys();
    assert.deepEqual(await names(keys.list({ limit: 2, workspace_id: 'ws_1' })), ['5', '3', '1']);
  },

  async a_revoked_key_does_not_authenticate() {
    const { key, key_details: details } = await keys.create({ name: 'short-lived' });
    const revoked = await keys.revoke(details.id);
    assert.deepEqual([revoked.id, revoked.is_active], [details.id, false]);
    await assert.rejects(me(withKey(key)), BoltzComputeAPI.AuthenticationError);
  },

  async refusals_become_the_right_errors() {
    const { key } = await keys.create({ name: 'worker' });
    await assert.rejects(withKey('unknown').admin.apiKeys.list(), BoltzComputeAPI.AuthenticationError);
    await assert.rejects(withKey(key).admin.apiKeys.list(), BoltzComputeAPI.PermissionDeniedError);
    await assert.rejects(keys.revoke('key_unknown'), BoltzComputeAPI.NotFoundError);
    await assert.rejects(keys.create({ name: 5 }), BoltzComputeAPI.BadRequestError);
    await assert.rejects(keys.create({ name: '' }), BoltzComputeAPI.UnprocessableEntityError);
  },

  async a_retry_after_an_error_succeeds() {
    for (const outcome of [{ status: { status: 503, headers: { 'retry-after-ms': '10' } } }, 'cut']) {
      await control('POST', 'reset');
      await control('POST', 'faults', { operation: 'create', outcome });
      await keys.create({ name: 'retried' });
      assert.equal((await control('GET', 'state')).keys.length, 1);
      assert.equal((await control('GET', 'requests')).length, 2);
    }
  },

  async a_client_that_reads_a_file_takes_the_new_key() {
    const folder = await mkdtemp(join(tmpdir(), 'sdk-check-'));
    try {
      const { key: oldKey, key_details: old } = await keys.create({ name: 'old' });
      await symlink('..data/BOLTZ_API_KEY', join(folder, 'BOLTZ_API_KEY'));
      await mount(folder, '..1', oldKey);
      process.env.BOLTZ_API_KEY_FILE = join(folder, 'BOLTZ_API_KEY');
      // The code in docs/how-to/sdks.md, which `run` puts into a module.
      const { client: reader } = await import('./key_file.mjs');
      assert.equal((await me(reader)).api_key_id, old.id);
      const { key: newKey, key_details: current } = await keys.create({ name: 'new' });
      await mount(folder, '..2', `${newKey}\n`);
      await keys.revoke(old.id);
      assert.equal((await me(reader)).api_key_id, current.id);
      await assert.rejects(me(withKey(oldKey)), BoltzComputeAPI.AuthenticationError);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  await control('POST', 'reset');
  try {
    await check();
    console.log(`passed node ${name}`);
  } catch (error) {
    console.error(error);
    console.log(`failed node ${name}`);
  }
}
