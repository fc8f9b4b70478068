//! Records in a Redis or Valkey server that several doorways share.
//!
//! | key | what |
//! |---|---|
//! | `kinfolk:1:{network}:e:{key}` | an entry: number (20 digits), end (10), services (1), prefix (14), then the record; without one it is a floor |
//! | `kinfolk:1:{network}:live` | sorted set of keys with live records, by their ends |
//! | `kinfolk:1:{network}:serving` | the same for those with services |
//! | `kinfolk:1:{network}:over` | sorted set of keys with floors, by when they are forgotten |
//! | `kinfolk:1:{network}:from:{prefix}` | the same as `live` for one /24 or /48 |
//!
//! What compares and changes is done by one script in one step, so doorways can't get between each other. Numbers are
//! compared as text of one length: Lua's own are exact up to 2^53 only.

use std::{
    fmt,
    net::IpAddr,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use indexmap::IndexMap;
use kinfolk_shell::signal::{
    key::PeerKey,
    types::{Backing, Service},
};
use redis::{
    Client, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::{
    Answer, Down, Ended, FLOOR_KEPT, Kept, Offer, OpenError, Room, Sample, Services, Store, Taken, first_places,
    memory::Dice,
};

/// A server that has not answered in this time does not answer; a doorway's client waits for it.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes of an entry before the record.
const HEAD: usize = 45;

/// Moves what is over to the floors, at most a thousand at a time (some milliseconds), and forgets the oldest of these beyond the room.
const SWEEP: &str = r"
local base, now, member, keep, room = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local entry, live, serving, over = base .. 'e:' .. member, base .. 'live', base .. 'serving', base .. 'over'
local function trim()
    redis.call('ZREMRANGEBYSCORE', over, '-inf', now)
    for _ = 1, 1000 do
        if redis.call('ZCARD', over) <= room then break end
        redis.call('DEL', base .. 'e:' .. redis.call('ZPOPMIN', over)[1])
    end
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', live, '-inf', now, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', live, gone)
    redis.call('ZREM', serving, gone)
    local value = redis.call('GET', base .. 'e:' .. gone)
    if value then
        redis.call('SET', base .. 'e:' .. gone, string.sub(value, 1, 45), 'KEEPTTL')
        redis.call('ZADD', over, tonumber(string.sub(value, 21, 30)) + keep, gone)
    end
end
trim()
local old = redis.call('GET', entry)
local old_seq = old and string.sub(old, 1, 20)
local alive = old and #old > 45 and tonumber(string.sub(old, 21, 30)) > now
";

const PUT: &str = r"
local seq, expires, services, prefix, record = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if alive and old_seq == seq and string.sub(old, 46) == record then
    return {'before', string.sub(old, 21, 30)}
end
if old and old_seq >= seq then return {'stale', old_seq} end
if not alive and redis.call('ZCOUNT', live, '(' .. now, '+inf') >= room then return {'full', ''} end
local from = base .. 'from:' .. prefix
local before = alive and string.sub(old, 32, 45)
if before ~= prefix then
    redis.call('ZREMRANGEBYSCORE', from, '-inf', now)
    if redis.call('ZCARD', from) >= tonumber(ARGV[10]) then return {'crowded', ''} end
    if before then redis.call('ZREM', base .. 'from:' .. before, member) end
end
redis.call('SET', entry, seq .. expires .. services .. prefix .. record, 'EX', tonumber(expires) - now + keep)
redis.call('ZADD', live, expires, member)
redis.call('ZREM', over, member)
redis.call('ZADD', from, expires, member)
redis.call('EXPIRE', from, keep)
if services == '0' then redis.call('ZREM', serving, member) else redis.call('ZADD', serving, expires, member) end
return {'yes', ''}
";

const END: &str = r"
local seq = ARGV[5]
if not old then return {'nothing', ''} end
if old_seq > seq or (alive and old_seq == seq) then return {'stale', old_seq} end
redis.call('ZREM', live, member)
redis.call('ZREM', serving, member)
redis.call('ZREM', base .. 'from:' .. string.sub(old, 32, 45), member)
local until_ = now + keep
redis.call('SET', entry, seq .. string.format('%010d', now) .. '0' .. string.sub(old, 32, 45), 'EX', keep)
redis.call('ZADD', over, until_, member)
trim()
return {alive and 'yes' or 'nothing', ''}
";

const SAMPLE: &str = r"
return {
    redis.call('ZCOUNT', live, '(' .. now, '+inf'),
    redis.call('ZRANDMEMBER', serving, tonumber(ARGV[5])),
    redis.call('ZRANDMEMBER', live, tonumber(ARGV[6])),
}
";

static SAMPLE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{SWEEP}{SAMPLE}")));
static PUT_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{SWEEP}{PUT}")));
static END_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{SWEEP}{END}")));

/// Records in Redis or Valkey (6.2 and later).
pub struct Redis {
    connection: ConnectionManager,
    room: Room,
    dice: Dice,
    last: Mutex<Option<String>>,
}

impl Redis {
    /// For the server at `url` (`redis://[:password@]host:port/database`, or `redis+unix:///path`). It need not be there
    /// yet: until it is, every question is answered by [`Down`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address can't be read.
    pub fn open(url: &str, room: Room) -> Result<Self, OpenError> {
        let bad = |error: RedisError| OpenError::Redis(format!("can't use this Redis server (doorway.redis): {error}"));
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            // Whoever asks next tries again: waiting for it here would only keep clients waiting.
            .set_number_of_retries(0);
        let client = Client::open(url).map_err(bad)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(bad)?;
        Ok(Self { connection, room, dice: Dice::default(), last: Mutex::new(None) })
    }

    async fn run(&self, script: &Script, arguments: Arguments<'_>) -> Result<(String, String), Down> {
        let mut invocation = self.begin(script, arguments.network, &arguments.key.0, arguments.now);
        invocation.arg(digits(arguments.seq));
        if let Some(offer) = arguments.offer {
            invocation.arg(format!("{:010}", offer.expires)).arg(offer.services.bits());
            invocation.arg(prefix_text(offer.prefix)).arg(offer.record).arg(self.room.per_prefix);
        }
        self.invoke(&invocation).await
    }

    /// With what every script needs.
    fn begin<'a>(&self, script: &'a Script, network: &str, member: &[u8], now: u64) -> ScriptInvocation<'a> {
        let mut invocation = script.key(base(network));
        invocation.arg(now).arg(member).arg(FLOOR_KEPT.as_secs()).arg(self.room.records);
        invocation
    }

    async fn invoke<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, Down> {
        // A connection that broke in between is made anew for the next question: once more is enough.
        for again in [true, false] {
            match invocation.invoke_async(&mut self.connection.clone()).await {
                Err(error) if again && error.is_connection_dropped() => {}
                told => return self.heard(told),
            }
        }
        Err(Down("the Redis server does not answer".to_owned()))
    }

    async fn ask<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T, Down> {
        for again in [true, false] {
            match pipeline.query_async(&mut self.connection.clone()).await {
                Err(error) if again && error.is_connection_dropped() => {}
                told => return self.heard(told),
            }
        }
        Err(Down("the Redis server does not answer".to_owned()))
    }

    /// Logs the first of equal troubles, and the end of them.
    fn heard<T>(&self, told: RedisResult<T>) -> Result<T, Down> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Ok(told) => {
                if last.take().is_some() {
                    tracing::info!("the Redis server answers again");
                }
                Ok(told)
            }
            Err(error) => {
                let text = format!("the Redis server does not answer: {error}");
                if last.replace(text.clone()).is_none() {
                    tracing::warn!(%error, "the Redis server does not answer");
                }
                Err(Down(text))
            }
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("room", &self.room).finish_non_exhaustive()
    }
}

