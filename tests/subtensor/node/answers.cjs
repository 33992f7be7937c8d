// Where chopsticks answers otherwise than a Substrate node, the node's answer: heads and finality, unknown blocks, the
// pool's refusals, the life of a watched transaction, names that only nodes have.
'use strict';
const core = require('@acala-network/chopsticks-core');
const { writes } = require('./storage.cjs');

/** An error as JSON-RPC has it, with the `data` that chopsticks leaves out. */
class RpcError extends Error {
  constructor(code, message, data) {
    super(message);
    Object.assign(this, { code, data });
  }

  toJSON() {
    return { code: this.code, message: this.message, ...(this.data === undefined ? {} : { data: this.data }) };
  }
}

/** sp_runtime's texts of InvalidTransaction. */
const INVALID = {
  call: 'Transaction call is not expected',
  payment: 'Inability to pay some fees (e.g. account balance too low)',
  future: 'Transaction will be valid in the future',
  stale: 'Transaction is outdated',
  badProof: 'Transaction has a bad signature',
  ancientBirthBlock: 'Transaction has an ancient birth block',
  exhaustsResources: 'Transaction would exhaust the block limits',
  badMandatory: 'A call was labelled as mandatory, but resulted in an Error.',
  mandatoryValidation: 'Transaction dispatch is mandatory; transactions must not be validated.',
  badSigner: 'Invalid signing address',
};

/** What a node says of a TransactionValidityError (chopsticks throws the decoded one). */
function refusal(error) {
  if (error instanceof RpcError) return error;
  const said = error.toJSON?.();
  if (!said) return new RpcError(-32603, `Internal error: ${error.message ?? error}`);
  if (said.unknown !== undefined) return new RpcError(1011, 'Unknown Transaction Validity', JSON.stringify(said.unknown));
  const [kind, value] = Object.entries(said.invalid)[0];
  return new RpcError(1010, 'Invalid Transaction', kind === 'custom' ? `Custom error: ${value}` : (INVALID[kind] ?? kind));
}

/** Puts a transaction into the pool, or says why not as a node does. */
async function submit(chain, extrinsic) {
  const pending = chain.txPool.pendingExtrinsics;
  if (pending.includes(extrinsic)) throw new RpcError(1013, 'Transaction is already imported', '[..]');
  const registry = await chain.head.registry;
  const parse = (hex) => registry.createType('GenericExtrinsic', hex);
  let mine;
  try {
    mine = parse(extrinsic);
  } catch (error) {
    throw new RpcError(1002, `Verification Error: Runtime error: Execution failed: ${error.message}`, 'RuntimeApi("Execution failed")');
  }
  const rival = pending.map(parse).find((other) => mine.isSigned && other.signer.eq(mine.signer) && other.nonce.eq(mine.nonce));
  if (rival) {
    throw new RpcError(1014, 'Priority is too low: (0 vs 0)', 'The transaction has too low priority to replace another transaction already in the pool.');
  }
  return chain.submitExtrinsic(extrinsic).catch((error) => {
    throw refusal(error);
  });
}

const header = async (block) => {
  const { parentHash, number, stateRoot, extrinsicsRoot, digest } = await block.header;
  const logs = digest.logs.map((log) => log.toHex());
  return { parentHash: parentHash.toHex(), number: `0x${number.toNumber().toString(16)}`, stateRoot: stateRoot.toHex(), extrinsicsRoot: extrinsicsRoot.toHex(), digest: { logs } };
};

let last = 0;
const newId = () => `s${++last}`;

