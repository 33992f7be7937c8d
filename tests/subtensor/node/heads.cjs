// Which blocks are the chain: heights, finality that lags behind, forks that replace blocks.
//
// chopsticks calls every head final at once, forgets nothing of a replaced branch, and answers the genesis hash for a
// height that a jump left out. A Substrate node does none of that, and these differences are what clients get wrong.
'use strict';
const core = require('@acala-network/chopsticks-core');

class Heads {
  #chain;
  #hashes = new Map(); // height -> hash, of the chain as it is now
  #known = new Set(); // hashes, replaced blocks' too
  #heights = []; // the same, ascending; jumps leave holes
  #listeners = new Set();
  #lag = 0;
  #final; // never goes back, whatever is replaced
  #quiet = false;

  /** Follows `chain`, whose genesis and first block exist. */
  static async follow(chain) {
    const heads = new Heads();
    heads.#chain = chain;
    for (let height = 0; height <= chain.head.number; height++) heads.#add(height, (await chain.getBlockAt(height)).hash);
    heads.#final = heads.#finalNow();
    chain.headState.subscribeHead((block) => heads.#onHead(block));
    return heads;
  }

  get best() {
    return this.#chain.head.hash;
  }

  /** The newest final block's hash. */
  get finalised() {
    return this.#final;
  }

  /** The hash at a height; null above the head and in the hole of a jump. */
  hashAt(height) {
    return this.#hashes.get(height) ?? null;
  }

  /** Whether there ever was a block of this hash. */
  knows(hash) {
    return this.#known.has(hash);
  }

  /** Whether the block at this hash and height is still part of the chain. */
  has(hash, height) {
    return this.#hashes.get(height) === hash;
  }

  /** Whether a height is final. */
  isFinal(height) {
    return height <= this.#heightOf(this.#final);
  }

  /** Calls `listener({ final })` at each new head; `final` says whether finality moved too. Returns how to end it. */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** From now on a block is final once so many blocks are on top of it. */
  setLag(blocks) {
    this.#lag = blocks;
    this.#announce();
  }

  /**
   * Replaces the newest `depth` blocks by `depth + 1` others without transactions, and says so with the new head only,
   * as a node does that changes to a longer fork. Returns the signed transactions that lost their place.
   */
  async fork(depth) {
    const old = this.#heights.slice(-depth - 1);
    if (!(depth > 0) || old.length <= depth) throw new Error(`cannot replace ${depth} blocks of ${this.#heights.length}`);
    if (this.isFinal(old[1])) throw new Error(`block ${old[1]} is final: set a lag of finality above ${depth} and build blocks first`);
    const lost = [];
    for (const height of old.slice(1)) lost.push(...(await (await this.#chain.getBlock(this.hashAt(height))).extrinsics));
    const parent = await this.#chain.getBlock(this.hashAt(old[0]));
    this.#quiet = true;
    try {
      await this.#chain.setHead(parent);
      // One slot more than the old branch had, or an empty block would be the same block again.
      const now = await core.getCurrentTimestamp(parent);
      const slot = await core.getSlotDuration(parent);
      await core.timeTravel(this.#chain, Number(now) + slot);
      const nothing = { transactions: [], upwardMessages: {}, downwardMessages: [], horizontalMessages: {} };
      for (let i = 0; i <= depth; i++) {
        await this.#chain.newBlockWithParams(nothing);
        if (i === 0) parent.popStorageLayer();
      }
    } finally {
      this.#quiet = false;
    }
    this.#announce();
    const registry = await this.#chain.head.registry;
    return lost.filter((extrinsic) => registry.createType('GenericExtrinsic', extrinsic).isSigned);
  }

  #onHead(block) {
    while (this.#heights.length > 0 && this.#heights.at(-1) >= block.number) this.#hashes.delete(this.#heights.pop());
    this.#add(block.number, block.hash);
    if (!this.#quiet) this.#announce();
  }

  #add(height, hash) {
    this.#hashes.set(height, hash);
    this.#known.add(hash);
    this.#heights.push(height);
  }

  #heightOf(hash) {
    return this.#heights.findLast((height) => this.#hashes.get(height) === hash) ?? 0;
  }

  #finalNow() {
    return this.#hashes.get(this.#heights[Math.max(0, this.#heights.length - 1 - this.#lag)]);
  }

  #announce() {
    const next = this.#finalNow();
    const final = this.#heightOf(next) > this.#heightOf(this.#final);
    if (final) this.#final = next;
    for (const listener of this.#listeners) listener({ final });
  }
}

module.exports = { Heads };
