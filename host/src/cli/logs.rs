//! `put`, `log` and `sync`.

use std::io::{self, BufRead};

use futures::StreamExt;
use kinfolk_core::PeerId;
use kinfolk_shell::api::{
    client::{Client, ClientError},
    logs::{LogQuery, MAX_LINES, Put},
};

use super::{asking::find, failure::Failure, node::Node, out::Out, peer_name::PeerName, render};

/// Lines of one request.
const LINES: usize = 4_096;

/// Puts a text into the own log; `-`: each line of the standard input stream.
pub(super) async fn put(node: &Node, text: String, out: Out) -> Result<(), Failure> {
    let client = node.client()?;
    if text != "-" {
        let put = node.answer(client.put(text.into_bytes()).await)?;
        return told(put, 1, out);
    }
    let mut input = io::stdin().lock();
    let (mut last, mut count) = (None, 0);
    loop {
        let (lines, taken) = some_lines(&mut input)?;
        if taken == 0 {
            break;
        }
        last = Some(node.answer(client.put_lines(lines).await)?);
        count += taken;
    }
    match last {
        Some(put) => told(put, count, out),
        None => Err(Failure::bad_input("there was no line on the standard input stream")),
    }
}

fn told(put: Put, count: u64, out: Out) -> Result<(), Failure> {
    out.either(&put, || match count {
        1 => format!("entry {} of this node's log", put.position),
        _ => format!("{count} entries, up to entry {} of this node's log", put.position),
    })
}

/// As many lines as go into one request, and how many these are.
fn some_lines(input: &mut impl BufRead) -> Result<(Vec<u8>, u64), Failure> {
    let unreadable = |error| Failure::failed(format!("can't read the standard input stream: {error}"));
    let (mut lines, mut count) = (vec![], 0);
    // The next line may be as long as an entry.
    while count < LINES && lines.len() < MAX_LINES - kinfolk_shell::sync::MAX_ENTRY - 1 {
        let before = lines.len();
        let mut line = io::Read::take(&mut *input, kinfolk_shell::sync::MAX_ENTRY as u64 + 2);
        if line.read_until(b'\n', &mut lines).map_err(unreadable)? == 0 {
            break;
        }
        if lines.last() != Some(&b'\n') {
            lines.push(b'\n');
        }
        if lines.len() - before > kinfolk_shell::sync::MAX_ENTRY + 1 {
            let most = kinfolk_shell::sync::MAX_ENTRY;
            return Err(Failure::bad_input(format!("a line is longer than {most} bytes, the most for an entry")));
        }
        count += 1;
    }
    Ok((lines, count as u64))
}

/// Prints the entries of all logs, or of one.
pub(super) async fn log(
    node: &Node,
    author: Option<&str>,
    last: Option<u64>,
    follow: bool,
    out: Out,
) -> Result<(), Failure> {
    let author = author.map(PeerName::read).transpose()?;
    let client = node.client()?;
    let author = match author {
        Some(name) => Some(find_author(node, &client, &name).await?),
        None => None,
    };
    let mut entries = node.answer(client.log(&LogQuery { author, last, follow }).await)?;
    loop {
        match entries.next().await {
            Some(Ok(entry)) => out.either(&entry, || render::entry(&entry))?,
            None if follow => return Err(node.gone()),
            None => return Ok(()),
            // A node that is killed leaves half a line behind.
            Some(Err(error)) => {
                return match client.id().await {
                    Ok(_) => node.answer(Err(error)),
                    Err(_) => Err(node.gone()),
                };
            }
        }
    }
}

/// An author may be this node, or somebody who is no peer any more.
async fn find_author(node: &Node, client: &Client, name: &PeerName) -> Result<PeerId, Failure> {
    let PeerName::Part { .. } = name else { return find(node, client, name).await };
    let logs = node.answer(client.sync().await)?.logs;
    let peers = node.answer(client.peers().await)?;
    let known = logs.into_iter().map(|log| log.author).chain(peers.into_iter().map(|peer| peer.peer));
    let mut known: Vec<PeerId> = known.collect();
    known.sort();
    known.dedup();
    name.find(known)
}

/// Prints who has what.
pub(super) async fn sync(node: &Node, out: Out) -> Result<(), Failure> {
    let client = node.client()?;
    let sync = node.answer(client.sync().await)?;
    let own = match client.id().await {
        Ok(id) => Some(id.peer),
        Err(ClientError::NoNode { .. }) => return Err(node.gone()),
        Err(_) => None,
    };
    let width = out.size().map(|(width, _)| width);
    out.either(&sync, || render::sync(&sync, own.as_ref(), width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_in_parts_that_fit() {
        let mut few: &[u8] = b"one\n\ntwo";
        assert_eq!(some_lines(&mut few).unwrap(), (b"one\n\ntwo\n".to_vec(), 3));
        assert_eq!(some_lines(&mut few).unwrap(), (vec![], 0));

        let many = "x\n".repeat(LINES + 1);
        let mut many = many.as_bytes();
        assert_eq!(some_lines(&mut many).unwrap().1, LINES as u64);
        assert_eq!(some_lines(&mut many).unwrap().1, 1);

        let longest = "y".repeat(kinfolk_shell::sync::MAX_ENTRY);
        let long = format!("{longest}\n").repeat(40);
        let mut long = long.as_bytes();
        let mut total = 0;
        loop {
            let (lines, count) = some_lines(&mut long).unwrap();
            assert!(lines.len() <= MAX_LINES);
            if count == 0 {
                break;
            }
            total += count;
        }
        assert_eq!(total, 40);

        let too_long = format!("{longest}z\n");
        assert!(some_lines(&mut too_long.as_bytes()).is_err());
    }
}