struct Arguments<'a> {
    network: &'a str,
    key: PeerKey,
    seq: u64,
    now: u64,
    offer: Option<&'a Offer<'a>>,
}

impl Store for Redis {
    fn backing(&self) -> Backing {
        Backing::Redis
    }

    fn put<'a>(&'a self, offer: Offer<'a>, now: u64) -> Answer<'a, Taken> {
        async move {
            let Offer { network, key, seq, .. } = offer;
            let (word, number) =
                self.run(&PUT_SCRIPT, Arguments { network, key, seq, now, offer: Some(&offer) }).await?;
            match word.as_str() {
                "yes" => Ok(Taken::Yes),
                "before" => Ok(Taken::Before { expires: parsed(&number)? }),
                "stale" => Ok(Taken::Stale { seq: parsed(&number)? }),
                "crowded" => Ok(Taken::Crowded),
                "full" => Ok(Taken::Full),
                _ => Err(strange()),
            }
        }
        .boxed()
    }

    fn end<'a>(&'a self, network: &'a str, key: PeerKey, seq: u64, now: u64) -> Answer<'a, Ended> {
        async move {
            let (word, number) = self.run(&END_SCRIPT, Arguments { network, key, seq, now, offer: None }).await?;
            match word.as_str() {
                "yes" => Ok(Ended::Yes),
                "nothing" => Ok(Ended::Nothing),
                "stale" => Ok(Ended::Stale { seq: parsed(&number)? }),
                _ => Err(strange()),
            }
        }
        .boxed()
    }

