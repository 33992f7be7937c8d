// What tests ask for beside the chain's own RPC: test_* on the same connection.
//
//   test_info()                         what runs here: spec, block, time, memory, pid
//   test_set([[pallet, item, keys, value], ..])  storage by name; null deletes, {hex} gives raw bytes
//   test_has(pallet, item)              whether this runtime has such storage
//   test_get(pallet, item, keys, at?)   one item: { hex, value }
//   test_events(at?)                    a block's events: [{ name, data }]
//   test_submit(uri, pallet, call, args, wait_ms?)  signs with a development key, sends, waits for its block, says what came of it
//   test_sign(uri, pallet, call, args)  the same transaction, as hex, not sent
//   test_seedNeurons(netuid, neurons)   see neurons.cjs
//   test_every(ms)                      a block every so many ms with what is in the pool; 0: only with transactions again
//   test_finality(lag)                  blocks on top of the newest final one
//   test_reorg(depth, lose?)            replaces the newest blocks; their transactions go back to the pool unless they are to be lost
'use strict';
const core = require('@acala-network/chopsticks-core');
const { Keyring } = require('@polkadot/keyring');
const { stringCamelCase } = require('@polkadot/util');
const { RpcError, submit } = require('./answers.cjs');
const storage = require('./storage.cjs');
const neurons = require('./neurons.cjs');

const { BuildBlockMode } = core;

/** A block's events, with data by the runtime's metadata. */
async function events(block) {
  const meta = await block.meta;
  const records = meta.registry.createType('Vec<EventRecord>', (await block.get(core.compactHex(meta.query.system.events()))) ?? '0x00');
  return records.map(({ phase, event }) => ({
    name: `${event.section[0].toUpperCase()}${event.section.slice(1)}.${event.method}`,
    data: event.data.toJSON(),
    extrinsic: phase.isApplyExtrinsic ? phase.asApplyExtrinsic.toNumber() : null,
    error: event.data.find((part) => part.isModule !== undefined),
    registry: meta.registry,
  }));
}

/** A DispatchError by name. */
function dispatchError({ error, registry }) {
  if (!error?.isModule) return { pallet: null, name: error ? JSON.stringify(error.toJSON()) : 'unknown' };
  const { section, name } = registry.findMetaError(error.asModule);
  return { pallet: section[0].toUpperCase() + section.slice(1), name };
}

const plain = ({ name, data }) => ({ name, data });

/** A call; an argument { call: [pallet, call, args] } is a call within it, as Sudo and Utility take them. */
function compose(meta, pallet, call, args) {
  const method = meta.tx[stringCamelCase(pallet)]?.[stringCamelCase(call)];
  if (!method) throw new RpcError(1, `this runtime has no call ${pallet}.${call}`);
  return method(...args.map((arg) => (Array.isArray(arg?.call) ? compose(meta, ...arg.call) : arg)));
}

/** A signed transaction of the current runtime, immortal, as hex. */
async function sign(chain, uri, pallet, call, args) {
  const head = chain.head;
  const [registry, meta, genesis] = [await head.registry, await head.meta, await chain.getBlockAt(0)];
  const pair = new Keyring({ type: 'sr25519' }).addFromUri(uri);
  const nonce = await core.allHandlers.system_accountNextIndex({ chain }, [pair.address]);
  const extrinsic = registry.createType('GenericExtrinsic', compose(meta, pallet, call, args), { version: 4 });
  extrinsic.sign(pair, {
    blockHash: genesis.hash, genesisHash: genesis.hash, era: registry.createType('ExtrinsicEra'), nonce, tip: 0,
    runtimeVersion: await head.runtimeVersion, signedExtensions: registry.signedExtensions,
  });
  return { extrinsic: extrinsic.toHex(), hash: extrinsic.hash.toHex() };
}

/** Builds a block every `ms`, one after the other: a block that takes longer delays the next, none is left out. */
class Clock {
  #chain;
  #ms = 0;
  #timer;

  constructor(chain) {
    this.#chain = chain;
  }