/** The handlers, for one chain and its heads. */
function answers(chain, heads) {
  /** The block, or null where a node knows none (chopsticks would invent one with the genesis header). */
  const blockAt = async (hash) => (hash == null ? chain.head : heads.knows(hash) ? chain.getBlock(hash) : null);
  const state = async (hash) => {
    const block = await blockAt(hash);
    if (!block) throw new RpcError(4003, `Client error: UnknownBlock: Header was not found in the database: ${hash}`);
    return block;
  };
  const at = (name, position) => async (context, params, subscriptions) => {
    await state(params[position]);
    return core.allHandlers[name](context, params, subscriptions);
  };
  /** A subscription to heads. Like a node's it names the newest at each change; what came in between is left out. */
  const subscribe = (name, newest, wanted) => async (_context, _params, { subscribe }) => {
    const id = newId();
    let end = () => {};
    const notify = subscribe(name, id, () => end());
    const tell = async () => notify(await header(await chain.getBlock(newest())));
    end = heads.listen((change) => wanted(change) && tell());
    setTimeout(tell, 10); // after the answer with the id
    return id;
  };
  const unsubscribe = async (_context, [id], { unsubscribe }) => unsubscribe(id);

  /** ready, broadcast, inBlock, retracted and inBlock again after a fork, finalized; or dropped out as invalid. */
  const watch = async (_context, [extrinsic], { subscribe, unsubscribe }) => {
    const id = newId();
    const ends = [];
    let included = null; // { hash, height }
    let started = false;
    const notify = subscribe('author_extrinsicUpdate', id, () => ends.forEach((end) => end()));
    const finish = (status) => {
      notify(status);
      unsubscribe(id);
    };
    const look = async () => {
      if (!started) return;
      if (included && !heads.has(included.hash, included.height)) {
        notify({ retracted: included.hash });
        included = null;
      }
      for (let depth = 0, block = chain.head; !included && block && depth < 8; depth++, block = await block.parentBlock) {
        if (!included && (await block.extrinsics).includes(extrinsic) && heads.has(block.hash, block.number)) {
          included = { hash: block.hash, height: block.number };
          notify({ inBlock: block.hash });
        }
      }
      if (included && heads.isFinal(included.height)) finish({ finalized: included.hash });
    };
    // One look after the other: a status must not overtake the one before it.
    let turn = Promise.resolve();
    const next = () => {
      turn = turn.then(look);
    };
    ends.push(heads.listen(next));
    const failed = ([which]) => which === extrinsic && finish('invalid');
    chain.txPool.event.on(core.APPLY_EXTRINSIC_ERROR, failed);
    ends.push(() => chain.txPool.event.removeListener(core.APPLY_EXTRINSIC_ERROR, failed));
    try {
      await submit(chain, extrinsic);
    } catch (error) {
      unsubscribe(id);
      throw error;
    }
    setTimeout(() => {
      notify('ready');
      notify({ broadcast: ['12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'] });
      started = true;
      next();
    }, 10);
    return id;
  };

  const best = subscribe('chain_newHead', () => heads.best, () => true);
  const final = subscribe('chain_finalizedHead', () => heads.finalised, (change) => change.final);
  // Nodes take state_call's data with or without 0x; chopsticks wants 0x, and old SDKs send none. A call takes a tenth of a
  // second and always says the same of one block: several clients that ask the same are answered by one.
  let said = new Map();
  let of;
  const call = async (context, [method, data, hash], subscriptions) => {
    const block = await state(hash);
    const hex = String(data ?? '');
    const run = () => core.allHandlers.state_call(context, [method, hex.startsWith('0x') ? hex : `0x${hex}`, block.hash], subscriptions);
    if (block.hash !== chain.head.hash) return run();
    // Tests write to the newest block's storage: then it is another one.
    const now = `${block.hash} ${writes.count}`;
    if (of !== now) [of, said] = [now, new Map()];
    const key = `${method} ${hex}`;
    if (!said.has(key)) said.set(key, run());
    return said.get(key);
  };
  const hashes = async (_context, [number]) => {
    const one = (n) => (n == null ? heads.best : heads.hashAt(Number(n)));
    return Array.isArray(number) ? number.map(one) : one(number);
  };
  const hidden = /^(chainHead|chainSpec|archive|transaction)_/;
  const theirs = Object.fromEntries(Object.entries(core.allHandlers).filter(([name]) => !hidden.test(name)));
  return {
    // Not offered: the newer API (chainHead_v1 and so on), behind which chopsticks hides why it refused a transaction.
    ...theirs,
    account_nextIndex: theirs.system_accountNextIndex,
    author_submitExtrinsic: async (_context, [extrinsic]) => submit(chain, extrinsic),
    author_submitAndWatchExtrinsic: watch,
    author_unwatchExtrinsic: unsubscribe,
    chain_getBlock: async (context, [hash]) => ((await blockAt(hash)) ? theirs.chain_getBlock(context, [hash]) : null),
    chain_getBlockHash: hashes,
    chain_getHead: hashes,
    chain_getFinalizedHead: async () => heads.finalised,
    chain_getFinalisedHead: async () => heads.finalised,
    chain_getHeader: async (_context, [hash]) => ((await blockAt(hash)) ? header(await blockAt(hash)) : null),
    chain_getRuntimeVersion: at('state_getRuntimeVersion', 0),
    ...Object.fromEntries(['chain_subscribeNewHead', 'chain_subscribeNewHeads', 'chain_subscribeAllHeads'].map((name) => [name, best])),
    chain_subscribeFinalizedHeads: final,
    chain_subscribeFinalisedHeads: final,
    ...Object.fromEntries(['NewHead', 'NewHeads', 'AllHeads', 'FinalizedHeads', 'FinalisedHeads'].map((name) => [`chain_unsubscribe${name}`, unsubscribe])),
    state_call: call,
    state_getKeysPaged: at('state_getKeysPaged', 3),
    state_getKeysPagedAt: at('state_getKeysPaged', 3),
    state_getMetadata: at('state_getMetadata', 0),
    state_getRuntimeVersion: at('state_getRuntimeVersion', 0),
    state_getStorage: at('state_getStorage', 1),
    state_getStorageAt: at('state_getStorage', 1),
    state_queryStorageAt: at('state_queryStorageAt', 1),
  };
}

module.exports = { RpcError, answers, refusal, submit };