    fn get<'a>(&'a self, network: &'a str, key: PeerKey, now: u64) -> Answer<'a, Option<Kept>> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.get(entry(network, &key.0));
            let (value,): (Option<Vec<u8>>,) = self.ask(&pipeline).await?;
            Ok(value.and_then(|value| kept(key, &value, now)))
        }
        .boxed()
    }

    fn sample<'a>(&'a self, network: &'a str, limit: usize, service: Option<Service>, now: u64) -> Answer<'a, Sample> {
        async move {
            // Of those with services, some may not have the one that is asked for.
            let first = if service.is_some() { limit * 4 } else { first_places(limit) };
            // Some that are over may still be among them, after a thousand have ended at once.
            let more = if service.is_some() { 0 } else { limit * 2 };
            let mut invocation = self.begin(&SAMPLE_SCRIPT, network, &[], now);
            invocation.arg(first).arg(more);
            let (total, mut first_keys, mut keys): (u64, Vec<Vec<u8>>, Vec<Vec<u8>>) = self.invoke(&invocation).await?;
            // Which ones is left to chance by Redis, their order is not.
            self.dice.shuffle(&mut first_keys);
            self.dice.shuffle(&mut keys);

            let keys: Vec<Vec<u8>> = first_keys.into_iter().chain(keys).collect();
            if keys.is_empty() {
                return Ok((Vec::new(), total));
            }
            let mut pipeline = redis::pipe();
            pipeline.mget(keys.iter().map(|key| entry(network, key)).collect::<Vec<_>>());
            let (values,): (Vec<Option<Vec<u8>>>,) = self.ask(&pipeline).await?;
            let mut drawn = IndexMap::new();
            for (key, value) in keys.into_iter().zip(values) {
                let Some(kept) = <[u8; 32]>::try_from(key)
                    .ok()
                    .and_then(|key| kept(PeerKey(key), &value?, now))
                    .filter(|kept| service.is_none_or(|service| kept.services.has(service)))
                else {
                    continue;
                };
                if drawn.len() < limit {
                    drawn.entry(kept.key).or_insert(kept);
                }
            }
            Ok((drawn.into_values().collect(), total))
        }
        .boxed()
    }

    fn total<'a>(&'a self, network: &'a str, now: u64) -> Answer<'a, u64> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.cmd("ZCOUNT").arg(format!("{}live", base(network))).arg(format!("({now}")).arg("+inf");
            let (total,) = self.ask(&pipeline).await?;
            Ok(total)
        }
        .boxed()
    }

    fn check(&self) -> Answer<'_, ()> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.ping().ignore();
            self.ask(&pipeline).await
        }
        .boxed()
    }

    fn close(&self) -> Answer<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

fn base(network: &str) -> String {
    format!("kinfolk:1:{network}:")
}

fn entry(network: &str, key: &[u8]) -> Vec<u8> {
    [base(network).as_bytes(), b"e:", key].concat()
}

fn digits(seq: u64) -> String {
    format!("{seq:020}")
}

/// Of one length for all: the family, and the bytes of the address that count in hex.
fn prefix_text(prefix: IpAddr) -> String {
    let hex = |bytes: &[u8]| bytes.iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    match prefix {
        IpAddr::V4(ip) => format!("4-{:0<12}", hex(&ip.octets())),
        IpAddr::V6(ip) => format!("6-{:0<12}", hex(&ip.octets())),
    }
}

fn kept(key: PeerKey, value: &[u8], now: u64) -> Option<Kept> {
    let (head, record) = value.split_at_checked(HEAD)?;
    let head = std::str::from_utf8(head).ok()?;
    let expires = head.get(20..30)?.parse().ok().filter(|expires| *expires > now)?;
    let services = Services::from_bits(head.get(30..31)?.parse().ok()?);
    (!record.is_empty()).then(|| Kept { key, record: record.to_vec(), services, expires })
}

fn parsed(number: &str) -> Result<u64, Down> {
    number.parse().map_err(|_| strange())
}

fn strange() -> Down {
    Down(RedisError::from((ErrorKind::Parse, "the Redis server holds something else under our keys")).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_has_one_length() {
        for (prefix, text) in
            [("45.10.20.0", "4-2d0a14000000"), ("2a01:4f8:1::", "6-2a0104f80001"), ("::", "6-000000000000")]
        {
            assert_eq!(prefix_text(prefix.parse().unwrap()), text);
        }
        assert_eq!(digits(u64::MAX).len(), 20);
        assert_eq!(kept(PeerKey([0; 32]), b"short", 0), None);
    }
}
