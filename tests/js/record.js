// Makes and checks signed peer records by js-libp2p's own code, for the tests of the doorway.
//   record.js make SEQ MULTIADDR…   one JSON line: the peer's id and the record in base64; the key is a new one
//   record.js check PEER RECORD     one JSON line: what the record says; fails if PEER has not signed it

import { generateKeyPair } from '@libp2p/crypto/keys'
import { PeerRecord, RecordEnvelope } from '@libp2p/peer-record'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

const [what, ...rest] = process.argv.slice(2)
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

if (what === 'make') {
  const [seq, ...addresses] = rest
  const key = await generateKeyPair('Ed25519')
  const peerId = peerIdFromPrivateKey(key)
  const record = new PeerRecord({ peerId, multiaddrs: addresses.map((text) => multiaddr(text)), seqNumber: BigInt(seq) })
  const envelope = await RecordEnvelope.seal(record, key)
  say({ peer: peerId.toString(), record: Buffer.from(envelope.marshal()).toString('base64') })
} else {
  const [peer, text] = rest
  const envelope = await RecordEnvelope.openAndCertify(new Uint8Array(Buffer.from(text, 'base64')), PeerRecord.DOMAIN)
  const record = PeerRecord.createFromProtobuf(envelope.payload)
  const signer = peerIdFromString(peer)
  if (!record.peerId.equals(signer) || !envelope.publicKey.equals(signer.publicKey)) {
    throw new Error('another peer has signed it')
  }
  say({ peer: record.peerId.toString(), seq: record.seqNumber.toString(), addresses: record.multiaddrs.map(String) })
}
