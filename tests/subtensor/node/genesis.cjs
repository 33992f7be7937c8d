#!/usr/bin/env node
// Makes the genesis that the tests start from: node genesis.cjs SPEC OUT
//
// SPEC is any raw chain spec with a subtensor runtime. Only its runtime (`:code`) is taken: the state is built anew by
// that runtime's own GenesisBuilder from its default preset, with funded development accounts, //One as the author of
// blocks and //Alice as sudo. So nothing of the chain that the spec belongs to is left, and start-up needs no network.
'use strict';
const fs = require('node:fs');
const { runTask } = require('@acala-network/chopsticks-core');
const { Keyring } = require('@polkadot/keyring');
const { compactAddLength, compactFromU8a, hexToU8a, stringToU8a, u8aToHex } = require('@polkadot/util');
const { cryptoWaitReady } = require('@polkadot/util-crypto');

const CODE = '0x3a636f6465'; // ":code"
const FUNDED = ['Alice', 'Bob', 'Charlie', 'Dave', 'Eve', 'Ferdie', 'One', 'Two'];
const RAO_EACH = 1_000_000_000_000_000; // a million TAO

/** The runtime of a raw chain spec, as hex. */
function runtimeOf(path) {
  const code = JSON.parse(fs.readFileSync(path, 'utf8')).genesis?.raw?.top?.[CODE];
  if (typeof code !== 'string') throw new Error(`${path} is no raw chain spec: it has no genesis.raw.top["${CODE}"] (the runtime)`);
  return code;
}

/** What differs from the runtime's default genesis. */
function patch() {
  const sr = new Keyring({ type: 'sr25519' });
  const ed = new Keyring({ type: 'ed25519' });
  const address = (name) => sr.addFromUri(`//${name}`).address;
  return {
    balances: { balances: FUNDED.map((name) => [address(name), RAO_EACH]) },
    aura: { authorities: [address('One')] },
    grandpa: { authorities: [[ed.addFromUri('//One').address, 1]] },
    sudo: { key: address('Alice') },
    evmChainId: { chainId: 42 },
  };
}

/** One call into the runtime, on an empty state. */
async function call(wasm, method, argument) {
  const empty = {
    getStorage: async () => undefined,
    getNextKey: async () => undefined,
    offchainGetStorage: async () => undefined,
    offchainTimestamp: async () => 0,
    offchainRandomSeed: async () => `0x${'00'.repeat(32)}`,
    offchainSubmitTransaction: async () => false,
  };
  const task = { wasm, calls: [[method, [argument]]], mockSignatureHost: false, allowUnresolvedImports: true, runtimeLogLevel: 0 };
  const answer = await runTask(task, empty);
  if (answer.Error) throw new Error(`${method}: ${answer.Error}`);
  return answer.Call;
}

async function main([spec, out]) {
  if (!spec || !out) throw new Error('usage: genesis.cjs SPEC OUT');
  await cryptoWaitReady();
  const wasm = runtimeOf(spec);
  // Option<Vec<u8>> with the JSON of the default genesis; build_state wants a complete one, so ours is laid over it.
  const preset = hexToU8a((await call(wasm, 'GenesisBuilder_get_preset', '0x00')).result);
  if (preset[0] !== 1) throw new Error('the runtime has no default genesis preset');
  const [skip, length] = compactFromU8a(preset.subarray(1));
  const genesis = JSON.parse(Buffer.from(preset.subarray(1 + skip, 1 + skip + length.toNumber())).toString());
  for (const [pallet, values] of Object.entries(patch())) genesis[pallet] = { ...genesis[pallet], ...values };
  const built = await call(wasm, 'GenesisBuilder_build_state', u8aToHex(compactAddLength(stringToU8a(JSON.stringify(genesis)))));
  // Result<(), String>: anything but Ok is a text that says what the runtime did not like.
  if (!built.result.startsWith('0x00')) throw new Error(`GenesisBuilder_build_state: ${Buffer.from(hexToU8a(built.result).subarray(1))}`);
  const top = new Map(built.storageDiff.filter(([, value]) => value));
  top.set(CODE, wasm);
  const sorted = Object.fromEntries([...top].sort(([a], [b]) => (a < b ? -1 : 1)));
  const made = {
    name: 'Bittensor', id: 'bittensor', chainType: 'Local', bootNodes: [], telemetryEndpoints: null, protocolId: 'bittensor',
    properties: { ss58Format: 42, tokenDecimals: 9, tokenSymbol: 'TAO' }, codeSubstitutes: {},
    genesis: { raw: { top: sorted, childrenDefault: {} } },
  };
  // Written beside and moved, so that a broken run leaves no half a file.
  fs.writeFileSync(`${out}.part`, JSON.stringify(made));
  fs.renameSync(`${out}.part`, out);
  console.log(`genesis: ${top.size} keys, ${fs.statSync(out).size} bytes in ${out}`);
}

main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(`genesis: ${error.message}`);
  process.exit(1);
});
