// A js-libp2p peer for the whole-system tests. Options come as the only argument, one JSON object:
//   listen    multiaddrs to listen on                       (default: /ip4/0.0.0.0/tcp/0)
//   announce  multiaddrs to tell others instead of these    (default: none)
//   network   the network's name, for the protocol names    (default: elohim)
//   kademlia  "server", "client" or "off"                   (default: off)
//   mdns      whether to look for peers on the LAN          (default: false)
//   relay     whether it relays for others                (default: false)
//   via       multiaddrs of relays to listen through      (default: none)
//   dcutr     whether it tries for direct connections     (default: false)
//   autonat   whether it probes, and has itself probed    (default: false)
//   version   what identify calls the protocol version      (default: js-libp2p's own, "ipfs/0.1.0")
// Requests come as JSON lines on stdin, answers and events go to stdout; see tests/src/foreign.rs.

import { createInterface } from 'node:readline'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { mdns } from '@libp2p/mdns'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

const options = JSON.parse(process.argv[2] ?? '{}')
const network = options.network ?? 'elohim'
const kademlia = options.kademlia ?? 'off'
// Bounds each thing that is tried, so that an answer always comes.
const limit = () => AbortSignal.timeout(10_000)
const about = (connection) => ({
  peer: connection.remotePeer.toString(),
  direction: connection.direction,
  address: connection.remoteAddr.toString(),
  relayed: connection.remoteAddr.toString().includes('/p2p-circuit')
})
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const services = {
  identify: identify(),
  ping: ping()
}
if (kademlia !== 'off') {
  services.kad = kadDHT({
    protocol: `/${network}/kad/1.0.0`,
    clientMode: kademlia === 'client',
    // Without it, private and loopback addresses are thrown away.
    peerInfoMapper: passthroughMapper,
    allowQueryWithZeroPeers: true
  })
}
if (options.relay === true) {
  services.relay = circuitRelayServer({ reservations: { maxReservations: 100 } })
}
if (options.dcutr === true) {
  services.dcutr = dcutr()
}
if (options.autonat === true) {
  services.autonat = autoNATv2({ startupDelay: 0 })
}
const via = (options.via ?? []).map((relay) => `${relay}/p2p-circuit`)

const node = await createLibp2p({
  addresses: { listen: [...options.listen ?? ['/ip4/0.0.0.0/tcp/0'], ...via], announce: options.announce ?? [] },
  transports: [tcp(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  peerDiscovery: options.mdns === true ? [mdns({ interval: 1000 })] : [],
  // The default refuses private addresses.
  connectionGater: { denyDialMultiaddr: () => false },
  nodeInfo: { name: 'js-peer', version: '1.0.0', userAgent: 'js-peer/1.0.0' },
  services
})
if (options.version != null) {
  // js-libp2p has no setting for it: its prefix renames the protocol itself too, and then nobody understands it.
  node.services.identify.host.protocolVersion = options.version
}

node.addEventListener('peer:discovery', ({ detail }) => {
  say({ event: 'discovered', peer: detail.id.toString(), addresses: detail.multiaddrs.map(String) })
})
node.addEventListener('connection:open', ({ detail }) => {
  say({ event: 'connected', ...about(detail) })
})
node.addEventListener('connection:close', ({ detail }) => {
  say({ event: 'disconnected', peer: detail.remotePeer.toString() })
})
node.addEventListener('peer:identify', ({ detail }) => {
  say({
    event: 'identified',
    peer: detail.peerId.toString(),
    agent: detail.agentVersion,
    version: detail.protocolVersion,
    protocols: detail.protocols,
    addresses: detail.listenAddrs.map(String),
    observed: detail.observedAddr?.toString()
  })
})

const requests = {
  async dial ({ address }) {
    const connection = await node.dial(multiaddr(address), { signal: limit() })
    return { peer: connection.remotePeer.toString() }
  },
  // The round trip in milliseconds.
  async ping ({ peer }) {
    return await node.services.ping.ping(peerIdFromString(peer), { signal: limit() })
  },
  // Who is nearest to a peer's id, as the network says: ids and addresses.
  async closest ({ peer }) {
    const found = []
    for await (const event of node.services.kad.getClosestPeers(peerIdFromString(peer).toMultihash().bytes, { signal: limit() })) {
      if (event.name === 'FINAL_PEER') {
        found.push({ peer: event.peer.id.toString(), addresses: event.peer.multiaddrs.map(String) })
      }
    }
    return found
  },
  // Who answered while a peer was looked for.
  async answered ({ peer }) {
    const answers = []
    for await (const event of node.services.kad.getClosestPeers(peerIdFromString(peer).toMultihash().bytes, { signal: limit() })) {
      if (event.name === 'PEER_RESPONSE') {
        answers.push(event.from.toString())
      }
    }
    return answers
  },
  // Whether a peer is in the routing table.
  async routed ({ peer }) {
    return await node.services.kad.routingTable.find(peerIdFromString(peer)) != null
  },
  async connections () {
    return node.getConnections().map(about)
  },
  // Own addresses at which somebody has reached this peer, when it asked to be probed.
  async proven () {
    const all = node.components.addressManager.getAddressesWithMetadata()
    return all.filter(({ verified, lastVerified }) => verified && lastVerified != null).map(({ multiaddr }) => multiaddr.toString())
  },
  // Who has a place at this relay.
  async reserved () {
    return [...node.services.relay.reservations.keys()].map(String)
  },
  async hangUp ({ peer }) {
    await node.hangUp(peerIdFromString(peer), { signal: limit() })
    return null
  }
}

say({ event: 'ready', peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  const work = requests[request.do]
  if (work == null) {
    say({ id: request.id, error: `no such request: ${request.do}` })
    continue
  }
  work(request).then(
    (ok) => say({ id: request.id, ok: ok ?? null }),
    (error) => say({ id: request.id, error: `${error.name}: ${error.message}` })
  )
}
await node.stop()
