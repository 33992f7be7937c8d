// A subnet full of neurons, written straight into storage: 256 of them in one step instead of 256 registrations.
'use strict';
const { find, set } = require('./storage.cjs');

const PALLET = 'SubtensorModule';
/** What only some runtimes have; everything else must be there. */
const NOT_EVERYWHERE = new Set(['Rank', 'Trust', 'PruningScores', 'Alpha', 'TotalHotkeyShares', 'NeuronCertificates']);

/** Shares are u64 in old runtimes and fixed point (U64F64 as {bits}) in newer ones. */
const share = (rao) => (type) => (type.includes('bits') ? { bits: (BigInt(rao) << 64n).toString() } : rao);

/**
 * Replaces the neurons of a subnet: uid 0, 1, … in the order of `list`.
 * Each: { hotkey, coldkey (hex or SS58), validator: bool, stake: rao as text, axon, prometheus: { ip: number or text, port } or null }.
 */
async function seed(chain, netuid, list) {
  const block = chain.head.number;
  const each = (value) => list.map((_, uid) => (typeof value === 'function' ? value(list[uid]) : value));
  const items = [
    ['SubnetworkN', [netuid], list.length],
    ['NetworksAdded', [netuid], true],
    ['Active', [netuid], each(true)],
    ['ValidatorPermit', [netuid], each((neuron) => Boolean(neuron.validator))],
    ['LastUpdate', [netuid], each(block)],
    ...['Emission', 'Consensus', 'Incentive', 'Dividends', 'ValidatorTrust', 'Rank', 'Trust', 'PruningScores'].map((name) => [name, [netuid], each(0)]),
  ];
  list.forEach(({ hotkey, coldkey, stake, axon, prometheus }, uid) => {
    items.push(
      ['Keys', [netuid, uid], hotkey],
      ['Uids', [netuid, hotkey], uid],
      // Long ago: an epoch drops weights that are no younger than the neuron they are for.
      ['BlockAtRegistration', [netuid, uid], 0],
      ['IsNetworkMember', [hotkey, netuid], true],
      ['Owner', [hotkey], coldkey],
      ['OwnedHotkeys', [coldkey], [hotkey]],
      ['StakingHotkeys', [coldkey], [hotkey]],
    );
    if (BigInt(stake ?? 0) > 0n) {
      items.push(
        ['TotalHotkeyAlpha', [hotkey, netuid], stake],
        ['TotalHotkeyShares', [hotkey, netuid], share(stake)],
        ['Alpha', [hotkey, coldkey, netuid], share(stake)],
      );
    }
    if (axon) items.push(['Axons', [netuid, hotkey], { block, version: 1, ...axon, ipType: 4, protocol: 4, placeholder1: 0, placeholder2: 0 }]);
    if (prometheus) items.push(['Prometheus', [netuid, hotkey], { block, version: 1, ...prometheus, ipType: 4 }]);
  });
  const meta = await chain.head.meta;
  return set(chain, items.filter(([item]) => !NOT_EVERYWHERE.has(item) || find(meta, PALLET, item)).map((item) => [PALLET, ...item]));
}

module.exports = { seed };