  get ms() {
    return this.#ms;
  }

  every(ms) {
    clearTimeout(this.#timer);
    this.#ms = ms;
    this.#chain.txPool.mode = ms > 0 ? BuildBlockMode.Manual : BuildBlockMode.Instant;
    if (ms > 0) this.#next(ms);
  }

  #next(wait) {
    this.#timer = setTimeout(async () => {
      const begin = Date.now();
      await this.#chain.newBlock();
      if (this.#ms > 0) this.#next(Math.max(0, this.#ms - (Date.now() - begin)));
    }, wait);
  }
}

/** The handlers. */
function testing(chain, heads, started) {
  const clock = new Clock(chain);
  const included = async (extrinsic, limit) => {
    const end = Date.now() + limit;
    // The head may have moved on by a few blocks before this looks.
    for (;;) {
      for (let depth = 0, block = chain.head; block && depth < 8; depth++, block = await block.parentBlock) {
        const index = (await block.extrinsics).indexOf(extrinsic);
        if (index >= 0) return { block, index };
      }
      if (Date.now() > end) throw new RpcError(1, `the transaction is in no block after ${limit} ms`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  return {
    test_info: async () => ({
      pid: process.pid, spec: (await chain.head.runtimeVersion).specVersion, block: chain.head.number, hash: chain.head.hash, every_ms: clock.ms,
      started_ms: started, now_ms: Number(await core.getCurrentTimestamp(chain.head)), slot_ms: await core.getSlotDuration(chain.head),
      rss_mib: Math.round(process.memoryUsage().rss / 2 ** 20),
    }),
    test_set: async (_context, [items]) => storage.set(chain, items),
    test_has: async (_context, [pallet, item]) => storage.find(await chain.head.meta, pallet, item) !== undefined,
    test_get: async (_context, [pallet, item, keys = [], at]) => storage.get(chain, pallet, item, keys, at),
    test_events: async (_context, [at]) => (await events(await chain.getBlock(at))).map(plain),
    test_submit: async (_context, [uri, pallet, call, args, wait = 30_000]) => {
      const { extrinsic, hash } = await sign(chain, uri, pallet, call, args);
      await submit(chain, extrinsic);
      if (chain.txPool.mode === BuildBlockMode.Manual && clock.ms === 0) await chain.newBlock();
      const { block, index } = await included(extrinsic, wait);
      const own = (await events(block)).filter((event) => event.extrinsic === index);
      const failed = own.find(({ name }) => name === 'System.ExtrinsicFailed');
      // Sudo's own call is fine whatever becomes of the one inside: its event has the inner result.
      const inner = own.find(({ name, data }) => name === 'Sudo.Sudid' && data[0]?.err !== undefined);
      return {
        hash, block: { number: block.number, hash: block.hash }, events: own.map(plain),
        error: failed ? dispatchError(failed) : inner ? { pallet: 'Sudo', name: JSON.stringify(inner.data[0].err) } : null,
      };
    },
    test_sign: async (_context, [uri, pallet, call, args]) => (await sign(chain, uri, pallet, call, args)).extrinsic,
    test_seedNeurons: async (_context, [netuid, list]) => neurons.seed(chain, netuid, list),
    test_every: async (_context, [ms]) => {
      if (!Number.isInteger(ms) || ms < 0) throw new RpcError(-32602, `not a number of milliseconds: ${ms}`);
      clock.every(ms);
      return ms;
    },
    test_finality: async (_context, [lag]) => {
      if (!Number.isInteger(lag) || lag < 0) throw new RpcError(-32602, `not a number of blocks: ${lag}`);
      heads.setLag(lag);
      return lag;
    },
    test_reorg: async (_context, [depth, lose = false]) => {
      const lost = await heads.fork(depth);
      // What is no longer valid on the new branch stays away, as it does in a node.
      if (!lose) for (const extrinsic of lost) await submit(chain, extrinsic).catch(() => {});
      return lost.length;
    },
  };
}

module.exports = { testing };
