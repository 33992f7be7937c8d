#!/usr/bin/env node
// A subtensor runtime on loopback: the real wasm, executed by chopsticks' core, behind an RPC like a Substrate node's.
//
//   node node.cjs --genesis FILE [--port 0] [--every MS] [--now TIME] [--keep]
//
// --genesis  what genesis.cjs made
// --port     0 takes a free one
// --every    a block every so many milliseconds; without it one with each transaction, or by dev_newBlock
// --now      the chain's time at its first block, RFC 3339
// --keep     run on when standard input ends; without it this process ends with whoever started it
//
// One line of JSON on standard output says that it is ready: {"ready":"127.0.0.1:PORT", ..}. testing.cjs lists what it
// offers to tests. There is one author, no peers and no signatures of blocks; everything above that is the runtime's.
'use strict';
process.env.LOG_LEVEL ??= 'error';
const fs = require('node:fs');
const { parseArgs } = require('node:util');
const core = require('@acala-network/chopsticks-core');
const { bnToHex, hexToU8a } = require('@polkadot/util');
const { xxhashAsHex } = require('@polkadot/util-crypto');
const { answers } = require('./answers.cjs');
const { Heads } = require('./heads.cjs');
const { serve } = require('./server.cjs');
const { testing } = require('./testing.cjs');

const CODE = '0x3a636f6465'; // ":code"
const BLOCKS_KEPT = 100_000; // beyond that chopsticks would answer genesis for old heights

const key = (pallet, item) => xxhashAsHex(pallet, 128) + xxhashAsHex(item, 128).slice(2);
const u64 = (n) => bnToHex(BigInt(n), { bitLength: 64, isLe: true });

/** Stores time and slot in the genesis: without them chopsticks reads the wall clock twice for block 1, and loses a race now and then. */
async function setTime(top, now) {
  const task = { wasm: top[CODE], calls: [['AuraApi_slot_duration', []]], mockSignatureHost: false, allowUnresolvedImports: true, runtimeLogLevel: 0 };
  const answer = await core.runTask(task, { getStorage: async (k) => top[k] });
  if (answer.Error) throw new Error(`AuraApi_slot_duration: ${answer.Error}`);
  const ms = Number(Buffer.from(hexToU8a(answer.Call.result)).readBigUInt64LE());
  const slot = Math.floor(now / ms);
  top[key('Timestamp', 'Now')] = u64(slot * ms);
  top[key('Aura', 'CurrentSlot')] = u64(slot);
}

async function main() {
  const begin = Date.now();
  const { values: options } = parseArgs({ options: {
    genesis: { type: 'string' }, port: { type: 'string', default: '0' }, every: { type: 'string', default: '0' },
    now: { type: 'string', default: '2026-01-01T00:00:00Z' }, keep: { type: 'boolean', default: false },
  } });
  if (!options.genesis) throw new Error('--genesis is missing: the file that genesis.cjs made');
  const now = Date.parse(options.now);
  if (Number.isNaN(now)) throw new Error(`--now is no time: ${options.now}`);
  const [port, every] = [Number(options.port), Number(options.every)];
  if (!Number.isInteger(port) || !Number.isInteger(every) || port < 0 || every < 0) throw new Error('--port and --every are whole numbers');
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  if (!options.keep) process.stdin.on('error', () => process.exit(0)).on('end', () => process.exit(0)).resume();

  const genesis = JSON.parse(fs.readFileSync(options.genesis, 'utf8'));
  await setTime(genesis.genesis.raw.top, now);
  const chain = await core.setup({
    genesis: new core.GenesisProvider(genesis), buildBlockMode: core.BuildBlockMode.Instant, mockSignatureHost: false, allowUnresolvedImports: true,
    runtimeLogLevel: 0, maxMemoryBlockCount: BLOCKS_KEPT, processQueuedMessages: false, saveBlocks: false,
  });
  const heads = await Heads.follow(chain);
  const tests = testing(chain, heads, begin);
  const handlers = { ...answers(chain, heads), ...tests };
  handlers.rpc_methods = async () => ({ methods: Object.keys(handlers).sort() });
  const bound = await serve(handlers, { chain }, port);
  if (every > 0) await tests.test_every({}, [every]);
  const info = await tests.test_info();
  console.log(JSON.stringify({ ready: `127.0.0.1:${bound}`, ms: Date.now() - begin, ...info }));
}

main().catch((error) => {
  console.error(`subtensor node: ${error.stack ?? error}`);
  process.exit(1);
});
