// Storage by name: pallet and item as the metadata spell them, values as JSON, encoded with the runtime's own metadata.
//
// chopsticks has an own form for this (dev_setStorage with names), which drops 0 and false; raw pairs keep them.
'use strict';
const { StorageKey } = require('@polkadot/types');
const { hexToU8a, stringCamelCase, u8aToHex } = require('@polkadot/util');

/** The storage item, or undefined if this runtime has none of this name. */
function find(meta, pallet, item) {
  return meta.query[stringCamelCase(pallet)]?.[stringCamelCase(item)];
}

/** The key of an item of the metadata, which must exist. */
function keyOf(meta, pallet, item, keys) {
  const entry = find(meta, pallet, item);
  if (!entry) throw new Error(`this runtime has no storage ${pallet}.${item}`);
  const wanted = entry.meta.type.isPlain ? 0 : entry.meta.type.asMap.hashers.length;
  if (keys.length !== wanted) throw new Error(`${pallet}.${item} takes ${wanted} keys, not ${keys.length}`);
  return new StorageKey(meta.registry, wanted ? [entry, keys] : [entry]);
}

/** A raw pair [key, value] of one item. The value: JSON; {hex} for raw bytes; null to delete; a function of the type's text. */
function pair(meta, [pallet, item, keys, value]) {
  const key = keyOf(meta, pallet, item, keys);
  if (value === null) return [key.toHex(), null];
  if (typeof value?.hex === 'string') return [key.toHex(), value.hex];
  const json = typeof value === 'function' ? value(meta.registry.createType(key.outputType).toRawType()) : value;
  return [key.toHex(), u8aToHex(meta.registry.createType(key.outputType, json).toU8a())];
}

/** How often storage was written. */
const writes = { count: 0 };

/** Writes items to the newest block's state. They are read at its hash at once, and are the ground of the next block. */
async function set(chain, items) {
  const meta = await chain.head.meta;
  writes.count++;
  chain.head.pushStorageLayer().setAll(items.map((item) => pair(meta, item)));
  return items.length;
}

/** One item: its bytes (null if it is not set) and its value, or the runtime's default, as JSON. */
async function get(chain, pallet, item, keys, at) {
  const block = await chain.getBlock(at);
  if (!block) throw new Error(`there is no block ${at}`);
  const meta = await block.meta;
  const key = keyOf(meta, pallet, item, keys);
  const hex = (await block.get(key.toHex())) ?? null;
  const bytes = hex === null ? find(meta, pallet, item).meta.fallback.toU8a(true) : hexToU8a(hex);
  const optional = find(meta, pallet, item).meta.modifier.isOptional;
  if (hex === null && optional) return { hex, value: null };
  return { hex, value: meta.registry.createType(key.outputType, bytes).toJSON() };
}

module.exports = { find, get, set, writes };
